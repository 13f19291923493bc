"""Fine-tunes the teacher on the data, after pruning or in full (paper A).

    minimise  1/(B D H) sum (teacher(past) - future)^2        scaled series, AdamW, fp32 master weights

for each learning rate of a small grid, from the same weights; the state with the lowest validation loss of
all rates and epochs is restored by value, and the untrained teacher is a candidate too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.data.dataset import SpreadWindows
from ..compiler.ir.forecaster import Teacher
from ..compiler.ir.passes import PassContext, PassOptions, PassResult, TeacherPass
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.cost import validation_mse
from ..compiler.learning.training import TrainingPlan, TrainingResult, train


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
    """

    epochs: int = Field(default=3, ge=0)
    learning_rates: tuple[float, ...] = Field(default=(1e-5, 1e-4, 1e-3), min_length=1)
    batch_size: int = Field(default=32, ge=1)
    patience: int = Field(default=1, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    train_windows: int = Field(default=0, ge=0)
    validation_windows: int = Field(default=0, ge=0)


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
    writes = frozenset({"teacher", "tuned"})
    summary = "fine-tune the teacher on the data; learning rate and epoch chosen on validation"
    Options = FinetuneOptions
    cacheable = True

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
            tuned, result = self._train(unit, rate, context)
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
        return PassResult(unit.with_(teacher=best, tuned=True), True, metrics)

    def _train(self, unit: CompileUnit, rate: float, context: PassContext) -> tuple[Teacher, TrainingResult]:
        """One learning rate, from the weights that came in."""
        assert unit.teacher is not None
        options: FinetuneOptions = self.options
        step = FinetuneStep(copy.deepcopy(unit.teacher).float())
        wants = {name: parameter.requires_grad for name, parameter in step.named_parameters()}
        task = unit.task
        windows = SpreadWindows(
            unit.data.windows("train", task.lookback, task.horizon), options.train_windows
        )

        def fetch(indices: Sequence[int]) -> tuple[Tensor, ...]:
            return windows.batch(indices)

        freeze_unused(step, fetch([0]))
        with torch.random.fork_rng(devices=[]):
            result = train(
                step,
                windows=len(windows),
                fetch=fetch,
                validate=lambda: validation_mse(
                    step.teacher,
                    unit,
                    windows=options.validation_windows,
                    batch_windows=options.batch_size,
                ),
                plan=TrainingPlan(
                    options.epochs,
                    rate,
                    options.batch_size,
                    options.patience,
                    weight_decay=options.weight_decay,
                    seed=context.seed,
                ),
                workspace=context.workspace / f"rate-{rate:g}",
                progress=context.progress,
                title=f"finetune at {rate:g}",
                keep_initial=True,
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
