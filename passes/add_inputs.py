"""Adds inputs beside the window to the solved student, where they earn their place.

    y - m = W (x - m) + B e        e: the calendar of the first step, columns known ahead, past covariates

For each set of inputs that was asked for, W and B are solved together, exactly, and judged by the rolling
origins that chose the student; no inputs are a candidate, and win a tie.  The table says what each set gave.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ..compiler.base.errors import PassError
from ..compiler.base.parallel import one_thread
from ..compiler.data.inputs import asked_groups, input_rows
from ..compiler.ir.forecaster import Student
from ..compiler.ir.inputs import InputEffect
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import setting_of
from ..compiler.learning.inputs import RIDGE_FACTORS, choose_inputs, solve_with_inputs
from ..compiler.learning.statistics import STATES, WindowStatistics


class AddInputs(Pass):
    """Adds ``effect`` to the unit and solves its student again beside it."""

    name = "add_inputs"
    reads = frozenset({"data", "statistics", "student", "setting"})
    writes = frozenset({"student", "effect"})
    cacheable = True
    summary = "calendar, known and past columns as further linear inputs, kept where rolling origins gain"

    class Options(PassOptions):
        """``calendar`` asks for the cycles of the step; columns follow from the data.  ``ridges``: penalties
        of the effect that are tried, over the student's own."""

        calendar: bool = False
        ridges: tuple[float, ...] = Field(default=RIDGE_FACTORS, min_length=1)

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any] | None:
        return {"calendar": recipe.calendar} if recipe.calendar or recipe.columns else None

    def requires(self, unit: CompileUnit) -> None:
        if unit.setting is None or not isinstance(unit.statistics, WindowStatistics):
            raise PassError("inputs need a solved affine student", hint="put add_inputs after solve_affine")
        if setting_of(unit.setting).align:
            raise PassError(
                "the teacher's states have shaped the student, and say nothing of inputs",
                hint="leave out align_temporal, or the inputs",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and isinstance(unit.statistics, WindowStatistics)
        task, setting = unit.task, setting_of(unit.setting)
        groups = asked_groups(unit.data, task.lookback, task.horizon, calendar=self.options.calendar)
        rows = input_rows(unit.data, groups, task.lookback, task.horizon)
        with one_thread(), context.progress.task("rolling origins, inputs", 1) as bar:
            choice = choose_inputs(unit.statistics, rows, setting, self.options.ridges)
            bar.advance(1)
            metrics = {"kept": list(choice.kept), "ridge": choice.ridge, "inputs": choice.table}
            if not choice.kept:
                return PassResult(unit, False, metrics)
            kept = rows.only(choice.kept)
            sums = unit.statistics.all().without(STATES)
            solution, effect = solve_with_inputs(
                sums, choice.sums, setting, choice.ridge, unit.statistics.prior
            )
        student = type(unit.student).from_affine(setting.form, solution.arrays(), **unit.student.config)
        added = InputEffect(kept.groups, effect, choice.ridge)
        after = unit.with_(student=student.eval(), effect=added.eval())
        return PassResult(after, True, {**metrics, "numbers": kept.width})
