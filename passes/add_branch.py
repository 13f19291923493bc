"""Grows a nonlinear student out of the solved affine one, and opens the objective again.

    y = affine + gain * branch,    the branch's last layer at zero: the same function until it is trained
    L = |truth - y|^2 + lambda * sum_t w_t |teacher - y|^2

lambda and tau of the weights w_t are those that the affine student was solved with; its solution is the
minimum of L among affine students, so training starts there and not from noise.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Student
from ..compiler.ir.objective import Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import Setting, setting_of
from ..compiler.learning.branch_origin import branch_basis, sample
from ..compiler.learning.labels import teacher_stores
from ..compiler.learning.statistics import WindowStatistics
from ..compiler.students.residual import EMBEDDING, LIMITS, grow
from .build_student import Supervised
from .weight_horizons import HorizonKD

NOT_OF_THE_BRANCH = ("kind", "maps", "rank", *LIMITS)


class AddBranch(Pass):
    """Replaces the solved student by one with an untrained branch beside it."""

    name = "add_branch"
    reads = frozenset({"data", "statistics", "student", "setting", "teacher_store", "companions"})
    writes = frozenset({"student", "objective"})
    summary = "put an untrained branch beside the solved affine student; the same objective once more"

    class Options(PassOptions):
        """``config`` has the branch's options, from ``[student]`` of the recipe."""

        config: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any]:
        return {"config": {n: v for n, v in recipe.student.items() if n not in NOT_OF_THE_BRANCH}}

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.student, Student) or unit.setting is None:
            raise PassError("there is no solved affine student", hint="put solve_affine before add_branch")
        if not isinstance(unit.statistics, WindowStatistics):
            raise PassError("there are no statistics", hint="put gather_statistics before solve_affine")
        missing = [name for name, _ in setting_of(unit.setting).teachers if name not in teacher_stores(unit)]
        if missing:
            raise PassError(
                f"the student was solved with {', '.join(missing)}, and their labels are not at hand",
                hint="put record_teacher before gather_statistics",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and isinstance(unit.statistics, WindowStatistics)
        task, setting = unit.task, setting_of(unit.setting)
        sums = unit.statistics.all()
        size = int(self.options.config.get("embedding", EMBEDDING))
        past = sample(unit.data, task.lookback, task.horizon, sums.count)
        _, basis = branch_basis(sums, setting, size, unit.statistics.prior)
        student = grow(unit.student, basis, past, **self.options.config)
        objective = reopened(setting, task.horizon)
        parameters = sum(p.numel() for p in student.branch.parameters())
        after = unit.with_(student=student, objective=objective)
        return PassResult(after, True, {"branch_parameters": parameters})


def reopened(setting: Setting, horizon: int) -> Objective:
    """The objective that ``setting`` is the affine minimum of, without its ridge."""
    if not setting.teachers:
        return Objective().put(1.0, Supervised())
    teacher = HorizonKD(horizon, setting.tau)
    if math.isinf(setting.distill):
        return Objective().put(1.0, teacher)
    return Objective().put(1.0, Supervised()).put(setting.distill, teacher)
