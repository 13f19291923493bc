"""Scores of coupled units by their masks (paper A).

    h = f(x * m_in) * m_out                     m = 1 for every living unit
    g[n,i] = d L_n / d m_i                      L_n: unreduced loss of sample n, its mean squared error
    s_i    = | -mean_n g[n,i] + 1/2 mean_n g[n,i]^2 |          order 2;  order 1 drops the square
    s~_i   = alpha * s_i + (1 - alpha) * s~_i                  over mini-batches

``s_i`` approximates the loss that removing unit i would cost, L(m - e_i) - L(m).  The masks are real
tensors ``[B, units]``, one row a sample, so that one backward pass of the summed per-sample losses
gives every g[n,i]: autograd sums ``h * dL_n/dh`` over tokens, with the bias inside h.  They are float32
or wider whatever the dtype of the model.

**One mask a group.**  A coupled group may have several taps: the reader's input and the writer's output.
A mask at any of them gives the same function for every real m, since all between them is linear in the
unit (``o_proj`` after attention, ``silu(gate) * up``, ``q . k``), so their derivatives are equal.  The first
tap alone is therefore used; a sum over taps would favour groups by how many taps they happen to list.
A dim of a residual stream is different: it is off when all of its writers are.  Its one mask acts at all
of them together, so that its derivative is the sum of theirs (the chain rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor

from ..compiler.ir.forecaster import Teacher
from ..compiler.ir.prunable import Group
from .surgery import mask_units

Order = Literal[1, 2]
Absolute = Literal["before_ema", "after_ema"]


def sample_losses(forecast: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every sample: ``[B, D, H]`` twice to ``[B]``."""
    return (forecast - target).square().flatten(1).mean(1)


def mask_derivatives(
    teacher: Teacher,
    past: Tensor,
    target: Tensor,
    groups: Sequence[Group],
    *,
    alive: Mapping[str, Tensor] | None = None,
    tap: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:
    """Derivatives of the per-sample losses by the masks of all units.

    Args:
        past: ``[B, D, L]``.
        target: ``[B, D, H]``.
        groups: whose units are asked for.
        alive: group -> ``[units]`` bool; dead units are masked with 0 and get a derivative of 0.
        tap: the tap of each group that is used (its last one where it has fewer; all that act together).

    Returns:
        group -> ``[B, units]``, and the losses ``[B]``.
    """
    samples = past.shape[0]
    wide = torch.promote_types(past.dtype, torch.float32)
    living = {
        group.name: torch.ones(group.units, dtype=torch.bool) if alive is None else alive[group.name]
        for group in groups
    }
    masks = {
        name: mask.to(wide).expand(samples, -1).clone().requires_grad_() for name, mask in living.items()
    }
    with ExitStack() as stack:
        stack.enter_context(teacher.sample_major())
        stack.enter_context(torch.enable_grad())
        for group in groups:
            stack.enter_context(mask_units(teacher, group, masks[group.name], min(tap, len(group.taps) - 1)))
        losses = sample_losses(teacher(past), target)
        found = torch.autograd.grad(losses.sum(), list(masks.values()), allow_unused=True)
    derivatives = {
        name: torch.zeros_like(masks[name]) if grad is None else grad.where(living[name], 0)
        for name, grad in zip(masks, found, strict=True)
    }
    return derivatives, losses.detach()


def batch_score(derivatives: Tensor, order: Order) -> Tensor:
    """``-mean_n g + 1/2 mean_n g^2``, or its first term: ``[B, units]`` to ``[units]``, signed."""
    first = -derivatives.mean(0)
    return first if order == 1 else first + 0.5 * derivatives.square().mean(0)


class Scores:
    """The moving average of the scores of all units.

    Args:
        order: of the expansion.
        absolute: ``before_ema`` averages absolute values (the paper), ``after_ema`` takes the absolute
            value of the average (the released code).
        alpha: weight of the newest mini-batch.
    """

    def __init__(self, order: Order, absolute: Absolute, alpha: float) -> None:
        self.order, self.absolute, self.alpha = order, absolute, alpha
        self.average: dict[str, Tensor] = {}

    def update(self, derivatives: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> None:
        """Takes in a mini-batch; dead units keep the average that they died with."""
        for name, samples in derivatives.items():
            score = batch_score(samples, self.order)
            score = score.abs() if self.absolute == "before_ema" else score
            before = self.average.get(name, score)
            self.average[name] = torch.where(alive[name], before.lerp(score, self.alpha), before)

    def values(self) -> dict[str, Tensor]:
        """Group -> non-negative scores ``[units]``."""
        return {name: average.abs() for name, average in self.average.items()}
