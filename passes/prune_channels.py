"""Removes the coupled units that matter least, globally ranked (paper A).

    every mini-batch     s~ <- alpha * s + (1 - alpha) * s~          scores.py; weights are frozen
    every step           the rho / steps_per_epoch of the living units with the smallest s~ die:
                         about exp(-rho) of them survive an epoch; the dead never come back
    every epoch          a candidate: the living units, widths rounded up, sliced out and validated
    end                  the best candidate; the unpruned teacher is candidate 0

**Rounding.**  The kept width of an FFN, value, rotary or residual group is a multiple of ``round_to``, or
the width that it had: between two multiples the units that died last keep their place, since an unaligned
matrix is no faster.  Heads and experts are whole.  What is validated is what would be shipped.

**Floors.**  A group keeps its own floor (one head, one expert) and ``floor`` units of the other kinds.
With ``remove_branches`` a removable group may die whole; its output bias stays.

**Choice.**  The candidate with the lowest validation loss, or with ``tolerance`` the smallest one whose
loss is within that fraction of the lowest: fine-tuning comes after.  ``patience`` epochs without an
acceptable candidate end it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..compiler.base.errors import PassError, VerificationError
from ..compiler.base.parallel import Processes
from ..compiler.base.sealed import load_tensors, save_tensors, warn_damaged
from ..compiler.data.dataset import SpreadWindows
from ..compiler.ir.forecaster import Teacher, parameter_count
from ..compiler.ir.passes import PassContext, PassOptions, PassResult, TeacherPass
from ..compiler.ir.prunable import Group, Kind
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.cost import validation_mse
from .scores import Absolute, Order, Scores, mask_derivatives
from .surgery import slice_teacher, verify_structure

_WHOLE: tuple[Kind, ...] = ("head", "expert")
"""Kinds whose units are large: neither rounded nor kept by ``floor``."""

CHECKPOINT_SECONDS = 30.0


class PruneOptions(PassOptions):
    """Options of paper A.

    Attributes:
        rho: about ``1 - exp(-rho)`` of the units die in an epoch.
        epochs: at most this many.
        order: of the score's expansion.
        abs: where the absolute value is taken; ``after_ema`` is the released code's.
        scope: rank all units together, or those of each group apart.
        alpha: weight of the newest mini-batch in the moving average.
        accumulation: mini-batches per removal step.
        max_ratio: largest fraction of all units that may die; 0 is the identity.
        round_to: kept widths are multiples of it (8 for SIMD, 16 for tensor cores).
        floor: fewest units of a group that is not made of heads or experts.
        remove_branches: a removable branch may die whole.
        kinds: kinds of groups that may shrink; ``residual`` is not among the default ones.
        patience: epochs without an acceptable candidate.
        tolerance: accepted relative increase of the validation loss over the lowest one; 0 is the paper.
        batch_size: windows per mini-batch.
        score_windows: training windows per epoch, evenly spread; 0 for all.
        validation_windows: the same for validation.
    """

    rho: float = Field(default=0.1, ge=0)
    epochs: int = Field(default=10, ge=0)
    order: Order = 2
    abs: Absolute = "before_ema"
    scope: Literal["global", "per_layer"] = "global"
    alpha: float = Field(default=0.4, gt=0, le=1)
    accumulation: int = Field(default=1, ge=1)
    max_ratio: float = Field(default=0.9, ge=0, le=1)
    round_to: int = Field(default=8, ge=1)
    floor: int = Field(default=8, ge=1)
    remove_branches: bool = False
    kinds: tuple[Kind, ...] = ("ffn", "head", "value", "rotary", "expert")
    patience: int = Field(default=1, ge=1)
    tolerance: float = Field(default=0.02, ge=0)
    batch_size: int = Field(default=32, ge=1)
    score_windows: int = Field(default=4096, ge=0)
    validation_windows: int = Field(default=1024, ge=0)


class PruneChannels(TeacherPass):
    """Replaces the teacher by a smaller one."""

    name = "prune_channels"
    verb = "prune"
    writes = frozenset({"teacher", "tuned"})
    summary = "remove the coupled channels, heads and experts that matter least; really smaller shapes"
    Options = PruneOptions
    cacheable = True

    def requires(self, unit: CompileUnit) -> None:
        super().requires(unit)
        assert unit.teacher is not None
        if not unit.teacher.structure().groups:
            raise PassError(
                f"{type(unit.teacher).__name__} declares no prunable structure",
                hint="drop prune_channels from the pipeline, or choose another teacher",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.teacher is not None  # requires() ran
        options: PruneOptions = self.options
        if options.max_ratio == 0 or options.rho == 0 or options.epochs == 0:
            return PassResult(unit, False, {"removed_units": 0})
        verify_structure(copy.deepcopy(unit.teacher))  # it writes into weights and restores them
        search = _Search(unit, options, context)
        candidates = search.run()
        best = choose(candidates, options.tolerance)
        metrics = {
            "candidates": [candidate.describe() for candidate in candidates],
            "chosen": best.epoch,
            "parameters_before": candidates[0].parameters,
            "parameters": best.parameters,
            "validation_before": candidates[0].validation,
            "validation": best.validation,
            "removed_units": best.removed,
        }
        if not best.removed:
            return PassResult(unit, False, metrics)
        smaller = slice_teacher(unit.teacher, best.keep)
        return PassResult(unit.with_(teacher=smaller, tuned=True), True, metrics)


@dataclass(frozen=True)
class Candidate:
    """A pruned teacher that was validated: the kept units, its size and its loss."""

    epoch: int
    keep: Mapping[str, list[int]]
    removed: int
    parameters: int
    validation: float

    def describe(self) -> dict[str, float | int]:
        """For the record: everything but the units."""
        return {
            "epoch": self.epoch,
            "removed_units": self.removed,
            "parameters": self.parameters,
            "validation": self.validation,
        }


def choose(candidates: list[Candidate], tolerance: float) -> Candidate:
    """The smallest candidate whose loss is within ``tolerance`` of the lowest; ties go to the earlier one."""
    limit = min(candidate.validation for candidate in candidates) * (1 + tolerance)
    return min(
        (candidate for candidate in candidates if candidate.validation <= limit),
        key=lambda candidate: (
            (candidate.parameters, candidate.validation, candidate.epoch)
            if tolerance
            else (candidate.validation, candidate.parameters, candidate.epoch)
        ),
    )


def least_units(group: Group, options: PruneOptions) -> int:
    """How many units of a group have to live."""
    if group.kind not in options.kinds:
        return group.units
    if options.remove_branches and group.removable:
        return 0
    floor = group.floor if group.kind in _WHOLE else max(group.floor, options.floor)
    return min(floor, group.units)


def kept_units(group: Group, alive: Tensor, score: Tensor, options: PruneOptions) -> list[int]:
    """The units of a group that a candidate keeps: those alive, filled up to a legal width by the best dead.

    Args:
        alive: ``[units]`` bool.
        score: ``[units]``; a dead unit has the score that it died with.
    """
    living = int(alive.sum())
    step = 1 if group.kind in _WHOLE else options.round_to
    width = min(-(-living // step) * step, group.units)
    rank = torch.where(alive, math.inf, score)
    return sorted(torch.argsort(rank, descending=True, stable=True)[:width].tolist())


def removals(
    groups: Mapping[str, Group],
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    count: int,
    options: PruneOptions,
) -> Iterator[tuple[str, int]]:
    """The ``count`` units with the smallest scores that may die, as (group, unit), smallest first."""
    silent = _silenced(groups, scores, alive)
    pool = [name for name in groups if name not in silent]
    if not pool:
        return
    spare = {name: int(alive[name].sum()) - least_units(groups[name], options) for name in pool}
    where = [(name, unit) for name in pool for unit in range(groups[name].units)]
    values = torch.cat([scores[name].where(alive[name], math.inf) for name in pool])
    living = sum(int(alive[name].sum()) for name in pool)
    for index in torch.argsort(values, stable=True)[:living].tolist():
        if count <= 0:
            return
        name, unit = where[index]
        if spare[name] > 0:
            spare[name] -= 1
            count -= 1
            yield name, unit


def _silenced(
    groups: Mapping[str, Group], scores: Mapping[str, Tensor], alive: Mapping[str, Tensor]
) -> set[str]:
    """Groups inside a branch or an expert that died: their units leave with it and are not ranked.

    Their scores are all exactly 0, and another group with the same parameters has lost units.  A residual
    stream shares parameters with everything, so that its dims tell nothing.
    """
    hurt = {
        member.parameter: name
        for name, group in groups.items()
        if group.kind != "residual" and not bool(alive[name].all())
        for member in group.members
    }
    return {
        name
        for name, group in groups.items()
        if not bool(scores[name].any())
        and any(hurt.get(member.parameter, name) != name for member in group.members)
    }


@dataclass
class _State:
    """All that a resumed run needs."""

    alive: dict[str, Tensor]
    scores: Scores
    epoch: int = 0
    step: int = 0
    owed: dict[str, float] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes the checkpoint; the old one stays until the new one is complete.

        Several processes all do the same work, and the first of them writes.
        """
        if not Processes.current().is_main:
            return
        tensors = {f"alive.{name}": mask for name, mask in self.alive.items()}
        tensors |= {f"score.{name}": score.contiguous() for name, score in self.scores.average.items()}
        progress: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "owed": self.owed}
        progress["candidates"] = [vars(candidate) for candidate in self.candidates]
        save_tensors(path, tensors, progress)

    def resume(self, path: Path) -> None:
        """Reads the checkpoint, if there is one that was not damaged."""
        if not path.is_file():
            return
        try:
            tensors, progress = load_tensors(path, what="checkpoint of pruning", error=VerificationError)
        except VerificationError as error:
            warn_damaged(error.what)
            return
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            table = self.alive if kind == "alive" else self.scores.average
            table[name] = tensor
        self.epoch, self.step, self.owed = progress["epoch"], progress["step"], progress["owed"]
        self.candidates = [Candidate(**candidate) for candidate in progress["candidates"]]


class _Search:
    """The schedule of paper A over one teacher."""

    def __init__(self, unit: CompileUnit, options: PruneOptions, context: PassContext) -> None:
        assert unit.teacher is not None
        self.unit, self.options, self.context = unit, options, context
        self.teacher: Teacher = copy.deepcopy(unit.teacher).requires_grad_(False).eval()
        found = (group for group in self.teacher.structure().groups if group.units)
        self.groups = {group.name: group for group in found}
        self.prunable = {name: group for name, group in self.groups.items() if group.kind in options.kinds}
        self.total = sum(group.units for group in self.prunable.values())
        task = unit.task
        self.windows = SpreadWindows(
            unit.data.windows("train", task.lookback, task.horizon), options.score_windows
        )
        self.steps = math.ceil(len(self.windows) / options.batch_size)
        self.path = context.workspace / "prune.safetensors"
        self.state = _State(
            {name: torch.ones(group.units, dtype=torch.bool) for name, group in self.prunable.items()},
            Scores(options.order, options.abs, options.alpha),
        )

    def run(self) -> list[Candidate]:
        """All candidates, the unpruned teacher first."""
        self.state.resume(self.path)
        if not self.state.candidates:
            self._candidate()
        with self.context.progress.task("prune", self.options.epochs * self.steps) as task:
            task.advance(self.state.epoch * self.steps + self.state.step)
            while not self._done():
                saved = time.monotonic()
                for indices in list(self._batches())[self.state.step :]:
                    self._step(indices)
                    self.state.step += 1
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        self.state.save(self.path)
                        saved = time.monotonic()
                    task.advance(1, f"{self._alive()}/{self.total} units")
                self.state.epoch, self.state.step = self.state.epoch + 1, 0
                self._candidate()
                self.state.save(self.path)
        return self.state.candidates

    def _done(self) -> bool:
        history, options = self.state.candidates, self.options
        if self.state.epoch >= options.epochs or self._removable() == 0:
            return True
        chosen = choose(history, options.tolerance)
        # Rounding may leave a candidate as it was: that is no verdict.
        accepted = max(candidate.epoch for candidate in history if candidate.keep == chosen.keep)
        return self.state.epoch - accepted >= options.patience and self.state.step == 0

    def _alive(self) -> int:
        return sum(int(mask.sum()) for mask in self.state.alive.values())

    def _removable(self) -> int:
        """Units that may still die under ``max_ratio`` and the floors."""
        allowed = int(self.options.max_ratio * self.total) - (self.total - self._alive())
        spare = sum(
            int(self.state.alive[name].sum()) - least_units(group, self.options)
            for name, group in self.prunable.items()
        )
        return max(0, min(allowed, spare))

    def _batches(self) -> Iterator[list[int]]:
        """Shuffled by seed and epoch alone, so that a resumed run sees the same mini-batches."""
        generator = torch.Generator().manual_seed(self.context.seed * 100_003 + self.state.epoch)
        order = torch.randperm(len(self.windows), generator=generator).tolist()
        size = self.options.batch_size
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _step(self, indices: list[int]) -> None:
        """One mini-batch of scores, and a removal after every ``accumulation`` of them."""
        state, options = self.state, self.options
        past, target = self.windows.batch(indices)
        derivatives, _ = mask_derivatives(
            self.teacher, past, target, list(self.prunable.values()), alive=state.alive
        )
        state.scores.update(derivatives, state.alive)
        if (state.step + 1) % options.accumulation:
            return
        scores = state.scores.values()
        if options.scope == "global":
            self._remove("", self.prunable, scores)
        else:
            for name, group in self.prunable.items():
                self._remove(name, {name: group}, scores)

    def _remove(self, pool: str, groups: Mapping[str, Group], scores: Mapping[str, Tensor]) -> None:
        """Lets the share of this step die out of ``groups``; fractions are carried over."""
        state, options = self.state, self.options
        living = sum(int(state.alive[name].sum()) for name in groups)
        owed = state.owed.get(pool, 0.0) + options.rho * options.accumulation / self.steps * living
        count = min(int(owed), self._removable())
        state.owed[pool] = owed - int(owed)
        for name, unit in list(removals(groups, scores, state.alive, count, options)):
            state.alive[name][unit] = False

    def _candidate(self) -> None:
        """Slices out what lives, validates it and notes it."""
        state, options = self.state, self.options
        scores = state.scores.values()
        keep = {
            name: kept_units(group, state.alive[name], scores[name], options)
            for name, group in self.prunable.items()
            if not bool(state.alive[name].all())
        }
        keep = {name: units for name, units in keep.items() if len(units) < self.groups[name].units}
        pruned = slice_teacher(self.teacher, keep)
        candidate = Candidate(
            epoch=state.epoch,
            keep=keep,
            removed=sum(self.groups[name].units - len(units) for name, units in keep.items()),
            parameters=parameter_count(pruned),
            validation=validation_mse(
                pruned, self.unit, windows=options.validation_windows, batch_windows=options.batch_size
            ),
        )
        state.candidates.append(candidate)
        self.context.progress.line(
            f"    epoch {state.epoch}: {self._alive()}/{self.total} units live, "
            f"{candidate.parameters} parameters, validation {candidate.validation:.4f}"
        )
