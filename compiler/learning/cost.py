"""What a model costs: stored and non-zero parameters, bytes, multiply-accumulates, loss.

Stored parameters, non-zero parameters and bytes are three numbers (paper A); zeros are never called
removed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..data import SpreadWindows
from ..ir.forecaster import Forecaster, nonzero_count, parameter_count
from ..ir.unit import CompileUnit
from .evaluate import evaluate, model_predictor


@dataclass(frozen=True)
class Cost:
    """Static cost of one forecast of all variates.

    Attributes:
        parameters: stored.
        nonzero_parameters: those that are not exactly zero.
        size_bytes: of the stored parameters in their dtypes.
        macs: multiply-accumulates of matrix products and convolutions at batch 1; attention counts its
            full square, masked or not, since that is what is computed.
    """

    parameters: int
    nonzero_parameters: int
    size_bytes: int
    macs: int


def parameter_bytes(module: nn.Module) -> int:
    """Bytes of the stored parameters; tied tensors count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


@torch.no_grad()
def multiply_accumulates(model: nn.Module, variates: int, lookback: int) -> int:
    """Multiply-accumulates of one forecast of ``[1, D, L]``.

    They do not depend on the values, but for sparse experts, whose number of tokens is fixed too.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    past = torch.randn(1, variates, lookback, generator=torch.Generator().manual_seed(0)).to(parameter.dtype)
    counter = FlopCounterMode(display=False)
    # The counter has no formula for the fused CPU kernel; the plain form of attention has the same products.
    # Frozen: the counter's module tracker trips over views of parameters that want a gradient.
    frozen = copy.deepcopy(model).requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        frozen(past)
    return counter.get_total_flops() // 2


def cost_of(model: Forecaster, variates: int) -> Cost:
    """The static cost of a teacher or student."""
    return Cost(
        parameter_count(model),
        nonzero_count(model),
        parameter_bytes(model),
        multiply_accumulates(model, variates, model.lookback),
    )


def validation_mse(
    model: nn.Module, unit: CompileUnit, *, windows: int = 0, batch_windows: int = 32
) -> float:
    """Mean squared error over the validation windows, scaled data.

    Args:
        windows: at most this many, evenly spread; 0 for all.
        batch_windows: windows per forward pass.
    """
    task = unit.task
    chosen = SpreadWindows(unit.data.windows("val", task.lookback, task.horizon), windows)
    ones = torch.ones(len(task.variates))
    return evaluate(model_predictor(model), chosen, ones, batch_windows=batch_windows).mse
