"""Folds what is affine, exactly, by algebra.

DLinear, M the moving-average matrix [L, L] with replicated edges:

    1.  W  = W_t M + W_s (I - M)                  plain;    C A M + C B (I - M)   factored
    2.  instance normalisation, y = std * W ((x - mean 1)/std) + mean 1:  std cancels, and
            W' = W + (1 - W 1) 1^T / L
    3.  last-value normalisation, y = W (x - x_L 1) + b + x_L 1:
            W' = W + (1 - W 1) e_L^T

    so that y = W' x + b': one matrix [H, L] and one bias.  Under instance normalisation DLinear has no
    bias, since it would be multiplied by std.  std is cancelled before any rounding, so a constant
    window (std = sqrt(epsilon)) obeys the same identity.

iTransformer: q, k, v become one matrix with the softmax scale inside q; the last norm's gain g and
offset c go into the head, W (g * n + c) + b = (W diag(g)) n + (W c + b).  The centring of the window is
not folded into the embedding: at large offsets it would cancel digits that the subtraction keeps.

All products are taken in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Forecaster
from ..compiler.ir.passes import Pass, PassContext, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.students.affine import AffineMap
from ..compiler.students.dlinear import DLinear
from ..compiler.students.itransformer import FoldedITransformer, ITransformer


@torch.no_grad()
def fold_dlinear(student: DLinear) -> AffineMap:
    """The one affine map that a DLinear is."""
    lookback = student.lookback
    identity = torch.eye(lookback, dtype=torch.float64)
    # Columns of M: the moving average of unit windows.  Exact: the split is linear.
    trend_of, _ = _split64(student, identity)
    weight = _weight(student.trend) @ trend_of + _weight(student.season) @ (identity - trend_of)
    bias = _bias(student.trend) + _bias(student.season)
    if student.head is not None:
        bias = _weight(student.head) @ bias + _bias(student.head)
        weight = _weight(student.head) @ weight
    rest = 1 - weight.sum(dim=1)
    if student.normalisation == "instance":
        weight = weight + rest[:, None] / lookback
    elif student.normalisation == "last":
        weight[:, -1] += rest
    folded = AffineMap(lookback, student.horizon, bias=student.trend.bias is not None)
    folded.matrix.copy_(weight.T)
    if folded.bias is not None:
        folded.bias.copy_(bias)
    return folded


@torch.no_grad()
def fold_itransformer(student: ITransformer) -> FoldedITransformer:
    """The same encoder with fewer operators."""
    fields = {key: value for key, value in student.config.items() if key not in ("kind", "dropout")}
    folded = FoldedITransformer(**fields)
    folded.embedding.load_state_dict(student.embedding.state_dict())
    for new, old in zip(folded.encoder, student.encoder, strict=True):
        scale = 1 / math.sqrt(student.embedding_dim // old.heads)  # type: ignore[operator]
        new.qkv.weight.copy_(  # type: ignore[union-attr, operator]
            torch.cat([_weight(old.query) * scale, _weight(old.key), _weight(old.value)])  # type: ignore[arg-type]
        )
        new.qkv.bias.copy_(torch.cat([_bias(old.query) * scale, _bias(old.key), _bias(old.value)]))  # type: ignore[union-attr, operator, arg-type]
        for name in ("out", "norm1", "up", "down", "norm2"):
            getattr(new, name).load_state_dict(getattr(old, name).state_dict())
    gain, offset = student.norm.weight.double(), student.norm.bias.double()
    folded.head.weight.copy_(_weight(student.head) * gain)
    folded.head.bias.copy_(_weight(student.head) @ offset + _bias(student.head))
    return folded


FOLDS: dict[type, Callable[[Any], Forecaster]] = {DLinear: fold_dlinear, ITransformer: fold_itransformer}


class FoldAffine(Pass):
    """Replaces the trained student by its folded form."""

    name = "fold_affine"
    reads = frozenset({"student"})
    writes = frozenset({"student"})
    summary = "fold the student's affine parts: DLinear to one matrix, iTransformer's q/k/v and last norm"
    preserves_function = True

    def requires(self, unit: CompileUnit) -> None:
        if unit.student is not None and unit.objective.active():
            raise PassError("the student is not trained yet", hint="put distill before fold_affine")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        fold = FOLDS.get(type(unit.student))
        if fold is None or unit.student is None:
            return PassResult(unit, False, {"folded": "nothing"})
        folded: Forecaster = fold(unit.student).eval()
        before = sum(p.numel() for p in unit.student.parameters())
        after = sum(p.numel() for p in folded.parameters())
        return PassResult(
            unit.with_(student=folded), True, {"parameters_before": before, "parameters": after}
        )


def _weight(linear: nn.Linear) -> Tensor:
    return linear.weight.double()


def _bias(linear: nn.Linear) -> Tensor:
    if linear.bias is None:
        return torch.zeros(linear.out_features, dtype=torch.float64)
    return linear.bias.double()


def _split64(student: DLinear, windows: Tensor) -> tuple[Tensor, Tensor]:
    """``split`` of the rows of ``windows [N, L]`` as columns: ``[L, N]`` each."""
    trend, season = student.split(windows.unsqueeze(0))
    return trend[0].T, season[0].T
