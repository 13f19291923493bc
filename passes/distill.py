"""Trains the student on the objective that the passes before it have collected (paper B, section B.1).

    minimise  L = sum_k lambda_k * term_k       over the student and the terms' own parameters

The teacher is never run here: its forecasts and states come from the teacher store, memory-mapped, those of
several teachers in the mix that the affine start was solved for.  Every
training window is learnt from, with the terms that need a teacher only where the store has labelled it, so
that students with and without a teacher see the same windows in the same number of steps.

The epoch is chosen by the student's error on the validation truth.  A branch beside a solved affine student
is judged by rolling origins instead, against that student: see ``learning/branch_origin.py``.  It ships
only where it is better by more than ``margin`` standard errors, and within the budget.  Afterwards the
objective is empty, which drops the aligner.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Forecaster, Student
from ..compiler.ir.objective import Batch, LossTerm, Objective
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult, RecipeView, Timing
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.affine import setting_of
from ..compiler.learning.branch_origin import Judge, Origin, Verdict, origins, percent
from ..compiler.learning.cost import Cost, cost_of
from ..compiler.learning.evaluate import evaluate, model_predictor
from ..compiler.learning.labels import training_forecast
from ..compiler.learning.statistics import WindowStatistics
from ..compiler.learning.training import TrainingPlan, TrainingResult, train
from ..compiler.students.residual import LIMITS, Residual


class DistillStep(nn.Module):
    """One evaluation of the objective on a batch: ``{"loss": total, <term>: its loss, ...}``."""

    def __init__(self, student: Student, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.weights = [weight for weight, _ in objective.active()]
        self.terms = nn.ModuleList(term for _, term in objective.active())
        self.needs_teacher, self.needs_states = objective.needs_teacher, objective.needs_states

    def forward(self, past: Tensor, target: Tensor, *teacher: Tensor) -> dict[str, Tensor]:
        """The losses, each the mean over the windows of the batch.

        Args:
            past: ``[B, D, L]``.
            target: ``[B, D, H]``.
            teacher: forecasts and then states, as far as the objective needs them; and then ``[B]``, whether
                a window has any, where not all of them do.
        """
        outputs = iter(teacher)
        teacher_forecast = next(outputs) if self.needs_teacher else None
        if self.needs_states:
            forecast, embedding = self.student.forecast_and_embedding(past)
            batch = Batch(forecast, target, embedding, teacher_forecast, next(outputs))
        else:
            batch = Batch(self.student(past), target, None, teacher_forecast)
        labelled = next(outputs, None)
        losses: dict[str, Tensor] = {}
        total: Tensor | None = None
        for weight, term in zip(self.weights, self.terms, strict=True):
            loss = term(batch) if labelled is None else _where_labelled(term, batch, labelled)
            losses[str(term.name)] = loss
            total = weight * loss if total is None else total + weight * loss
        if total is None:
            raise PassError("every term of the objective has weight 0", hint="give one of them a weight")
        return {"loss": total, **losses}


def _where_labelled(term: nn.Module, batch: Batch, labelled: Tensor) -> Tensor:
    """The mean over all windows of a term that is 0 where it needs a label and there is none."""
    assert isinstance(term, LossTerm)
    if not (term.needs_teacher or term.needs_states):
        loss: Tensor = term(batch)
        return loss
    if not bool(labelled.any()):
        return batch.forecast.sum() * 0
    rows = {name: value[labelled] for name, value in vars(batch).items() if value is not None}
    mean: Tensor = term(Batch(**rows)) * labelled.float().mean()
    return mean


class Distill(Pass):
    """Trains the student and empties the objective."""

    name = "distill"
    reads = frozenset(
        {"data", "teacher_store", "companions", "held_out", "student", "objective", "statistics", "setting"}
    )
    writes = frozenset({"student", "objective"})
    summary = (
        "train the student on the collected objective; judged on validation, a branch by rolling origins"
    )
    cacheable = True

    class Options(PassOptions):
        """Defaults of paper B but for ``averaging`` (0 is the paper); an iTransformer takes 4 epochs.

        ``windows_per_epoch`` evenly spread windows make an epoch, 0 for all: neighbours differ by one step.
        For a branch: ``margin``, in standard errors, by which it has to be better than the affine student;
        ``max_macs`` and ``max_bytes`` of the student with it, 0 for any; ``max_latency_us`` of it here, and
        ``max_latency_times`` the affine student's, both lowered for the recipe's target and timed in one
        short interleaved run, 0 for any; and ``judge_macs``, the multiply-adds that rolling origins may
        take: beyond, validation judges alone.
        """

        epochs: int = Field(default=10, ge=0, le=1_000_000)
        learning_rate: float = Field(default=1e-4, gt=0)
        batch_size: int = Field(default=32, ge=1, le=1_000_000)
        patience: int = Field(default=3, ge=0)
        averaging: float = Field(default=0.99, ge=0, lt=1)
        weight_decay: float = Field(default=0.0, ge=0)
        windows_per_epoch: int = Field(default=0, ge=0)
        margin: float = Field(default=0.0, ge=0)
        max_macs: int = Field(default=0, ge=0)
        max_bytes: int = Field(default=0, ge=0)
        max_latency_us: float = Field(default=0.0, ge=0)
        max_latency_times: float = Field(default=0.0, ge=0)
        judge_macs: float = Field(default=1e13, ge=0)

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any]:
        return {name: recipe.student[name] for name in LIMITS if name in recipe.student}

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.student, Student) or not unit.objective.active():
            raise PassError("there is no student with an objective", hint="put build_student before distill")
        if unit.objective.needs_teacher and unit.teacher_store is None:
            raise PassError("the objective needs teacher outputs, and there is no teacher store")
        if unit.companions and unit.setting is None:
            raise PassError(
                f"{1 + len(unit.companions)} teachers, and a student that is trained learns from one",
                hint="give one teacher, or an affine student, which is solved for a mix of them",
            )
        if isinstance(unit.student, Residual) and unit.setting is None:
            raise PassError("there is no affine start to judge the branch against", hint="put solve_affine")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        if isinstance(unit.student, Residual):
            return self._branch(unit, unit.student, context)
        assert isinstance(unit.student, Student)  # requires() ran
        # The unit that came in keeps its weights: passes are pure at the boundary.
        step = DistillStep(copy.deepcopy(unit.student), copy.deepcopy(unit.objective))
        validation = unit.data.windows("val", unit.task.lookback, unit.task.horizon)
        naive = torch.ones(len(unit.task.variates))
        count = len(unit.data.windows("train", unit.task.lookback, unit.task.horizon))
        result = self._train(
            step,
            unit,
            context,
            count,
            lambda: evaluate(model_predictor(step.student), validation, naive).mse,
            workspace=context.workspace,
        )
        metrics = {"validation_mse": result.best, **_history(result)}
        return PassResult(unit.with_(student=step.student.eval(), objective=Objective()), True, metrics)

    def _train(
        self,
        step: DistillStep,
        unit: CompileUnit,
        context: PassContext,
        count: int,
        validate: Callable[[], float],
        *,
        workspace: Path | None,
        patience: int | None = None,
        **more: Any,
    ) -> TrainingResult:
        """Trains on the first ``count`` training windows, or evenly spread ones of them."""
        options = self.options
        visited = min(count, options.windows_per_epoch or count)
        plan = TrainingPlan(
            options.epochs,
            options.learning_rate,
            options.batch_size,
            options.patience if patience is None else patience,
            weight_decay=options.weight_decay,
            averaging=options.averaging,
            seed=context.seed,
        )
        return train(
            step,
            windows=visited,
            fetch=_reader(step, unit, torch.linspace(0, count - 1, visited).round().long()),
            validate=validate,
            plan=plan,
            workspace=workspace,
            progress=context.progress,
            **{"title": "distill", **more},
        )

    def _branch(self, unit: CompileUnit, student: Residual, context: PassContext) -> PassResult:
        """Trains the branch, judges it, and ships it or the affine student."""
        assert isinstance(unit.statistics, WindowStatistics) and unit.setting is not None
        variates = len(unit.task.variates)
        start = student.affine_start()
        forms = {"affine": _folded(start), "branch": _folded(student)}
        cheap, dear = (cost_of(form, variates) for form in forms.values())
        timing = self._timed(forms, unit, context)
        folds = list(origins(unit.statistics, setting_of(unit.setting), student))
        limit = self.options.windows_per_epoch
        visits = sum(min(fold.windows, limit or fold.windows) for fold in folds)
        warnings = []
        if len(folds) == 1:
            warnings.append(f"{unit.statistics.alone}: the branch is judged on validation alone")
        elif 3 * dear.macs * visits * self.options.epochs > self.options.judge_macs:
            warnings.append("rolling origins would take too long: the branch is judged on validation alone")
            folds = folds[-1:]
        for warning in warnings:
            context.progress.line(f"    warning: {warning}")
        judge = Judge()
        for fold in folds[:-1]:
            self._judged(fold, unit, context, judge)
        result = self._judged(folds[-1], unit, context, judge)
        verdict = judge.best()
        over = _over_budget(dear, timing, self.options)
        earned = verdict.epochs > 0 and verdict.log_ratio < -self.options.margin * verdict.standard_error
        line = _in_words(verdict, _price(cheap, dear, timing), earned, over)
        context.progress.line(f"    {line}")
        trained = folds[-1].student.trusted(verdict.gain)
        shipped: Student = trained if earned and not over else start
        metrics = {
            "shipped": "branch" if shipped is not start else "affine",
            "in_words": line,
            "verdict": asdict(verdict),
            "folds": [fold.name for fold in folds],
            "macs": {"affine": cheap.macs, "branch": dear.macs},
            "size_bytes": {"affine": cheap.size_bytes, "branch": dear.size_bytes},
            **({"latency": asdict(timing)} if timing else {}),
            "warnings": warnings,
            **_history(result),
        }
        return PassResult(unit.with_(student=shipped, objective=Objective()), True, metrics)

    def _timed(
        self, forms: Mapping[str, Forecaster], unit: CompileUnit, context: PassContext
    ) -> Timing | None:
        """Both students' latency, where it is bounded: before anything is trained, so that it fails early."""
        if not (self.options.max_latency_us or self.options.max_latency_times):
            return None
        if context.clock is None:
            raise PassError("a latency is bounded, and there is nothing to time students with")
        return context.clock(forms, unit)

    def _judged(self, fold: Origin, unit: CompileUnit, context: PassContext, judge: Judge) -> TrainingResult:
        """Trains on one fold for all epochs and measures each; what is best by all folds so far is kept."""
        judge.open()
        step = DistillStep(fold.student, copy.deepcopy(unit.objective))
        return self._train(
            step,
            unit,
            context,
            fold.windows,
            lambda: judge.measure(fold, fold.student),
            patience=self.options.epochs + 1,
            workspace=None,
            keep_initial=True,
            title=f"branch, {fold.name}",
            judge="log ratio to the affine start",
        )


def _reader(
    step: DistillStep, unit: CompileUnit, chosen: Tensor
) -> Callable[[Sequence[int]], tuple[Tensor, ...]]:
    """Reads batches of the ``chosen`` training windows: past, truth, and what the objective needs."""
    task, store = unit.task, unit.teacher_store
    windows = unit.data.windows("train", task.lookback, task.horizon)
    if store is None or not (step.needs_teacher or step.needs_states):
        return lambda indices: windows.batch(chosen[torch.as_tensor(indices)])
    rows = store.training(windows).chosen
    row_of = torch.full((len(windows),), -1)
    row_of[torch.from_numpy(rows)] = torch.arange(len(rows))
    whole = len(rows) == len(windows)
    forecast = training_forecast(unit)

    def fetch(indices: Sequence[int]) -> tuple[Tensor, ...]:
        at = chosen[torch.as_tensor(indices)]
        row = row_of[at]
        labels: tuple[Tensor, ...] = ()
        # What stands in the place of a missing label is never read.
        if step.needs_teacher:
            labels = (*labels, forecast(row.clamp_min(0).tolist()))
        if step.needs_states:
            labels = (*labels, store.states("train", row.clamp_min(0).tolist()))
        return (*windows.batch(at), *labels, *(() if whole else (row >= 0,)))

    return fetch


def _folded(student: Student) -> Forecaster:
    return student.fold() or student


def _history(result: TrainingResult) -> dict[str, Any]:
    return {
        "best_epoch": result.best_epoch,
        "validation": list(result.validation),
        "training": [dict(losses) for losses in result.training],
    }


def _over_budget(dear: Cost, timing: Timing | None, options: Distill.Options) -> str:
    """Which limit the student with the branch exceeds, in words; empty when none."""
    if options.max_macs and dear.macs > options.max_macs:
        return f"{dear.macs:,} multiply-adds exceed student.max_macs = {options.max_macs:,}"
    if options.max_bytes and dear.size_bytes > options.max_bytes:
        return f"{dear.size_bytes:,} bytes exceed student.max_bytes = {options.max_bytes:,}"
    if timing is None:
        return ""
    found = timing.median_us["branch"]
    if options.max_latency_us and found > options.max_latency_us:
        return f"{found:.1f} us exceed student.max_latency_us = {options.max_latency_us:g}"
    times = found / timing.median_us["affine"]
    if options.max_latency_times and times > options.max_latency_times:
        return f"{times:.1f} times exceed student.max_latency_times = {options.max_latency_times:g}"
    return ""


def _price(cheap: Cost, dear: Cost, timing: Timing | None) -> str:
    """What the branch costs beside the affine student alone."""
    price = f"{dear.macs / max(1, cheap.macs):.1f}x the multiply-adds"
    if timing is None:
        return price
    return (
        f"{price}, {timing.median_us['branch']:.1f} us in the place of {timing.median_us['affine']:.1f} here"
    )


def _in_words(verdict: Verdict, price: str, earned: bool, over: str) -> str:
    """What the branch brings, what it costs and what follows from it, in one line."""
    if verdict.epochs == 0:
        return "the branch lowers the error on no average of the folds: the affine student ships"
    what = (
        f"the branch lowers the error by {percent(verdict.log_ratio):.1f} % "
        f"(standard error {100 * verdict.standard_error:.1f}) at {price}"
    )
    if not earned:
        return f"{what}, which the folds cannot tell from none: the affine student ships"
    return f"{what}; {over}: the affine student ships" if over else what
