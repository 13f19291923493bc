"""Builds the student and opens the objective (paper B, section B.1).

    L = L_sup + lambda_kd * mean_{b,d,t} (teacher - student)^2

Without a teacher's outputs, or with ``lambda_kd = 0``, the objective is plain supervision.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from ..compiler.ir.objective import Batch, LossTerm, Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView
from ..compiler.ir.unit import CompileUnit
from ..compiler.students import build_student, takes


class Supervised(LossTerm):
    """``L_sup``: mean squared error against the truth."""

    name = "supervised"
    target = "truth"

    def forward(self, batch: Batch) -> Tensor:
        return (batch.forecast - batch.target).square().mean()


class UniformKD(LossTerm):
    """Mean squared error against the teacher's forecast, every step of the horizon alike."""

    name = "kd"
    target = "teacher"
    needs_teacher = True

    def forward(self, batch: Batch) -> Tensor:
        return (_teacher(batch) - batch.forecast).square().mean()

    def describe(self) -> str:
        return "kd uniform over the horizon"


def _teacher(batch: Batch) -> Tensor:
    if batch.teacher_forecast is None:
        raise ValueError("the batch has no teacher forecast")
    return batch.teacher_forecast


class BuildStudent(Pass):
    """Adds an untrained student, and the terms ``supervised`` and ``kd``."""

    name = "build_student"
    writes = frozenset({"student", "objective"})
    reads = frozenset({"teacher", "teacher_store"})
    summary = "build an untrained variate-wise student; objective: supervision + uniform KD"

    class Options(PassOptions):
        """``kind`` and ``config`` come from ``[student]`` of the recipe."""

        kind: str = "dlinear"
        config: dict[str, Any] = Field(default_factory=dict)
        lambda_kd: float = Field(default=1.0, ge=0, allow_inf_nan=True)

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any]:
        config = dict(recipe.student)
        return {"kind": config.pop("kind"), "config": config}

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        task = unit.task
        kind, config = self.options.kind, dict(self.options.config)
        if takes(kind, "variates"):
            config.setdefault("variates", len(task.variates))
        student = build_student(kind, lookback=task.lookback, horizon=task.horizon, **config)
        objective = Objective().put(1.0, Supervised())
        if unit.teacher is not None or unit.teacher_store is not None:
            objective = objective.put(self.options.lambda_kd, UniformKD())
        parameters = sum(p.numel() for p in student.parameters())
        return PassResult(
            unit.with_(student=student.eval(), objective=objective), True, {"parameters": parameters}
        )
