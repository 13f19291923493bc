"""The one training loop, shared by ``distill`` and ``finetune``.

It trains whatever module returns a loss, through accelerate (so that ``accelerate launch`` runs it on
several processes), chooses the best epoch on validation, restores that state by value, and leaves a
checkpoint after every epoch so that a killed run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ..base.errors import VerificationError
from ..base.progress import Progress
from ..base.sealed import load_tensors, save_tensors, warn_damaged

Fetch = Callable[[Sequence[int]], tuple[Tensor, ...]]
"""Window indices to the tensors of one training batch."""


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    ``patience`` epochs without a better validation loss end it.  ``averaging`` > 0 judges and keeps an
    exponential average of the weights with that decay per step, instead of the weights themselves: the
    noise of a small batch then neither ends the training early nor stays in the result.  The decay warms up
    as (1 + t) / (10 + t) over steps t, so that the average forgets where training started.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    patience: int
    weight_decay: float = 0.0
    averaging: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """What came out: validation loss per epoch (entry 0 is before training) and the epoch restored."""

    validation: tuple[float, ...]
    training: tuple[Mapping[str, float], ...]
    best_epoch: int

    @property
    def best(self) -> float:
        """Validation loss of the restored state."""
        return self.validation[self.best_epoch]


class _Indices(Dataset[Any]):
    """Gives whole batches at once: one read of the memory-mapped arrays per batch."""

    def __init__(self, count: int, fetch: Fetch) -> None:
        self.count, self.fetch = count, fetch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.fetch([index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return self.fetch(indices)


class _EpochBatches(Sampler[list[int]]):
    """Shuffled batches that depend on seed and epoch alone, so that a resumed run sees the same ones."""

    drop_last = False

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size]


def _as_is(batch: Any) -> Any:
    return batch


def train(
    step: nn.Module,
    *,
    windows: int,
    fetch: Fetch,
    validate: Callable[[], float],
    plan: TrainingPlan,
    workspace: Path | None,
    progress: Progress,
    title: str,
    keep_initial: bool = False,
    judge: str = "validation",
) -> TrainingResult:
    """Trains ``step`` in place and restores its best state by value.

    Args:
        step: ``step(*batch) -> {name: loss}``; the entry ``"loss"`` is minimised.
        windows: number of training windows; ``fetch`` takes indices below it.
        validate: validation loss of the state as it is; called in eval mode under no gradient.
        workspace: folder of the checkpoint; None for a training of seconds, which keeps none.
        keep_initial: the untrained state is a candidate too.
        judge: what ``validate`` gives, for the line of an epoch.

    Returns:
        losses per epoch and the epoch whose state ``step`` now has.
    """
    from accelerate import Accelerator, DataLoaderConfiguration

    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    batches = _EpochBatches(windows, plan.batch_size, plan.seed)
    loader = DataLoader(_Indices(windows, fetch), batch_sampler=batches, collate_fn=_as_is)
    optimizer = torch.optim.AdamW(
        [p for p in step.parameters() if p.requires_grad],
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
    )
    wrapped, optimizer, loader = accelerator.prepare(step, optimizer, loader)
    module: nn.Module = accelerator.unwrap_model(wrapped)

    state = _State(workspace and workspace / "training.safetensors", module, optimizer)
    if not state.resume():
        state.record(_validation(module, validate), {}, keep=keep_initial)
    patience_left = state.patience_left(plan.patience)
    with progress.task(title, plan.epochs * len(batches)) as task:
        task.advance(state.epoch * len(batches))
        while state.epoch < plan.epochs and patience_left > 0:
            batches.epoch = state.epoch
            # Dropout draws from the epoch's own stream: a resumed run is the run that was not killed.
            torch.manual_seed(plan.seed * 100_003 + state.epoch)
            wrapped.train()
            totals: dict[str, float] = {}
            for batch in loader:
                losses = wrapped(*batch)
                optimizer.zero_grad()
                accelerator.backward(losses["loss"])
                optimizer.step()
                state.average(plan.averaging)
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + float(value.detach())
                task.advance(1)
            mean = {name: total / len(batches) for name, total in totals.items()}
            with state.averaged():
                state.record(_validation(module, validate), mean)
            if accelerator.is_main_process:
                state.save()
            accelerator.wait_for_everyone()
            patience_left = state.patience_left(plan.patience)
            progress.line(
                f"    epoch {state.epoch}: train {mean['loss']:.4f}  {judge} {state.validation[-1]:.4f}"
            )
    state.restore_best()
    step.cpu().eval()
    return TrainingResult(tuple(state.validation), tuple(state.training), state.best_epoch)


@torch.no_grad()
def _validation(module: nn.Module, validate: Callable[[], float]) -> float:
    module.eval()
    return validate()


class _State:
    """Everything that a resumed run needs, in one safetensors file: weights, best weights, Adam, history."""

    def __init__(self, path: Path | None, module: nn.Module, optimizer: Any) -> None:
        self.path, self.module, self.optimizer = path, module, optimizer
        self.validation: list[float] = []
        self.training: list[Mapping[str, float]] = []
        self.best_epoch = -1
        self.best: dict[str, Tensor] = {}
        self.mean: dict[str, Tensor] = {}
        self.steps = 0

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.validation) - 1

    def patience_left(self, patience: int) -> int:
        """Epochs that may still go by without a better one."""
        return patience - (self.epoch - max(self.best_epoch, 0))

    def record(self, validation: float, training: Mapping[str, float], keep: bool = True) -> None:
        """Notes the losses of an epoch and keeps its weights when they are the best so far."""
        self.validation.append(validation)
        if training:
            self.training.append(training)
        if keep and (self.best_epoch < 0 or validation < self.validation[self.best_epoch]):
            self.best_epoch = self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Moves the averaged weights a step towards the present ones; nothing for ``decay = 0``."""
        if decay == 0:
            return
        self.steps += 1
        decay = min(decay, (1 + self.steps) / (10 + self.steps))
        if not self.mean:
            self.mean = {name: tensor.detach().clone() for name, tensor in self.module.named_parameters()}
        for name, tensor in self.module.named_parameters():
            self.mean[name].lerp_(tensor, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the module has its averaged weights, when there are any."""
        now = {name: self.module.get_parameter(name).detach().clone() for name in self.mean}
        self._put(self.mean)
        yield
        self._put(now)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in values.items():
            self.module.get_parameter(name).copy_(tensor)

    def restore_best(self) -> None:
        """Puts the best weights back, by value."""
        if self.best:
            self.module.load_state_dict(self.best, strict=True)

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is complete."""
        if self.path is None:
            return
        tensors = {f"now.{n}": t.detach().clone() for n, t in self.module.state_dict().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        tensors |= {f"mean.{n}": t for n, t in self.mean.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{slot}": t.detach().clone() for slot, t in slots.items()}
        history = {
            "validation": self.validation,
            "training": self.training,
            "best_epoch": self.best_epoch,
            "steps": self.steps,
        }
        save_tensors(self.path, tensors, history)

    def resume(self) -> bool:
        """Reads the checkpoint, if there is one that was not damaged."""
        if self.path is None or not self.path.is_file():
            return False
        try:
            tensors, history = load_tensors(self.path, what="checkpoint of training", error=VerificationError)
        except VerificationError as error:
            warn_damaged(error.what)
            return False
        self.module.load_state_dict(
            {n[4:]: t for n, t in tensors.items() if n.startswith("now.")}, strict=True
        )
        self.best = {n[5:]: t for n, t in tensors.items() if n.startswith("best.")}
        self.mean = {n[5:]: t for n, t in tensors.items() if n.startswith("mean.")}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, slot = name.split(".", 2)
                slots.setdefault(int(index), {})[slot] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.validation, self.training = history["validation"], history["training"]
        self.best_epoch, self.steps = history["best_epoch"], history["steps"]
        return True
