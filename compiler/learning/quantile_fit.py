"""Fitting a quantile head: where the quantiles lie, in units of the window's spread.

    o[d, h, q]    the empirical quantile of (y - yhat) / s(x) over all windows seen, averaged over
                  neighbouring steps ahead

An average of quantiles ascends where each of them does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ir.quantiles import Spread
from .residuals import Stretch

Levels = Sequence[float]
SMALLEST_SPREAD = 1e-4
"""Of a spread that a residual is divided by, of the mean spread of its variate."""
NEIGHBOURS = 1.25
"""Steps ahead from ``h / 1.25`` to ``1.25 h`` lend each other their quantiles."""


def fit_offsets(kind: Spread, seen: Sequence[Stretch], levels: Levels) -> Tensor:
    """``o [D, H, Q]``, float64: quantiles of the residuals in units of the spread."""
    scaled = [in_units(each.residuals, each.spreads[kind]) for each in seen]
    asked = torch.tensor(levels, dtype=torch.float32)
    variates = scaled[0].shape[1]
    found = [torch.quantile(torch.cat([s[:, d] for s in scaled]), asked, dim=0).T for d in range(variates)]
    return neighbours_averaged(torch.stack(found).double())


def taught_quantiles(kind: Spread, seen: Sequence[Stretch]) -> Tensor | None:
    """``[D, H, Q]``, float64: the teacher's offsets in units of the spread, their mean over windows seen."""
    parts = [
        in_units(each.taught.flatten(2), each.spreads[kind][each.taught_at]).reshape(each.taught.shape)
        for each in seen
        if each.taught is not None and each.taught_at is not None
    ]
    return neighbours_averaged(torch.cat(parts).double().mean(0)) if parts else None


def in_units(values: Tensor, spread: Tensor) -> Tensor:
    """``values [N, D, X]`` over ``spread [N, D]``; of a window without any, over next to nothing."""
    floor = (SMALLEST_SPREAD * spread.mean(0)).clamp_min(1e-12)
    return values / torch.maximum(spread, floor)[..., None]


def neighbours_averaged(offsets: Tensor) -> Tensor:
    """``[D, H, Q]``, each step the mean over its neighbours: the first steps alone, late ones over many."""
    horizon = offsets.shape[1]
    sums = torch.cat([torch.zeros_like(offsets[:, :1]), offsets.cumsum(1)], dim=1)
    steps = torch.arange(horizon)
    first = (steps / NEIGHBOURS).floor().long()
    last = ((steps + 1) * NEIGHBOURS).floor().long().clamp_max(horizon)
    return (sums[:, last] - sums[:, first]) / (last - first)[None, :, None]


def pinball(stretch: Stretch, kind: Spread, offsets: Tensor, levels: Levels) -> float:
    """Mean over windows, variates, steps and levels of twice the pinball loss."""
    total = 0.0
    for place, level in enumerate(levels):
        error = stretch.residuals - stretch.spreads[kind][..., None] * offsets[..., place].float()
        total += 2 * float(torch.maximum(level * error, (level - 1) * error).mean(dtype=torch.float64))
    return total / len(levels)


def coverage(stretch: Stretch, kind: Spread, offsets: Tensor) -> float:
    """Share of truths between the lowest and the highest quantile."""
    width = stretch.spreads[kind][..., None]
    low, high = width * offsets[..., 0].float(), width * offsets[..., -1].float()
    inside = (stretch.residuals >= low) & (stretch.residuals <= high)
    return float(inside.double().mean())
