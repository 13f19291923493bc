"""Choosing a quantile head by rolling origins: fitted on the stretches before, judged on the next one.

The judgement is that of point forecasts: the mean over stretches of the logarithm of a candidate's pinball
loss over the plain candidate's (the same spread for every window), less the largest and the smallest.  The
simplest candidate ties with the best; a teacher's quantiles are charged a part of the standard error of their
gain, and weight 0 is a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ir.quantiles import QuantileHead, Spread
from .quantile_fit import Levels, coverage, fit_offsets, pinball, taught_quantiles
from .residuals import Stretch
from .rolling_origin import CAUTION, TIE, middle, standard_error

SEEN_FIRST = 2
"""Stretches that are fitted on before the first one is judged, where there are more."""
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of the offsets is the teacher's."""
UNJUDGED = Spread("deviation")
"""Where nothing can be judged: quantiles then move with any shift and scale of the window."""


@dataclass(frozen=True)
class Candidate:
    """A spread, and the teacher's weight in the offsets."""

    spread: Spread
    teacher: float = 0.0


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen.

    Attributes:
        head: fitted on everything that was seen.
        plain: the same of the plain candidate, what the others are compared with.
        candidate: which.
        table: a row for each candidate: mean log ratio, standard error, pinball loss and coverage of each
            stretch.
    """

    head: QuantileHead
    plain: QuantileHead
    candidate: Candidate
    table: list[dict[str, Any]]


def spreads(lookback: int, season: int) -> tuple[Spread, ...]:
    """The kinds of spread that are tried, the plain one first."""
    lags = sorted({lag for lag in (1, season) if lag < lookback})
    return (Spread("constant"), Spread("deviation"), *(Spread("differences", lag) for lag in lags))


def choose_head(stretches: Sequence[Stretch], levels: Levels) -> Chosen:
    """Judges the kinds of spread, then the teacher's weight with the best, and fits that on everything."""
    kinds = [Candidate(spread) for spread in stretches[0].spreads]
    if len(stretches) < 2:
        chosen = Candidate(UNJUDGED)
        return Chosen(*_heads(chosen, kinds[0], stretches, levels), chosen, [])
    losses = {each: _judged(each, stretches, levels) for each in kinds}
    plain = kinds[0]
    chosen = _best(losses, kinds, plain)
    if all(each.taught is not None for each in stretches[:-1]):
        blends = [Candidate(chosen.spread, weight) for weight in WEIGHTS]
        losses |= {each: _judged(each, stretches, levels) for each in blends[1:]}
        chosen = _best(losses, blends, plain)
    table = [_row(each, found, losses[plain], chosen) for each, found in losses.items()]
    return Chosen(*_heads(chosen, plain, stretches, levels), chosen, table)


def _offsets(candidate: Candidate, seen: Sequence[Stretch], levels: Levels) -> Tensor:
    offsets = fit_offsets(candidate.spread, seen, levels)
    if not candidate.teacher:
        return offsets
    taught = taught_quantiles(candidate.spread, seen)
    assert taught is not None
    return (1 - candidate.teacher) * offsets + candidate.teacher * taught


def _heads(
    chosen: Candidate, plain: Candidate, seen: Sequence[Stretch], levels: Levels
) -> tuple[QuantileHead, QuantileHead]:
    first, second = (
        QuantileHead.of(_offsets(each, seen, levels), levels, each.spread) for each in (chosen, plain)
    )
    return first, second


@dataclass(frozen=True)
class _Judged:
    names: tuple[str, ...]
    losses: tuple[float, ...]
    coverages: tuple[float, ...]


def _judged(candidate: Candidate, stretches: Sequence[Stretch], levels: Levels) -> _Judged:
    first = min(SEEN_FIRST, len(stretches) - 1)
    names, losses, coverages = [], [], []
    for place in range(first, len(stretches)):
        offsets, judged = _offsets(candidate, stretches[:place], levels), stretches[place]
        names.append(judged.name)
        losses.append(pinball(judged, candidate.spread, offsets, levels))
        coverages.append(coverage(judged, candidate.spread, offsets))
    return _Judged(tuple(names), tuple(losses), tuple(coverages))


def _ratios(found: _Judged, plain: _Judged) -> Tensor:
    pairs = zip(found.losses, plain.losses, strict=True)
    return torch.tensor([math.log((mine + 1e-12) / (other + 1e-12)) for mine, other in pairs]).double()


def _best(losses: dict[Candidate, _Judged], among: Sequence[Candidate], plain: Candidate) -> Candidate:
    """The first of ``among`` that ties with the best: a gap of at most ``TIE`` and of a standard error."""
    ratios = {each: _ratios(losses[each], losses[plain]) for each in among}
    scores = {each: middle(values) for each, values in ratios.items()}
    for each, values in ratios.items():
        if each.teacher:
            scores[each] += CAUTION * standard_error(values - ratios[among[0]])
    best = min(scores, key=scores.__getitem__)
    return next(
        each
        for each in among
        if scores[each] - scores[best] <= min(TIE, standard_error(ratios[each] - ratios[best]))
    )


def _row(candidate: Candidate, found: _Judged, plain: _Judged, chosen: Candidate) -> dict[str, Any]:
    ratios = _ratios(found, plain)
    return {
        "spread": str(candidate.spread),
        "teacher": candidate.teacher,
        "log_ratio": middle(ratios),
        "standard_error": standard_error(ratios),
        "pinball": dict(zip(found.names, (float(f"{loss:.6g}") for loss in found.losses), strict=True)),
        "coverage": dict(zip(found.names, (round(each, 4) for each in found.coverages), strict=True)),
        "chosen": candidate == chosen,
    }
