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

from typing import Any, Literal

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.data.splits import Part
from ..compiler.ir.forecaster import Student
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import Setting, setting_of, solve
from ..compiler.learning.labels import stored_labels, teacher_stores
from ..compiler.learning.statistics import STATES, Sums, WindowStatistics, series_sums
from .add_inputs import AddInputs
from .solve_affine import SolveAffine

Until = Literal["train+val", "all"]
LATER: dict[Until, tuple[Part, ...]] = {"train+val": ("val",), "all": ("val", "test")}
"""The splits after training."""


class RefitAffine(Pass):
    """Replaces the solved student by one that has seen later rows; keeps the former as ``judged``."""

    name = "refit_affine"
    reads = frozenset({"data", "teacher_store", "companions", "student", "effect", "statistics", "setting"})
    writes = frozenset({"student", "judged"})
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
                hint=f"put refit_affine right after {SolveAffine.name}, or leave refit out",
            )
        if unit.effect is not None:
            raise PassError(
                "the student has inputs beside the window, whose effect is not solved again",
                hint="leave refit out, or the inputs",
            )
        if setting_of(unit.setting).align:
            raise PassError(
                "the teacher's states have shaped the student, and only those of training are recorded",
                hint="leave out align_temporal, or refit",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and isinstance(unit.statistics, WindowStatistics)
        setting = setting_of(unit.setting)
        with one_thread():
            sums = unit.statistics.all().without(STATES)
            labelled = sums.count if setting.teachers else 0
            for part in LATER[self.options.until]:
                more, has_labels = part_sums(unit, part, setting, tuple(sums.cross))
                sums = sums + more
                labelled += more.count if has_labels else 0
            solution = solve(sums, setting, unit.statistics.prior)
        student = type(unit.student).from_affine(setting.form, solution.arrays(), **unit.student.config)
        metrics = {"refit": self.options.until, "windows": sums.count, "labelled_windows": labelled}
        return PassResult(unit.with_(student=student.eval(), judged=unit.student), True, metrics)


def part_sums(unit: CompileUnit, part: Part, setting: Setting, targets: tuple[str, ...]) -> tuple[Sums, bool]:
    """Sums over all windows of a split, with every one of ``targets``; whether a teacher labelled them."""
    task = unit.task
    windows = unit.data.windows(part, task.lookback, task.horizon)
    last = windows.first + len(windows)
    average = isinstance(unit.statistics, WindowStatistics) and unit.statistics.average
    wanted, stores = dict(setting.teachers), teacher_stores(unit)
    labels = [
        (name, stored_labels(store, part, windows.first))
        for name, store in stores.items()
        if name in wanted and store.counts.get(part) == len(windows)
    ]
    sums = series_sums(unit.data, task.lookback, task.horizon, windows.first, last, labels, average=average)
    for name in targets:
        sums.cross.setdefault(name, sums.cross["truth"])
        sums.square.setdefault(name, sums.square["truth"])
    return sums, bool(labels)
