"""Trains the student on the objective that the passes before it have collected (paper B, section B.1).

    minimise  L = sum_k lambda_k * term_k       over the student and the terms' own parameters

The teacher is never run here: its forecasts and states come from the teacher store, memory-mapped.
The epoch is chosen by the student's error on the validation truth.  Afterwards the objective is empty,
which drops the aligner.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Student
from ..compiler.ir.objective import Batch, Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.evaluate import evaluate, model_predictor
from ..compiler.learning.training import TrainingPlan, train


class DistillStep(nn.Module):
    """One evaluation of the objective on a batch: ``{"loss": total, <term>: its loss, ...}``."""

    def __init__(self, student: Student, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.weights = [weight for weight, _ in objective.active()]
        self.terms = nn.ModuleList(term for _, term in objective.active())
        self.needs_teacher, self.needs_states = objective.needs_teacher, objective.needs_states

    def forward(self, past: Tensor, target: Tensor, *teacher: Tensor) -> dict[str, Tensor]:
        """``teacher`` holds the forecasts and then the states, as far as the objective needs them."""
        outputs = iter(teacher)
        teacher_forecast = next(outputs) if self.needs_teacher else None
        if self.needs_states:
            forecast, embedding = self.student.forecast_and_embedding(past)
            batch = Batch(forecast, target, embedding, teacher_forecast, next(outputs))
        else:
            batch = Batch(self.student(past), target, None, teacher_forecast)
        losses: dict[str, Tensor] = {}
        total: Tensor | None = None
        for weight, term in zip(self.weights, self.terms, strict=True):
            loss = term(batch)
            losses[str(term.name)] = loss
            total = weight * loss if total is None else total + weight * loss
        if total is None:
            raise PassError("every term of the objective has weight 0", hint="give one of them a weight")
        return {"loss": total, **losses}


class Distill(Pass):
    """Trains the student and empties the objective."""

    name = "distill"
    reads = frozenset({"data", "teacher_store", "student", "objective"})
    writes = frozenset({"student", "objective"})
    summary = "train the student on the collected objective; keep the best epoch on validation"
    cacheable = True

    class Options(PassOptions):
        """Defaults of paper B but for ``averaging`` (0 is the paper); an iTransformer takes 4 epochs."""

        epochs: int = 10
        learning_rate: float = 1e-4
        batch_size: int = 32
        patience: int = 3
        averaging: float = 0.99

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.student, Student) or not unit.objective.active():
            raise PassError("there is no student with an objective", hint="put build_student before distill")
        if unit.objective.needs_teacher and unit.teacher_store is None:
            raise PassError("the objective needs teacher outputs, and there is no teacher store")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student)  # requires() ran
        # The unit that came in keeps its weights: passes are pure at the boundary.
        step = DistillStep(copy.deepcopy(unit.student), copy.deepcopy(unit.objective))
        task, store = unit.task, unit.teacher_store
        every = unit.data.windows("train", task.lookback, task.horizon)
        learns_from = store if step.needs_teacher or step.needs_states else None
        windows = every if learns_from is None else learns_from.training(every)
        validation = unit.data.windows("val", task.lookback, task.horizon)

        def fetch(indices: Sequence[int]) -> tuple[Tensor, ...]:
            tensors: tuple[Tensor, ...] = windows.batch(indices)
            if store is not None and step.needs_teacher:
                tensors = (*tensors, store.forecast("train", indices))
            if store is not None and step.needs_states:
                tensors = (*tensors, store.states("train", indices))
            return tensors

        naive = torch.ones(len(task.variates))
        options = self.options
        result = train(
            step,
            windows=len(windows),
            fetch=fetch,
            validate=lambda: evaluate(model_predictor(step.student), validation, naive).mse,
            plan=TrainingPlan(
                options.epochs,
                options.learning_rate,
                options.batch_size,
                options.patience,
                averaging=options.averaging,
                seed=context.seed,
            ),
            workspace=context.workspace,
            progress=context.progress,
            title="distill",
        )
        metrics = {
            "validation_mse": result.best,
            "best_epoch": result.best_epoch,
            "validation": list(result.validation),
            "training": [dict(losses) for losses in result.training],
        }
        return PassResult(unit.with_(student=step.student.eval(), objective=Objective()), True, metrics)
