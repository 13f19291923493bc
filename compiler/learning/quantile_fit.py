"""Fitting a quantile head: how wide a window's spread is, and where the quantiles lie in units of it.

    s(x)^2 = c + sum_k a_k v_k(x)     a_k, c >= 0: least squares of the residuals' squares on the features,
                                      relative to the fit itself, one fit a variate
    o[d, h, q]                        the empirical quantile of (y - yhat) / s(x) over all windows seen,
                                      averaged over neighbouring steps ahead

Least squares relative to its own fit is the iteratively reweighted fit of a gamma regression with identity
link; with few features its minimum over non-negative weights is found by trying every subset.  An average of
quantiles ascends where each of them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from ..ir.quantiles import QuantileHead, SpreadFeatures
from .residuals import Stretch

Levels = Sequence[float]
ROUNDS = 4
"""Of reweighting."""
LEAST_FIT = 1e-3
"""Of a fitted variance, of its mean: a window without any spread does not decide alone."""
SMALLEST_SPREAD = 1e-4
"""Of a spread that a residual is divided by, of the mean spread of its variate."""
NEIGHBOURS = 1.25
"""Steps ahead from ``h / 1.25`` to ``1.25 h`` lend each other their quantiles."""


@dataclass(frozen=True)
class SpreadKind:
    """A candidate for what the spread is made of.

    Attributes:
        name: in words of the manifest.
        features: of the head.
        places: of the features among those that were gathered.
    """

    name: str
    features: SpreadFeatures
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Spread:
    """A kind with its numbers: ``weights [K, D]`` of its parts, the constant last, float64."""

    kind: SpreadKind
    weights: Tensor

    def of(self, stretch: Stretch) -> Tensor:
        """``s [N, D]``, float32, of every window of a stretch."""
        return (self.weights[:, None] * _parts(self.kind, stretch)).sum(0).sqrt().float()


def spread_kinds(gathered: SpreadFeatures) -> tuple[SpreadKind, ...]:
    """The candidates, the simplest first; ``gathered`` has the variance and the lags of differences."""
    season = len(gathered.lags)  # the last one of the gathered
    lags = tuple(range(1, 1 + len(gathered.lags)))
    return (
        SpreadKind("constant", SpreadFeatures(False, (), True), ()),
        SpreadKind("deviation", SpreadFeatures(True, (), False), (0,)),
        SpreadKind("differences", SpreadFeatures(False, gathered.lags[-1:], False), (season,)),
        SpreadKind("deviation + constant", SpreadFeatures(True, (), True), (0,)),
        SpreadKind("all", SpreadFeatures(True, gathered.lags, True), (0, *lags)),
    )


def fit_spread(kind: SpreadKind, seen: Sequence[Stretch]) -> Spread:
    """The spread of a kind, fitted to what was seen."""
    variates = seen[0].squares.shape[2]
    if kind.features.parts == 1:
        return Spread(kind, torch.ones(1, variates, dtype=torch.float64))
    target = torch.cat([each.residuals.double().square().mean(-1) for each in seen])
    parts = torch.cat([_parts(kind, each) for each in seen], dim=1)
    solved = [_relative_fit(parts[..., variate], target[:, variate]) for variate in range(variates)]
    return Spread(kind, torch.stack(solved, dim=1))


def _parts(kind: SpreadKind, stretch: Stretch) -> Tensor:
    """``[K, N, D]``: the features of a kind, and ones for its constant."""
    found = stretch.squares[list(kind.places)]
    return torch.cat([found, torch.ones_like(stretch.squares[:1])]) if kind.features.constant else found


def _relative_fit(parts: Tensor, target: Tensor) -> Tensor:
    """Non-negative ``a [K]`` with ``a' parts [N]`` near to ``target [N]``, in units of itself."""
    scale = parts.mean(1).clamp_min(1e-30)
    rows, level = (parts / scale[:, None]).T, float(target.mean())
    if level <= 0:
        return torch.zeros_like(scale)
    fit, found = torch.ones_like(target), scale.new_zeros(len(scale))
    for _ in range(ROUNDS):
        found = _non_negative(rows / fit[:, None], target / level / fit)
        fit = (rows @ found).clamp_min(LEAST_FIT)
    return level * found / scale


def _non_negative(rows: Tensor, target: Tensor) -> Tensor:
    """The non-negative least squares solution ``[K]`` of ``rows [N, K] a = target``, by every subset."""
    gram, product = rows.T @ rows, rows.T @ target
    count = len(gram)
    best, lowest = gram.new_zeros(count), 0.0
    for size in range(1, count + 1):
        for subset in combinations(range(count), size):
            at = list(subset)
            small = gram[at][:, at]
            small = small + 1e-9 * small.diagonal().mean() * torch.eye(size, dtype=small.dtype)
            solved = torch.linalg.solve(small, product[at])
            loss = float(-(solved * product[at]).sum())
            if bool((solved >= 0).all()) and loss < lowest - 1e-12:
                best, lowest = gram.new_zeros(count), loss
                best[at] = solved
    return best


def fit_offsets(spread: Spread, seen: Sequence[Stretch], levels: Levels) -> Tensor:
    """``o [D, H, Q]``, float64: quantiles of the residuals in units of the spread."""
    scaled = [in_units(each.residuals, spread.of(each)) for each in seen]
    asked = torch.tensor(levels, dtype=torch.float32)
    variates = scaled[0].shape[1]
    found = [torch.quantile(torch.cat([s[:, d] for s in scaled]), asked, dim=0).T for d in range(variates)]
    return neighbours_averaged(torch.stack(found).double())


def taught_quantiles(spread: Spread, seen: Sequence[Stretch]) -> Tensor | None:
    """``[D, H, Q]``, float64: the teacher's offsets in units of the spread, their mean over windows seen."""
    parts = [
        in_units(each.taught.flatten(2), spread.of(each)[each.taught_at]).reshape(each.taught.shape)
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
    last = ((steps + 1) * NEIGHBOURS).ceil().long().clamp_max(horizon)
    return (sums[:, last] - sums[:, first]) / (last - first)[None, :, None]


def pinball(stretch: Stretch, spread: Spread, offsets: Tensor, levels: Levels) -> float:
    """Mean over windows, variates, steps and levels of twice the pinball loss."""
    error = stretch.residuals[..., None] - spread.of(stretch)[..., None, None] * offsets.float()
    asked = torch.tensor(levels, dtype=torch.float32)
    return 2 * float(torch.maximum(asked * error, (asked - 1) * error).mean(dtype=torch.float64))


def coverage(stretch: Stretch, spread: Spread, offsets: Tensor) -> float:
    """Share of truths between the lowest and the highest quantile."""
    width = spread.of(stretch)[..., None]
    low, high = width * offsets[..., 0].float(), width * offsets[..., -1].float()
    inside = (stretch.residuals >= low) & (stretch.residuals <= high)
    return float(inside.double().mean())


def head_of(spread: Spread, offsets: Tensor, levels: Levels) -> QuantileHead:
    """The head with these numbers."""
    variates, horizon, _ = offsets.shape
    head = QuantileHead(variates, horizon, levels, spread.kind.features)
    return head.filled(spread.weights, offsets)
