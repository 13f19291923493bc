"""Drops the experts of a mixture that hardly any token is routed to (paper A, before its channels).

    f[e] = tokens of the training windows that choose expert e / (tokens * top-k)        sum_e f[e] = 1
    drop e where f[e] < threshold, but keep top-k experts of every layer

The softmax then runs over the survivors.  A threshold of 0 changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..compiler.data.dataset import SpreadWindows
from ..compiler.ir.forecaster import Teacher, parameter_count
from ..compiler.ir.passes import PassContext, PassOptions, PassResult, TeacherPass
from ..compiler.ir.prunable import Group
from ..compiler.ir.unit import CompileUnit
from .surgery import slice_teacher


class RareExpertOptions(PassOptions):
    """Options.

    Attributes:
        threshold: smallest share of the routed tokens an expert of a layer may have (the paper: .001 to .1).
        windows: training windows the routing is counted on, evenly spread; 0 for all.
        batch_size: windows per forward pass.
    """

    threshold: float = Field(default=0.01, ge=0, lt=1)
    windows: int = Field(default=256, ge=0)
    batch_size: int = Field(default=8, ge=1)


class DropRareExperts(TeacherPass):
    """Replaces a mixture-of-experts teacher by one without its rare experts; others stay as they are."""

    name = "drop_rare_experts"
    verb = "drop experts of"
    summary = "drop the experts that hardly any token of this data is routed to"
    Options = RareExpertOptions
    cacheable = True

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.teacher is not None  # requires() ran
        teacher, options, task = unit.teacher, self.options, unit.task
        mixtures = [group for group in teacher.structure().groups if group.kind == "expert"]
        if not mixtures:
            return PassResult(unit, False, {"removed_experts": 0})
        windows = SpreadWindows(unit.data.windows("train", task.lookback, task.horizon), options.windows)
        counts = {group.name: torch.zeros(group.units, dtype=torch.long) for group in mixtures}
        starts = range(0, len(windows), options.batch_size)
        with (
            counting(teacher, mixtures, counts),
            torch.inference_mode(),
            context.progress.task("count routed tokens", len(starts)) as progress,
        ):
            for start in starts:
                teacher(windows.batch(range(start, min(start + options.batch_size, len(windows))))[0])
                progress.advance()
        keep = {
            group.name: frequent_experts(group, counts[group.name], options.threshold) for group in mixtures
        }
        keep = {group.name: keep[group.name] for group in mixtures if len(keep[group.name]) < group.units}
        shares = {name: [round(share, 5) for share in shares_of(count)] for name, count in counts.items()}
        removed = sum(group.units - len(keep[group.name]) for group in mixtures if group.name in keep)
        metrics = {"removed_experts": removed, "parameters_before": parameter_count(teacher), "share": shares}
        if not keep:
            return PassResult(unit, False, {**metrics, "parameters": parameter_count(teacher)})
        smaller = slice_teacher(teacher, keep).eval()
        metrics["parameters"] = parameter_count(smaller)
        return PassResult(unit.with_(teacher=smaller), True, metrics)


def shares_of(counts: Tensor) -> list[float]:
    """Counts as fractions of their sum."""
    total = max(int(counts.sum()), 1)
    return [int(count) / total for count in counts]


def frequent_experts(group: Group, counts: Tensor, threshold: float) -> list[int]:
    """Positions of the experts that stay: those above ``threshold``, and at least the ``chosen`` busiest."""
    busiest = set(counts.argsort(descending=True, stable=True)[: group.chosen].tolist())
    return [at for at, share in enumerate(shares_of(counts)) if share >= threshold or at in busiest]


@contextmanager
def counting(teacher: Teacher, mixtures: Sequence[Group], counts: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, calls of ``teacher`` add the tokens that each expert gets to ``counts[group] [experts]``."""

    def count(group: Group, module: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        chosen = logits.reshape(-1, group.units).topk(group.chosen, dim=-1).indices
        counts[group.name].add_(torch.bincount(chosen.flatten(), minlength=group.units))

    with ExitStack() as stack:
        for group in mixtures:
            router = teacher.get_submodule(group.taps[0].module)
            stack.callback(router.register_forward_hook(partial(count, group)).remove)
        yield
