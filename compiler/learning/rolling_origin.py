"""Choosing an affine student's setting by rolling origins, never by the test split.

Training is cut into blocks of time; every candidate is fitted on the windows before a block and judged on
the block, and once more on the validation split.  A single validation period misleads: one odd season can
prefer what every other period refutes.  The judgement is the mean over blocks of the logarithm of a
candidate's MSE over that of the plain candidate (one shared map, no teacher), so that a block with a large
error counts as much as any other, less the largest and the smallest, so that no single block decides.

A teacher has to earn its weight: of what it seems to gain over the best candidate without it, a part of
the standard error does not count (``CAUTION``).  The search is over hundreds of weights, of which some gain
by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .affine import AffineSolution, Setting, singular_note, solve, squared_error
from .grid import PLAIN, Grid
from .judging import judge
from .statistics import TOO_FEW, Fold, Sums

TIE = 0.002
"""A candidate this close to the best, and closer than a standard error of the gap, is as good."""

CAUTION = 0.25
"""Standard errors of its gain, block by block, that a candidate with a teacher is charged."""

DEPARTURE = 1.0
"""Standard errors of its gain by which a candidate has to be better than a stated default."""

TRIMMED_FROM = 5
"""Folds from which on the most extreme two are left out of a mean."""


Candidate = TypeVar("Candidate")


class Folds(Protocol):
    """Where the sums come from; the last fold is validation, fitted on all of training."""

    def folds(self) -> Iterator[Fold]:
        """In the order of time."""


@dataclass(frozen=True)
class Stretches:
    """Stretches of validation in the place of blocks, each fitted on all of training."""

    found: Sequence[Fold]

    def folds(self) -> Iterator[Fold]:
        """In the order of time."""
        return iter(self.found)


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen.

    Attributes:
        chosen: the setting.
        solution: fitted on all of training with it.
        validation_mse: of the solution, on scaled data.
        table: a row for each candidate: its setting, mean log ratio, standard error, MSE per fold, and
            whether it is as good as the best.
        warnings: lines for the user.
    """

    chosen: Setting
    solution: AffineSolution
    validation_mse: float
    table: list[dict[str, Any]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """Every candidate's errors.

    Attributes:
        names: of the folds.
        errors: MSE of each candidate, fold by fold.
        ratios: ``log_ratios`` of them to the plain candidate.
        last: the fold that was fitted on all of training.
        unseen: the validation split, or its stretches.
    """

    names: list[str]
    errors: dict[Setting, list[float]]
    ratios: dict[Setting, Tensor]
    last: Fold
    unseen: list[Sums]


def judged_folds(source: Folds, grid: Grid) -> Judged:
    """All candidates of a grid on all folds."""
    names: list[str] = []
    errors: dict[Setting, list[float]] = {}
    last: Fold | None = None
    unseen: list[Sums] = []
    for fold in source.folds():
        names.append(fold.name)
        if fold.name.startswith("validation"):
            unseen.append(fold.judged)
        for setting, error in judge(fold, grid).items():
            errors.setdefault(setting, []).append(error)
        last = fold
    if last is None:
        raise ValueError("a source without folds")
    return Judged(names, errors, log_ratios(errors, errors[PLAIN]), last, unseen)


def select(source: Folds, grid: Grid, *, alone: str = TOO_FEW, default: Setting | None = None) -> Selection:
    """Judges all candidates fold by fold, chooses the smallest of the best and fits it on all of training.

    Args:
        alone: why there is no fold but validation, for the warning where that is so.
        default: a candidate that stays unless another is better by ``DEPARTURE`` standard errors.
    """
    found = judged_folds(source, grid)
    names, errors, ratios, last, unseen = found.names, found.errors, found.ratios, found.last, found.unseen
    final = last.fit
    note = singular_note(final)
    warnings = [note] if note else []
    if len(names) == 1:
        warnings.append(f"{alone}: chosen by the validation split alone")
    variates, lookback, horizon = final.cross["truth"].shape

    def size(setting: Setting) -> tuple[int, int]:
        return setting.macs(lookback, horizon), setting.parameters(variates, lookback, horizon)

    # What all are compared with need not be among what was asked for.
    asked = {setting: ratios[setting] for setting in grid.settings(lookback, horizon, variates)}
    scores = judgements(asked, default)
    close = near_best(asked, scores)
    chosen = min(close, key=lambda setting: (*size(setting), scores[setting]))
    solution = solve(final, chosen, last.prior)
    table = [
        {
            **_row(setting),
            "parameters": size(setting)[1],
            "macs": size(setting)[0],
            "log_ratio": middle(values),
            "standard_error": standard_error(values),
            **({"judgement": scores[setting]} if setting in scores else {}),
            "mse": {name: float(f"{error:.6g}") for name, error in zip(names, errors[setting], strict=True)},
            "near_best": setting in close,
            "chosen": setting == chosen,
        }
        for setting, values in ratios.items()
    ]
    errors_of = [(squared_error(judged, solution), judged.count) for judged in unseen or [last.judged]]
    validation = sum(error * count for error, count in errors_of) / sum(count for _, count in errors_of)
    return Selection(chosen, solution, validation, table, tuple(warnings))


def _row(setting: Setting) -> dict[str, Any]:
    return {
        "form": setting.form,
        "rank": setting.rank,
        "pooling": setting.pooling,
        "ridge": setting.ridge,
        "lambda": setting.distill if math.isfinite(setting.distill) else "inf",
        "tau": setting.tau,
        "teachers": dict(setting.teachers),
        "prior": setting.prior,
        "align": setting.align,
    }


def log_ratios(errors: Mapping[Setting, list[float]], plain: list[float]) -> dict[Setting, Tensor]:
    """Logarithm of each candidate's MSE over the plain one's, fold by fold."""
    return {
        setting: torch.tensor(
            [math.log((mine + 1e-12) / (base + 1e-12)) for mine, base in zip(found, plain, strict=True)],
            dtype=torch.float64,
        )
        for setting, found in errors.items()
    }


def middle(values: Tensor) -> float:
    """Mean over the folds without the largest and the smallest, where there are five or more."""
    kept = values.sort().values[1:-1] if len(values) >= TRIMMED_FROM else values
    return float(kept.mean())


def standard_error(values: Tensor) -> float:
    """Of the mean of paired differences, 0 for a single one."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0


def judgements(ratios: Mapping[Setting, Tensor], default: Setting | None = None) -> dict[Setting, float]:
    """The mean of each candidate, and what is charged for a teacher; the lowest is the best.

    Where there is a default, what departs from it is charged instead, ``DEPARTURE`` standard errors of its
    gain.
    """
    means = {setting: middle(values) for setting, values in ratios.items()}
    if default is not None:
        return {
            setting: means[setting] + DEPARTURE * standard_error(values - ratios[default])
            for setting, values in ratios.items()
        }
    alone = [setting for setting in ratios if not setting.taught]
    if not alone:
        return means
    rival = ratios[min(alone, key=means.__getitem__)]
    return {
        setting: means[setting] + (CAUTION * standard_error(values - rival) if setting.taught else 0.0)
        for setting, values in ratios.items()
    }


def near_best(ratios: Mapping[Candidate, Tensor], scores: Mapping[Candidate, float]) -> set[Candidate]:
    """The best candidate, and those that tie with it.

    A tie is a gap of at most ``TIE`` that is no larger than the standard error of the paired differences.
    The standard error alone is too kind a rule: with one odd block among seven it ties whatever is noisy.
    """
    best = min(scores, key=scores.__getitem__)
    return {
        setting
        for setting, values in ratios.items()
        if scores[setting] - scores[best] <= min(TIE, standard_error(values - ratios[best]))
    }
