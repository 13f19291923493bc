"""Quantiles for the point forecast of any student: offsets in units of the window's spread.

    y_q = y + s(x) o[d, h, q]        o: quantiles of (truth - y) / s(x) on windows that y was not fitted to

What the spread s(x) is made of, and how much of a teacher's quantiles is in the offsets, is chosen by rolling
origins of the pinball loss; the plain candidates (one spread for every window; nothing of the teacher) are
among them.  The point student is left as it is.
"""

from __future__ import annotations

from typing import Any

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import setting_of
from ..compiler.learning.quantile_origin import Chosen, choose_head, spreads
from ..compiler.learning.residuals import Stretch, solved_origins, stretch_of, validation_origins
from ..compiler.learning.statistics import WindowStatistics
from ..compiler.students.affine import AffineMap, AffineMaps, LowRankMap
from ..compiler.students.dlinear import DLinear

SOLVED = (AffineMap, AffineMaps, LowRankMap, DLinear)
"""What is a solved map and nothing besides, before and after it is folded."""


class AddQuantiles(Pass):
    """Adds ``head`` and ``plain_head`` to the unit."""

    name = "add_quantiles"
    reads = frozenset(
        {"data", "teacher", "teacher_store", "student", "effect", "judged", "statistics", "setting"}
    )
    writes = frozenset({"head", "plain_head"})
    summary = "offsets of the task's quantiles in units of the window's spread, from unseen residuals"

    class Options(PassOptions):
        """``levels``: those of the task, ``[task] quantiles`` of the recipe."""

        levels: tuple[float, ...] = ()

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any] | None:
        return {"levels": recipe.quantile_levels} if recipe.quantile_levels else None

    def requires(self, unit: CompileUnit) -> None:
        if self.options.levels != unit.task.quantile_levels or not self.options.levels:
            raise PassError(
                f"levels {list(self.options.levels)}, the task has {list(unit.task.quantile_levels)}",
                hint="give them once, as --quantiles or [task] quantiles",
            )
        if unit.student is None and unit.teacher is None:
            raise PassError(
                "there is no model to forecast quantiles with", hint="put build_student before it"
            )
        if unit.objective.active():
            raise PassError("the student is not trained yet", hint="put add_quantiles at the end")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        task = unit.task
        kinds = spreads(task.lookback, unit.data.seasonality)
        with one_thread(), context.progress.task("residuals", 1) as progress:
            stretches = [
                stretch_of(origin, kinds, unit.teacher_store, task.quantile_levels)
                for origin in _origins(unit)
            ]
            chosen = choose_head(stretches, task.quantile_levels)
            progress.advance(1)
        after = unit.with_(head=chosen.head, plain_head=chosen.plain)
        return PassResult(after, True, _metrics(chosen, stretches))


def _origins(unit: CompileUnit) -> Any:
    solved = unit.setting is not None and isinstance(unit.judged_model, SOLVED)
    if solved and isinstance(unit.statistics, WindowStatistics):
        return solved_origins(unit.statistics, setting_of(unit.setting))
    return validation_origins(unit.data, unit.judged_model, unit.task.lookback, unit.task.horizon)


def _metrics(chosen: Chosen, stretches: list[Stretch]) -> dict[str, Any]:
    return {
        "spread": str(chosen.candidate.spread),
        "teacher": chosen.candidate.teacher,
        "stretches": [each.name for each in stretches],
        "windows": sum(len(each.residuals) for each in stretches),
        "candidates": chosen.table,
    }
