"""Further linear inputs of an exact student: partialled out of its sums, put back into its forecast.

The student with inputs ``e`` beside the window is

    y - m = W (x - m) + B e                        W of any form, B [E, H] of each variate, dense

Minimising over B first leaves the problem that is solved without inputs, on what the inputs do not explain
(Frisch and Waugh, "Partial Time Regressions as Compared with Individual Trends"), ridge included:

    P = (S_ee + rho)^-1 S_ex        Q = (S_ee + rho)^-1 S_ey
    G' = G - S_xe P                 R' = R - S_xe Q             then B = Q - P W'

So every form, weight of the teacher, pooling and judgement works unchanged on ``G'`` and ``R'``.  A judged
block is seen through the fit's P and Q: ``x - P' e`` and ``y - Q' e``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..data.inputs import InputRows
from .affine import AffineSolution, Setting, blend, mixed_teacher, ridge_of, solve, squared_error
from .pieces import Labels, scaled_rows
from .rolling_origin import CAUTION, TIE, middle, standard_error
from .statistics import STATES, Fold, Sums, WindowStatistics, in_window_coordinates

CHUNK_WINDOWS = 1024
RIDGE_FACTORS = (1.0, 10.0, 100.0)
"""Ridges of the inputs' effect that are tried, over that of the student."""

Candidate = tuple[tuple[str, ...], float]
"""Names of groups, and the ridge of their effect."""


@dataclass(frozen=True)
class InputSums:
    """What sums over windows need besides, for inputs that all variates share.

    Attributes:
        own: ``[E, E]`` sum of ``e e^T``.
        window: ``[D, E, L]`` sum of ``e (x - m)^T``.
        target: name -> ``[D, E, H]`` sum of ``e (target - m)^T``.
    """

    own: Tensor
    window: Tensor
    target: dict[str, Tensor]

    def __add__(self, other: InputSums) -> InputSums:
        return InputSums(
            self.own + other.own,
            self.window + other.window,
            {name: value + other.target[name] for name, value in self.target.items()},
        )

    def only(self, columns: Tensor) -> InputSums:
        """With some of the inputs, ``columns`` their places."""
        return InputSums(
            self.own[columns][:, columns],
            self.window[:, columns],
            {name: value[:, columns] for name, value in self.target.items()},
        )


@dataclass(frozen=True)
class Projection:
    """What inputs explain of windows and targets, as fitted: ``P [D, E, L]`` and name -> ``Q [D, E, H]``."""

    window: Tensor
    target: dict[str, Tensor]

    @classmethod
    def of(cls, sums: InputSums, count: int, ridge: float) -> Projection:
        """Least squares with ``ridge`` windows of noise, as the student's ridge counts."""
        regular = sums.own.clone()
        regular.diagonal().add_(ridge_of(sums.own, ridge / max(count, 1)))
        lower = torch.linalg.cholesky(regular)

        def fitted(products: Tensor) -> Tensor:
            solved: Tensor = torch.cholesky_solve(products, lower)
            return solved

        return cls(fitted(sums.window), {name: fitted(value) for name, value in sums.target.items()})

    def remainder(self, sums: Sums, inputs: InputSums) -> Sums:
        """Sums of what is left of windows and targets, ``x - P' e`` and ``y - Q' e``, over any block."""
        gram = sums.gram - _twice(self.window.mT @ inputs.window) + self.window.mT @ inputs.own @ self.window
        cross, square = {}, {}
        for name, value in sums.cross.items():
            mine, seen = self.target[name], inputs.target[name]
            taken = self.window.mT @ seen + inputs.window.mT @ mine - self.window.mT @ inputs.own @ mine
            cross[name] = value - taken
            square[name] = sums.square[name] - 2 * (mine * seen).sum(1) + (mine * (inputs.own @ mine)).sum(1)
        return Sums(sums.count, gram, cross, square)

    def reduced(self, sums: Sums, inputs: InputSums) -> Sums:
        """Sums with the minimiser of student and inputs together: the Schur complement with its ridge."""
        gram = sums.gram - inputs.window.mT @ self.window
        cross = {name: value - inputs.window.mT @ self.target[name] for name, value in sums.cross.items()}
        return Sums(sums.count, (gram + gram.mT) / 2, cross, sums.square)

    def effect(self, solution: AffineSolution, setting: Setting) -> Tensor:
        """``B [D, E, H]`` that goes with a solved student."""
        horizon = self.target["truth"].shape[2]
        aimed = self.target["truth"]
        if setting.distill and setting.teachers:
            truth, teacher = blend(setting, horizon)
            aimed = aimed * truth + mixed_teacher(self.target, setting.teachers) * teacher
        return aimed - self.window @ solution.maps().mT


def _twice(matrix: Tensor) -> Tensor:
    """``A + A'``."""
    return matrix + matrix.mT


def centred_windows(
    data: Dataset,
    lookback: int,
    horizon: int,
    begin: int,
    end: int,
    labels: Sequence[tuple[str, Labels]] = (),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Windows that start at rows ``begin .. end - 1``, ``[D, n, L]`` less their mean, and their targets
    ``[D, n, H]`` less it by name, float64."""
    series = scaled_rows(data, begin, end + lookback + horizon - 1)
    view = np.lib.stride_tricks.sliding_window_view(series, lookback + horizon, axis=0)  # [n, D, L + H]
    rows = torch.from_numpy(np.ascontiguousarray(view.transpose(1, 0, 2)))
    past = rows[..., :lookback]
    mean = past.mean(dim=-1, keepdim=True)
    targets = {"truth": rows[..., lookback:] - mean}
    for name, teacher in labels:
        label = torch.from_numpy(teacher(begin, end).astype(np.float64)).transpose(0, 1)
        targets[name] = in_window_coordinates(name, label, past, mean)
    return past - mean, targets


def input_sums(
    data: Dataset, rows: InputRows, begin: int, end: int, labels: Sequence[tuple[str, Labels]] = ()
) -> InputSums:
    """Sums over the windows that start at rows ``begin .. end - 1``, some thousand of them in memory; of the
    truth, and of the teachers in ``labels``."""
    labels = [(name, teacher) for name, teacher in labels if name != STATES]
    total: InputSums | None = None
    for start in range(begin, end, CHUNK_WINDOWS):
        starts = np.arange(start, min(start + CHUNK_WINDOWS, end))
        inputs = torch.from_numpy(rows.at(starts))
        stop = int(starts[-1]) + 1
        window, targets = centred_windows(data, rows.lookback, rows.horizon, start, stop, labels)
        found = InputSums(
            inputs.T @ inputs,
            inputs.T @ window,
            {name: inputs.T @ target for name, target in targets.items()},
        )
        total = found if total is None else total + found
    if total is None:
        raise ValueError(f"no windows in {begin}..{end}")
    return total


@dataclass(frozen=True)
class InputChoice:
    """Which inputs earned their place.

    Attributes:
        kept: names of the groups, in the order of the row.
        ridge: of their effect, in windows.
        sums: over all of training, of the groups that were kept.
        table: a row for each candidate: its groups and ridge, its mean log ratio to no inputs, its standard
            error, and whether it was chosen.
    """

    kept: tuple[str, ...]
    ridge: float
    sums: InputSums
    table: list[dict[str, Any]]


def choose_inputs(
    statistics: WindowStatistics,
    rows: InputRows,
    setting: Setting,
    factors: Sequence[float] = RIDGE_FACTORS,
) -> InputChoice:
    """Adds groups one by one, each the best of what is left, as long as rolling origins gain by it.

    The student's setting is that which was chosen without inputs.  Of a gain over the set before, a part of
    its standard error does not count, as with a teacher, and a tie adds nothing; of those that tie with the
    best the one with the fewest numbers is taken.
    """
    places = rows.slices()
    kept: Candidate = ((), setting.ridge)
    found = _Judged(statistics, rows, setting)
    plain = before = found.errors([kept])[kept]
    table = [_row(kept, before, plain)]
    while len(kept[0]) < len(places):
        tried = [
            (tuple(name for name in places if name in (*kept[0], added)), setting.ridge * factor)
            for added in places
            if added not in kept[0]
            for factor in factors
        ]
        errors = found.errors(tried)
        table += [_row(candidate, errors[candidate], plain) for candidate in tried]
        scores = {candidate: _charged(errors[candidate], before) for candidate in tried}
        best = min(scores.values())
        if best >= -TIE:
            break
        near = [candidate for candidate in tried if scores[candidate] - best <= TIE]
        kept = min(near, key=lambda each: (len(_columns(places, each[0])), scores[each]))
        before = errors[kept]
    for row in table:
        row["chosen"] = (tuple(row["inputs"]), row["ridge"]) == kept
    fitted, _ = found.sums[-1]
    return InputChoice(*kept, fitted.only(_columns(places, kept[0])), table)


class _Judged:
    """Errors of sets of inputs on every fold; the folds' own sums are gone through again each time."""

    def __init__(self, statistics: WindowStatistics, rows: InputRows, setting: Setting) -> None:
        self.statistics, self.rows, self.setting = statistics, rows, setting
        self.sums: list[tuple[InputSums, InputSums]] = []  # of each fold's fit, the last of all of training
        self.seen = 0

    def errors(self, tried: Sequence[Candidate]) -> dict[Candidate, list[float]]:
        """The MSE of each candidate, fold by fold."""
        found: dict[Candidate, list[float]] = {candidate: [] for candidate in tried}
        for index, fold in enumerate(self.statistics.folds()):
            if index == len(self.sums):
                self.sums.append(self._sums(fold))
            fitted, judged = self.sums[index]
            for chosen, ridge in tried:
                columns = _columns(self.rows.slices(), chosen)
                error = _judged(fold, fitted.only(columns), judged.only(columns), self.setting, ridge)
                found[chosen, ridge].append(error)
        return found

    def _sums(self, fold: Fold) -> tuple[InputSums, InputSums]:
        """Of the fold's fit, from that of the fold before it, and of its block."""
        data = self.statistics.data
        more = input_sums(data, self.rows, self.seen, fold.until, self.statistics.labels)
        fitted = self.sums[-1][0] + more if self.sums else more
        self.seen = fold.until
        return fitted, input_sums(data, self.rows, *fold.starts)


def _ratios(errors: Sequence[float], base: Sequence[float]) -> Tensor:
    return torch.tensor([math.log(mine / other) for mine, other in zip(errors, base, strict=True)])


def _charged(errors: Sequence[float], before: Sequence[float]) -> float:
    ratios = _ratios(errors, before)
    return middle(ratios) + CAUTION * standard_error(ratios)


def _row(candidate: Candidate, errors: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    ratios = _ratios(errors, plain)
    return {
        "inputs": list(candidate[0]),
        "ridge": candidate[1],
        "log_ratio": middle(ratios),
        "standard_error": standard_error(ratios),
    }


def solve_with_inputs(
    sums: Sums, inputs: InputSums, setting: Setting, ridge: float, prior: Sums | None = None
) -> tuple[AffineSolution, Tensor]:
    """Student and effect ``B [D, E, H]`` of its inputs, the minimiser over the windows of both sums."""
    projection = Projection.of(inputs, sums.count, ridge)
    solution = solve(projection.reduced(sums, inputs), setting, prior)
    return solution, projection.effect(solution, setting)


def _judged(fold: Fold, fitted: InputSums, judged: InputSums, setting: Setting, ridge: float) -> float:
    """MSE of the setting with these inputs on the judged block."""
    fit, block = fold.fit.without(STATES), fold.judged.without(STATES)
    if not len(fitted.own):
        return squared_error(block, solve(fit, setting, fold.prior))
    projection = Projection.of(fitted, fit.count, ridge)
    solution = solve(projection.reduced(fit, fitted), setting, fold.prior)
    truth = Projection(projection.window, {"truth": projection.target["truth"]})
    return squared_error(truth.remainder(block, judged), solution)


def _columns(places: dict[str, slice], chosen: Sequence[str]) -> Tensor:
    """Places of the chosen groups in a row."""
    return torch.cat(
        [torch.arange(places[name].start, places[name].stop) for name in chosen]
        or [torch.empty(0, dtype=torch.long)]
    )
