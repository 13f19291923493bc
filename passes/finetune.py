"""Fine-tunes the teacher on the data, after pruning or in full (paper A).

    minimise  1/(B D H) sum (teacher(past) - future)^2        scaled series, AdamW, fp32 master weights

for each learning rate of a small grid, from the same weights; the state with the lowest validation loss of
all rates and epochs is restored by value, and the untrained teacher is a candidate too.

What the tuned teacher says of training windows it has seen is no forecast.  So where statistics are gathered
from it, ``cross_fit`` stretches of training are labelled by teachers that were tuned on the windows before
them alone (``learning/held_out.py``), at the rate and for the epochs that were chosen: rolling origins can
then judge it, and the student learns what it says of the unseen.  That costs (K - 1)/2 of one rate's
training, beside a grid of several.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.data.dataset import SpreadWindows
from ..compiler.ir.forecaster import Teacher
from ..compiler.ir.passes import PassContext, PassOptions, PassResult, RecipeView, TeacherPass
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.cost import validation_mse
from ..compiler.learning.held_out import (
    HeldOutForecasts,
    Stretch,
    forecasts_of,
    keep_stretch,
    kept_stretch,
    stretches,
)
from ..compiler.learning.training import TrainingPlan, TrainingResult, train

STRETCHES = 4
"""Of training where the statistics of a tuned teacher are judged: the training so far grows by a quarter."""
Chosen = npt.NDArray[np.int64]
"""Numbers of training windows."""


class FinetuneOptions(PassOptions):
    """Options.

    Attributes:
        epochs: per learning rate (the paper: 1 for Time-MoE, Chronos and Moirai).
        learning_rates: the grid.
        batch_size: windows per step.
        patience: epochs without a better validation loss.
        weight_decay: of AdamW.
        train_windows: training windows, evenly spread; 0 for all.
        validation_windows: the same for validation.
        cross_fit: stretches of training that are labelled by teachers which have not seen them; 0 for none.
    """

    epochs: int = Field(default=3, ge=0)
    learning_rates: tuple[float, ...] = Field(default=(1e-5, 1e-4, 1e-3), min_length=1)
    batch_size: int = Field(default=32, ge=1)
    patience: int = Field(default=1, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    train_windows: int = Field(default=0, ge=0)
    validation_windows: int = Field(default=0, ge=0)
    cross_fit: int = Field(default=0, ge=0, le=64)


class FinetuneStep(nn.Module):
    """The loss of a batch: ``{"loss": mean squared error}``.

    Args:
        teacher: whose weights are trained, in place.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, past: Tensor, target: Tensor) -> dict[str, Tensor]:
        """``past [B, D, L]``, ``target [B, D, H]``."""
        return {"loss": (self.teacher(past) - target).square().mean()}


class Finetune(TeacherPass):
    """Replaces the teacher by a fine-tuned one."""

    name = "finetune"
    verb = "fine-tune"
    writes = frozenset({"teacher", "tuned", "held_out"})
    summary = "fine-tune the teacher on the data; learning rate and epoch chosen on validation"
    Options = FinetuneOptions
    cacheable = True

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any]:
        return {"cross_fit": STRETCHES} if "statistics" in recipe.written else {}

    def requires(self, unit: CompileUnit) -> None:
        super().requires(unit)
        assert unit.teacher is not None
        if not any(parameter.requires_grad for parameter in unit.teacher.parameters()):
            raise PassError(
                f"{type(unit.teacher).__name__} has no trainable weights",
                hint="drop finetune from the pipeline",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.teacher is not None  # requires() ran
        best: Teacher = unit.teacher
        rates: list[TrainingResult] = []
        for rate in self.options.learning_rates:
            tuned, result = self._rate(unit, rate, context)
            if result.best_epoch > 0 and all(result.best < earlier.best for earlier in rates):
                best = tuned
            rates.append(result)
        lowest = min(range(len(rates)), key=lambda at: rates[at].best)
        metrics = {
            "validation_before": rates[0].validation[0],
            "validation": rates[lowest].best,
            "learning_rate": self.options.learning_rates[lowest],
            "best_epoch": rates[lowest].best_epoch,
            "grid": [
                {"learning_rate": rate, "validation": list(result.validation)}
                for rate, result in zip(self.options.learning_rates, rates, strict=True)
            ],
        }
        if best is unit.teacher:
            return PassResult(unit, False, metrics)
        after = unit.with_(teacher=best, tuned=True)
        if self.options.cross_fit:
            held_out, told = self._cross_fit(unit, metrics["learning_rate"], metrics["best_epoch"], context)
            after, metrics = after.with_(held_out=held_out), {**metrics, "cross_fit": told}
        return PassResult(after, True, metrics)

    def _rate(self, unit: CompileUnit, rate: float, context: PassContext) -> tuple[Teacher, TrainingResult]:
        """One learning rate on all of training, judged on validation."""
        options: FinetuneOptions = self.options
        return self._train(
            unit,
            self._chosen(unit),
            rate,
            context,
            epochs=options.epochs,
            validate=lambda teacher: validation_mse(
                teacher, unit, windows=options.validation_windows, batch_windows=options.batch_size
            ),
            workspace=context.workspace / f"rate-{rate:g}",
            title=f"finetune at {rate:g}",
        )

    def _chosen(self, unit: CompileUnit, seen: int | None = None) -> Chosen:
        """The windows to tune on: evenly spread over training, of which those before window ``seen``."""
        windows = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
        chosen = SpreadWindows(windows, self.options.train_windows).chosen
        return chosen if seen is None else chosen[chosen < seen]

    def _cross_fit(
        self, unit: CompileUnit, rate: float, epochs: int, context: PassContext
    ) -> tuple[HeldOutForecasts, dict[str, Any]]:
        """Labels of every training window by a teacher that had not seen it, and what that took."""
        task = unit.task
        windows = unit.data.windows("train", task.lookback, task.horizon)
        parts = stretches(len(windows), self.options.cross_fit, task.lookback + task.horizon)
        tuned_on = [len(self._chosen(unit, part.seen)) for part in parts]
        visits = epochs * sum(count for count in tuned_on if count >= self.options.batch_size)
        context.progress.line(
            f"    cross-fit: {len(parts)} stretches of training, labelled by teachers tuned on what lies "
            f"before each: {visits / (epochs * len(self._chosen(unit))):.1f} times the training of one rate"
        )
        labels = []
        for number, part in enumerate(parts):
            path = context.workspace / f"stretch-{number}.safetensors"
            known = kept_stretch(path, part)
            if known is None:
                teacher = self._until(unit, part, rate, epochs, context)
                known = forecasts_of(teacher, windows.batch, part)
                keep_stretch(path, part, known)
            labels.append(known)
        told = {"stretches": len(parts), "tuned_on": tuned_on, "window_visits": visits}
        return HeldOutForecasts(torch.cat(labels).numpy()), told

    def _until(
        self, unit: CompileUnit, part: Stretch, rate: float, epochs: int, context: PassContext
    ) -> Teacher:
        """The teacher tuned on what lies before a stretch; as it came where that is less than a batch."""
        assert unit.teacher is not None
        chosen = self._chosen(unit, part.seen)
        if len(chosen) < self.options.batch_size:
            return unit.teacher
        left = iter(range(epochs, -1, -1))  # nothing judges it: the last epoch is the one that counts
        tuned, _ = self._train(
            unit,
            chosen,
            rate,
            context,
            epochs=epochs,
            validate=lambda teacher: float(next(left)),
            workspace=None,
            title=f"cross-fit before window {part.begin}",
            judge="epochs left",
        )
        return tuned

    def _train(
        self,
        unit: CompileUnit,
        chosen: Chosen,
        rate: float,
        context: PassContext,
        *,
        epochs: int,
        validate: Callable[[Teacher], float],
        workspace: Path | None,
        title: str,
        judge: str = "validation",
    ) -> tuple[Teacher, TrainingResult]:
        """Trains a copy of the teacher that came in on the ``chosen`` training windows."""
        assert unit.teacher is not None
        options: FinetuneOptions = self.options
        step = FinetuneStep(copy.deepcopy(unit.teacher).float())
        wants = {name: parameter.requires_grad for name, parameter in step.named_parameters()}
        windows = unit.data.windows("train", unit.task.lookback, unit.task.horizon)

        def fetch(indices: Sequence[int]) -> tuple[Tensor, ...]:
            return windows.batch(chosen[np.asarray(indices)])

        freeze_unused(step, fetch([0]))
        with torch.random.fork_rng(devices=[]):
            result = train(
                step,
                windows=len(chosen),
                fetch=fetch,
                validate=lambda: validate(step.teacher),
                plan=TrainingPlan(
                    epochs,
                    rate,
                    options.batch_size,
                    options.patience,
                    weight_decay=options.weight_decay,
                    seed=context.seed,
                ),
                workspace=workspace,
                progress=context.progress,
                title=title,
                keep_initial=True,
                judge=judge,
            )
        for name, parameter in step.named_parameters():
            parameter.requires_grad_(wants[name])
        return step.teacher.eval(), result


def freeze_unused(step: nn.Module, batch: tuple[Tensor, ...]) -> None:
    """Freezes what the loss does not depend on, such as heads for other horizons.

    Several processes that average gradients would wait for those of such parameters.
    """
    trainable = [parameter for parameter in step.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(step(*batch)["loss"], trainable, allow_unused=True)
    for parameter, gradient in zip(trainable, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
