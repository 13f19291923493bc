"""Solves the affine student on the collected objective, exactly (DistilTS, the objective of section 2.2).

    minimise  sum_t |y_t - W_t x|^2 + lambda w_t |teacher_t - W_t x|^2 + ridge
    =>  W_t = (G + ridge)^-1 (R_t + lambda w_t T_t) / (1 + lambda w_t)              x, y, teacher less m(x)

What the objective and the student leave open is chosen by rolling origins inside training and the
validation split, never by the test split: which mix of teachers where there are several
(``learning/mixing.py``), how much weight the teacher gets (none is a candidate), whether
that weight rises over the horizon, one map for all variates or more, their rank, the ridge, and whether the
teacher's states help to shape the basis of the low-rank form (FTA with phi = identity, at its weight or 0).
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.ir.forecaster import Student
from ..compiler.ir.objective import LossTerm, Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import DEFAULT_PRIOR, DEFAULT_RIDGE, Form
from ..compiler.learning.grid import Grid
from ..compiler.learning.mixing import Mixing, choose_mix, mixes_of
from ..compiler.learning.rolling_origin import Selection, Stretches, select
from ..compiler.learning.statistics import STATES, TOO_FEW, WindowStatistics, bytes_of_each

Searched = Literal["lambda", "tau", "maps", "ridge", "prior"]
UNDECIDED = f"{TOO_FEW}, and too short a validation: the teacher has its default weights, nothing was judged"
CAUTIOUS = f"{TOO_FEW}: judged by {{}} stretches of the validation split, against the default weights"
ONE_MAP = "{} variates: one map for all of them is the only form, as maps of each need sums of {:.1f} GB"
FEWEST_STRETCHES = 3
"""Stretches of validation that say anything about the spread between them."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=True)]  # infinite: the teacher alone
Rank = Annotated[int, Field(ge=1)]
Ridge = Annotated[float, Field(gt=0)]


class SolveAffine(Pass):
    """Replaces the untrained student by the solved one and empties the objective."""

    name = "solve_affine"
    reads = frozenset({"data", "statistics", "student", "objective"})
    writes = frozenset({"student", "objective", "setting"})
    cacheable = True
    summary = "solve the affine student exactly; weight of the teacher, maps, rank, ridge by rolling origins"

    class Options(PassOptions):
        """What is searched, and the values tried.

        ``search`` names what rolling origins choose; what it leaves out is taken from the objective (lambda
        and the states' weight, tau), the student (maps, rank) and ``ridge``.  An empty ``search`` is the
        paper's setting.
        ``ridge`` counts in windows: that many windows of white noise, as strong as the data, are added;
        where it is searched, so is how far the variates' statistics are pooled.
        ``prior`` counts in windows, too: that many synthetic windows with the teacher's labels, where there
        are any.  Where training is too short for rolling origins the defaults are lambda 1, the shared map,
        and ``ridge`` and ``prior`` as given; but for the form they stay unless stretches of validation
        refute them.
        """

        search: tuple[Searched, ...] = ("lambda", "tau", "maps", "ridge", "prior")
        lambdas: tuple[Weight, ...] = Field(default=Grid.distill, min_length=1)
        ranks: tuple[Rank, ...] = Field(default=Grid.ranks, min_length=1)
        ridges: tuple[Ridge, ...] = Field(default=Grid.ridges, min_length=1)
        ridge: float = Field(default=DEFAULT_RIDGE, gt=0)
        priors: tuple[Weight, ...] = Field(default=(0.0, 250.0, 1000.0, 4000.0), min_length=1)
        prior: float = Field(default=DEFAULT_PRIOR, ge=0)

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.student, Student) or not unit.objective.active():
            raise PassError("there is no student with an objective", hint="put build_student before it")
        if not unit.student.solvable:
            raise PassError(
                f"{type(unit.student).__name__} is not affine in its windows, or has options that are not",
                hint="train it with distill in the place of solve_affine",
            )
        if not isinstance(unit.statistics, WindowStatistics):
            raise PassError("there are no statistics", hint="put gather_statistics before solve_affine")
        maps = unit.student.config.get("maps", "shared")
        if unit.statistics.average and maps not in ("auto", "shared"):
            raise PassError(
                f"{len(unit.task.variates)} variates are too many for {maps} maps: the sums of each of them "
                f"take {_gigabytes(unit):.1f} GB, and only the average variate's were gathered",
                hint="leave student.maps to auto, take fewer variates or a shorter lookback, or with that "
                "much memory several times over set passes.gather_statistics.variates=each",
            )
        aimed: dict[str, str] = {}
        for _, term in unit.objective.active():
            if term.target is None:
                raise PassError(
                    f"the term {term.name} is not quadratic in an affine student",
                    hint="train with distill, or drop the pass that adds it",
                )
            if term.target not in unit.statistics.targets:
                raise PassError(f"the term {term.name} needs a {term.target}, and the statistics have none")
            if term.target in aimed:
                raise PassError(
                    f"the terms {aimed[term.target]} and {term.name} both aim at the {term.target}",
                    hint="keep one of them, or train with distill",
                )
            aimed[term.target] = term.name
        _check_rank(unit)

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and isinstance(unit.statistics, WindowStatistics)
        grid = self._grid(unit.student, unit.objective, unit.statistics)
        with one_thread(), context.progress.task("rolling origins", 1) as task:
            grid, mixing = self._mixed(unit.statistics, grid)
            selection, warnings = self._selected(unit.statistics, grid)
            task.advance(1)
        if unit.statistics.average and unit.student.config.get("maps") == "auto":
            warnings = (*warnings, ONE_MAP.format(len(unit.task.variates), _gigabytes(unit)))
        for warning in warnings:
            context.progress.line(f"    warning: {warning}")
        arrays = selection.solution.arrays()
        student = type(unit.student).from_affine(
            selection.chosen.form,
            arrays,
            **{**unit.student.config, "variates": len(unit.task.variates)},
        )
        after = unit.with_(student=student.eval(), objective=Objective(), setting=asdict(selection.chosen))
        return PassResult(after, True, _metrics(selection, warnings, mixing))

    def _mixed(self, statistics: WindowStatistics, grid: Grid) -> tuple[Grid, Mixing | None]:
        """The grid with the mix of teachers that was chosen, where there are several to choose from.

        Where training is too short for rolling origins the mix is not searched: equal parts.
        """
        if len(grid.mixes) < 2 or not any(grid.distill):
            return replace(grid, mixes=grid.mixes[:1]), None
        if statistics.alone == TOO_FEW:
            equal = max(grid.mixes, key=lambda mix: (len(mix), -max(weight for _, weight in mix)))
            return replace(grid, mixes=(equal,)), None
        mixing = choose_mix(statistics, grid)
        return replace(grid, mixes=(mixing.chosen,)), mixing

    def _selected(self, statistics: WindowStatistics, grid: Grid) -> tuple[Selection, tuple[str, ...]]:
        """What was chosen, and what a user has to know about how."""
        if not (grid.mixes and statistics.alone == TOO_FEW):
            selection = select(statistics, grid, alone=statistics.alone)
            return selection, selection.warnings
        # One short validation period misleads about a teacher; what is stated has to be refuted.
        default = self._default(grid, statistics)
        stretches = statistics.stretches()
        words = CAUTIOUS.format(len(stretches))
        if len(stretches) < FEWEST_STRETCHES:
            stretches, grid, words = stretches[-1:], default, UNDECIDED
        task = statistics.all().cross["truth"].shape
        (setting,) = default.settings(task[1], task[2], task[0])
        # Few windows are no ground to choose between forms on: their weights alone are searched.
        wider = replace(
            grid,
            forms=default.forms,
            ranks=default.ranks,
            poolings=default.poolings,
            ridges=tuple(dict.fromkeys((*grid.ridges, setting.ridge))),
            priors=tuple(dict.fromkeys((*grid.priors, setting.prior))),
        )
        selection = select(Stretches(stretches), wider, default=setting)
        others = (line for line in selection.warnings if not line.startswith(TOO_FEW))
        return selection, (*others, words)

    def _default(self, grid: Grid, statistics: WindowStatistics) -> Grid:
        """The one candidate that is taken where nothing can be judged."""
        return replace(
            grid,
            forms=grid.forms[:1],
            ranks=grid.ranks[:1],
            ridges=(self.options.ridge,),
            poolings=(0.0,),
            distill=(1.0,) if 1.0 in grid.distill else grid.distill[:1],
            taus=grid.taus[:1],
            priors=(0.0,) if statistics.prior is None else (self.options.prior,),
            aligns=grid.aligns[-1:],
        )

    def _grid(self, student: Student, objective: Objective, statistics: WindowStatistics) -> Grid:
        search, options = self.options.search, self.options
        teacher = _term(objective, "teacher")
        weight, truth = _weight(objective, "teacher"), _weight(objective, "truth")
        fixed = math.inf if truth == 0 else weight / truth
        taus: tuple[float, ...] = () if teacher is None else (teacher.tau,)
        if teacher is not None and "tau" in search:
            taus = tuple(dict.fromkeys((0.0, teacher.tau)))
        searched = "maps" in search and not statistics.average
        forms, ranks = _forms(student, options.ranks, searched=searched)
        align = _weight(objective, STATES) / (truth or 1.0)
        priors = options.priors if "prior" in search else (options.prior,)
        return replace(
            Grid(),
            forms=forms,
            ranks=ranks,
            ridges=options.ridges if "ridge" in search else (options.ridge,),
            poolings=Grid.poolings if "ridge" in search else (0.0,),
            distill=options.lambdas if "lambda" in search else (fixed,),
            taus=taus,
            mixes=() if teacher is None else mixes_of(statistics.teachers),
            priors=(0.0,) if statistics.prior is None else priors,
            aligns=tuple(dict.fromkeys((0.0, align))) if "lambda" in search else (align,),
        )


def _forms(
    student: Student, ranks: tuple[int, ...], *, searched: bool
) -> tuple[tuple[Form, ...], tuple[int, ...]]:
    """The forms and ranks that are candidates: those that the student leaves open."""
    maps = student.config.get("maps", "shared")
    if maps != "auto":
        return (maps,), (int(student.config.get("rank", 0)),)
    return (Grid().forms, ranks) if searched else (("shared",), ranks)


def _gigabytes(unit: CompileUnit) -> float:
    task = unit.task
    return bytes_of_each(len(task.variates), task.lookback, task.horizon) / 1e9


def _check_rank(unit: CompileUnit) -> None:
    config = {} if unit.student is None else unit.student.config
    rank, task = config.get("rank"), unit.task
    most = min(task.lookback - 1, task.horizon * len(task.variates))
    if config.get("maps") == "low-rank" and rank is not None and rank > most:
        raise PassError(
            f"no map of {task.lookback} steps of {len(task.variates)} variates to {task.horizon} has "
            f"rank {rank}, it has at most {most}",
            hint="set a smaller student.rank",
        )


def _weight(objective: Objective, target: str) -> float:
    return next((weight for weight, term in objective.active() if term.target == target), 0.0)


def _term(objective: Objective, target: str) -> LossTerm | None:
    return next((term for _, term in objective.active() if term.target == target), None)


def _metrics(selection: Selection, warnings: tuple[str, ...], mixing: Mixing | None) -> dict[str, Any]:
    chosen = selection.chosen
    return {
        **({} if mixing is None else {"mixes": mixing.table}),
        "maps": chosen.form,
        "rank": chosen.rank,
        "pooling": chosen.pooling,
        "lambda": chosen.distill if math.isfinite(chosen.distill) else "inf",
        "tau": chosen.tau,
        "ridge": chosen.ridge,
        "teachers": dict(chosen.teachers),
        "prior": chosen.prior,
        "align": chosen.align,
        "candidates": len(selection.table),
        "near_best": sum(row["near_best"] for row in selection.table),
        "validation_mse": selection.validation_mse,
        "warnings": list(warnings),
        "selection": selection.table,
    }
