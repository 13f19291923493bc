"""Which mix of several teachers a student learns from, chosen like everything else by rolling origins.

    teacher_t = sum_k a_k teacher_t^k,    a_k > 0,  sum_k a_k = 1

Candidates are each teacher alone, all of them in equal parts, and for two also 1/4 to 3/4 either way.  Equal
parts are the forecast that a combination of searched weights seldom beats (the forecast combination puzzle;
Stock and Watson, "Combination forecasts of output growth"), so a fine grid of weights would add candidates
that win by chance and little else; a quarter is what a poor teacher that errs elsewhere may still be worth.

The mix is chosen with one shared map, over all weights of the teacher: which teacher is right on these data
hardly depends on the form of the student, and the search over forms and ranks then costs what it costs for
one teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .affine import Setting
from .grid import Grid, Mix
from .rolling_origin import TIE, Folds, judged_folds, judgements, middle, standard_error


def mixes_of(names: Sequence[str]) -> tuple[Mix, ...]:
    """The mixes that are tried: each teacher alone first, in their order."""
    alone = [((name, 1.0),) for name in names]
    if len(names) < 2:
        return tuple(alone)
    equal = tuple((name, 1 / len(names)) for name in names)
    if len(names) > 2:
        return (*alone, equal)
    one, other = names
    return (*alone, equal, ((one, 0.75), (other, 0.25)), ((one, 0.25), (other, 0.75)))


@dataclass(frozen=True)
class Mixing:
    """What was chosen, and a row for each mix: its best setting and its mean log ratio to the plain map."""

    chosen: Mix
    table: list[dict[str, Any]]


def choose_mix(source: Folds, grid: Grid) -> Mixing:
    """The mix that shared maps are best with; of those that tie, the one of fewest teachers, first named."""
    shared = replace(grid, forms=("shared",), ranks=(), poolings=(0.0,), aligns=(0.0,))
    ratios = judged_folds(source, shared).ratios
    scores = judgements(ratios)
    best: dict[Mix, Setting] = {}
    for setting in ratios:
        known = best.get(setting.teachers)
        if setting.teachers and (known is None or scores[setting] < scores[known]):
            best[setting.teachers] = setting
    leader = min(best.values(), key=scores.__getitem__)

    def ties(setting: Setting) -> bool:
        gap = scores[setting] - scores[leader]
        return gap <= min(TIE, standard_error(ratios[setting] - ratios[leader]))

    order = list(grid.mixes)
    close = [mix for mix, setting in best.items() if ties(setting)]
    chosen = min(close, key=lambda mix: (len(mix), order.index(mix)))
    rows = [
        {
            "teachers": dict(mix),
            "lambda": "inf" if best[mix].distill == float("inf") else best[mix].distill,
            "tau": best[mix].tau,
            "log_ratio": middle(ratios[best[mix]]),
            "standard_error": standard_error(ratios[best[mix]]),
            "chosen": mix == chosen,
        }
        for mix in order
    ]
    return Mixing(chosen, rows)
