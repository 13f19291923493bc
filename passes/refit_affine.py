"""Solves the chosen affine student once more, on all rows up to the split that it is shipped after.

    sums = sum over train (+ val (+ test)) of   G, R, T        (``gather_statistics``)
    W_t  = (G + ridge)^-1 (R_t + lambda w_t T_t) / (1 + lambda w_t)        the setting that was chosen before

A forecaster in use should have learnt from the newest rows, which are those that chose and judged it.  So
the student as it was before is kept as ``judged``: what is told of its accuracy stays what was told, and the
refitted one, which has seen these rows, is never evaluated on them.

The windows are those of each split, so that windows whose future crosses from one split into the next, fewer
than a horizon, stay out.  The teacher's labels are used where they are stored.  Where a window has none, the
truth takes the teacher's share: every window then weighs alike, and the solution is the minimiser with
``teacher_t = y_t`` in these windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.data.inputs import InputRows, input_rows
from ..compiler.data.splits import Part
from ..compiler.ir.forecaster import Student
from ..compiler.ir.inputs import InputEffect
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.teacher_store import TeacherStore
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import AffineSolution, Setting, setting_of, solve
from ..compiler.learning.inputs import InputSums, input_sums, solve_with_inputs
from ..compiler.learning.statistics import STATES, Labels, Sums, WindowStatistics, series_sums
from .add_inputs import AddInputs
from .solve_affine import SolveAffine

Until = Literal["train+val", "all"]
LATER: dict[Until, tuple[Part, ...]] = {"train+val": ("val",), "all": ("val", "test")}
"""The splits after training."""
TEACHER = "teacher"
"""What the statistics call the teacher whose outputs are stored."""


class RefitAffine(Pass):
    """Replaces the solved student by one that has seen later rows; keeps the former as ``judged``."""

    name = "refit_affine"
    reads = frozenset({"data", "teacher_store", "student", "effect", "statistics", "setting"})
    writes = frozenset({"student", "effect", "judged"})
    summary = "solve the chosen setting again on later rows; what is told of accuracy stays what it was"

    class Options(PassOptions):
        """``until``: the last rows to learn from, ``refit`` of the recipe."""

        until: Until = "train+val"

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any] | None:
        return None if recipe.refit == "none" else {"until": recipe.refit}

    def requires(self, unit: CompileUnit) -> None:
        if not unit.record or unit.record[-1].name not in (SolveAffine.name, AddInputs.name):
            raise PassError(
                "there is no setting to solve again",
                hint=f"put refit_affine right after {SolveAffine.name} or {AddInputs.name}, or not at all",
            )
        if setting_of(unit.setting).align:
            raise PassError(
                "the teacher's states have shaped the student, and only those of training are recorded",
                hint="leave out align_temporal, or refit",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and isinstance(unit.statistics, WindowStatistics)
        setting, statistics = setting_of(unit.setting), unit.statistics
        with one_thread():
            sums = statistics.all().without(STATES)
            inputs = None
            if (rows := rows_of(unit)) is not None:
                inputs = input_sums(unit.data, rows, 0, statistics.windows, statistics.labels)
            labelled = sums.count if setting.teachers else 0
            for part in LATER[self.options.until]:
                labels = part_labels(unit, part, setting)
                more = part_sums(unit, part, labels, tuple(sums.cross))
                sums = sums + more
                labelled += more.count if labels else 0
                if inputs is not None and rows is not None:
                    inputs = inputs + part_inputs(unit, rows, part, labels, tuple(sums.cross))
            solution, effect = _solved(unit, sums, inputs, setting, statistics.prior)
        student = type(unit.student).from_affine(setting.form, solution.arrays(), **unit.student.config)
        metrics = {"refit": self.options.until, "windows": sums.count, "labelled_windows": labelled}
        refitted = unit.with_(student=student.eval(), effect=effect, judged=unit.point)
        return PassResult(refitted, True, metrics)


def _solved(
    unit: CompileUnit, sums: Sums, inputs: InputSums | None, setting: Setting, prior: Sums | None
) -> tuple[AffineSolution, InputEffect | None]:
    """The student, and the effect of its inputs where it has any."""
    if inputs is None or unit.effect is None:
        return solve(sums, setting, prior), None
    solution, weight = solve_with_inputs(sums, inputs, setting, unit.effect.ridge, prior)
    return solution, InputEffect(unit.effect.groups, weight, unit.effect.ridge).eval()


def rows_of(unit: CompileUnit) -> InputRows | None:
    """The inputs of the unit's student, where it has any."""
    if unit.effect is None:
        return None
    return input_rows(unit.data, unit.effect.groups, unit.task.lookback, unit.task.horizon)


def part_labels(unit: CompileUnit, part: Part, setting: Setting) -> list[tuple[str, Labels]]:
    """The teacher's forecasts of a split, where they are stored and the setting weighs them."""
    windows = unit.data.windows(part, unit.task.lookback, unit.task.horizon)
    stored = stored_labels(unit.teacher_store, part, windows.first, len(windows))
    return [(TEACHER, stored)] if TEACHER in dict(setting.teachers) and stored is not None else []


def part_sums(
    unit: CompileUnit, part: Part, labels: Sequence[tuple[str, Labels]], targets: tuple[str, ...]
) -> Sums:
    """Sums over all windows of a split, with every one of ``targets``."""
    windows = unit.data.windows(part, unit.task.lookback, unit.task.horizon)
    last = windows.first + len(windows)
    sums = series_sums(unit.data, unit.task.lookback, unit.task.horizon, windows.first, last, labels)
    for name in targets:
        sums.cross.setdefault(name, sums.cross["truth"])
        sums.square.setdefault(name, sums.square["truth"])
    return sums


def part_inputs(
    unit: CompileUnit,
    rows: InputRows,
    part: Part,
    labels: Sequence[tuple[str, Labels]],
    targets: tuple[str, ...],
) -> InputSums:
    """What ``part_sums`` needs besides, for the inputs."""
    windows = unit.data.windows(part, unit.task.lookback, unit.task.horizon)
    sums = input_sums(unit.data, rows, windows.first, windows.first + len(windows), labels)
    for name in targets:
        sums.target.setdefault(name, sums.target["truth"])
    return sums


def stored_labels(store: TeacherStore | None, part: Part, first: int, count: int) -> Labels | None:
    """Labels by the row where a window starts, as the sums ask for them; None where they are not stored."""
    if store is None or store.counts.get(part) != count:
        return None
    forecasts = store.array(part, "forecast")

    def labels(begin: int, end: int) -> np.ndarray:
        return np.asarray(forecasts[begin - first : end - first])

    return labels
