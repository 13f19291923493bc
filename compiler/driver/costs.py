"""What a compile would cost in time, memory and disk: estimates, each with the formula that it comes from.

With T rows, D variates, N windows of all parts, lookback L and horizon H

    read    8 T (D + 1) bytes of disk; T D numbers at the speed of reading
    label   2 P L / p operations a series and window for a teacher of P parameters and patches of p steps;
            4 N D H bytes of disk for its forecasts
    solve   2 N D (L + H) L operations for the sums, 8 (L + H + 1)^2 bytes for each kind of them
    measure what the recipe says

A machine's operations a second are those of a multiplication of matrices, measured here and now, times a
share that such work reaches.  An estimate of time is good to a factor of about three.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.errors import TsfmcError, UsageError
from ..base.reading import read_json
from ..data import PARTS
from ..data.sources import KNOWN
from ..data.splits import Part, resolve_split
from ..data.survey import Survey
from ..frontends.header import read_headers
from .recipe import Recipe

READ_NUMBERS_PER_S = 2e6
"""CSV text to checked numbers on one core, by the benchmark of a million rows."""
REACHED = 0.3
"""Of the operations a second of a large multiplication, by labelling ETTh1 and ETTm1 with TTM."""
STEPS_PER_PATCH = 16
"""Of a teacher whose configuration does not say it."""
RUNTIME_BYTES = 700_000_000
"""Of Python with torch before any data."""
STATISTICS = 8
"""Matrices of sums that are held at one time: parts, weights and priors."""


@dataclass(frozen=True)
class Cost:
    """One stage: seconds (None where unknown), bytes held and written, and what the figures rest on."""

    stage: str
    seconds: float | None
    memory_bytes: int
    disk_bytes: int
    basis: str


def estimate(found: Survey, recipe: Recipe, *, label: bool = True) -> list[Cost]:
    """The stages of compiling ``recipe`` on data that were looked at; none for data that cannot be read.

    Args:
        label: with what its teacher costs.

    Raises:
        DataError: the split needs more rows than there are.
    """
    if not found.readable:
        return []
    rows, width = found.rows, len(found.variates)
    known = KNOWN.get(found.name.lower())
    splits = resolve_split(recipe.task.split, rows, found.name, known.borders if known else None)
    windows = {part: max(0, splits.window_count(part, *_shape(recipe))) for part in PARTS}
    speed = operations_per_second()
    reading = Cost(
        "read",
        rows * width / READ_NUMBERS_PER_S,
        100_000_000,
        8 * rows * (width + 1),
        f"{rows * width:,} numbers at {READ_NUMBERS_PER_S:,.0f} a second; kept in the cache",
    )
    teachers = recipe.teacher if label else ()
    teaching = [_label(recipe, teacher, windows, width, speed) for teacher in teachers]
    return [reading, *teaching, _solve(recipe, windows, width, speed), _measure(recipe)]


def operations_per_second() -> float:
    """Floating-point operations a second of one thread's multiplication of matrices, the best of a few."""
    size = 512
    one = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _label(recipe: Recipe, teacher: str, windows: Mapping[Part, int], width: int, speed: float) -> Cost:
    count = sum(windows.values())
    disk = 4 * count * width * recipe.task.horizon
    if recipe.teacher_store is not None:
        return Cost("label", 0.0, 0, 0, "the teacher store is there")
    known = _teacher_size(teacher)
    if known is None:
        return Cost("label", None, 0, disk, f"the size of {teacher} is known once its weights are here")
    parameters, patch = known
    operations = 2.0 * parameters * recipe.task.lookback / patch * count * width
    return Cost(
        "label",
        operations / (REACHED * speed),
        4 * parameters + 256_000_000,
        disk,
        f"{count:,} windows of {width} variates, {parameters:,} parameters, patches of {patch}; "
        f"{REACHED:.0%} of the {speed / 1e9:.0f} GFLOP/s that this machine multiplies at",
    )


def _solve(recipe: Recipe, windows: Mapping[Part, int], width: int, speed: float) -> Cost:
    lookback, horizon = _shape(recipe)
    total = lookback + horizon + 1
    operations = 2.0 * windows["train"] * width * total * lookback
    return Cost(
        "solve",
        operations / (REACHED * speed),
        STATISTICS * 8 * total**2,
        8 * 8 * total**2,
        f"sums over {windows['train']:,} training windows of {width} variates; a student by SGD takes longer",
    )


def _measure(recipe: Recipe) -> Cost:
    targets = len(recipe.targets)
    payload = 4 * recipe.task.lookback * recipe.task.horizon
    return Cost(
        "measure",
        2 * recipe.measure.duration_s * targets,
        0,
        targets * (2_000_000 + payload),
        f"measure.duration_s = {recipe.measure.duration_s:g}, {targets} target(s), artifact and teacher",
    )


def _shape(recipe: Recipe) -> tuple[int, int]:
    return recipe.task.lookback, recipe.task.horizon


def _teacher_size(teacher: str) -> tuple[int, int] | None:
    """Parameters of a teacher whose weights are in a directory, and its patch length."""
    folder = Path(teacher)
    if not folder.is_dir():
        return None
    try:
        tensors = read_headers(sorted(folder.glob("*.safetensors")))
        config = read_json(folder / "config.json", what="configuration of a teacher", error=UsageError)
    except TsfmcError:
        return None
    patch = next(
        (config[name] for name in ("patch_length", "patch_size", "patch_len") if config.get(name)), 0
    )
    parameters = sum(entry.numbers for entry in tensors.values())
    return (
        (parameters, patch if isinstance(patch, int) and patch > 0 else STEPS_PER_PATCH)
        if parameters
        else None
    )


def total(costs: Sequence[Cost]) -> Cost:
    """Of all stages: their times and disk added, the largest memory beside the runtime."""
    seconds = [cost.seconds for cost in costs]
    return Cost(
        "in all",
        None if None in seconds else sum(each for each in seconds if each is not None),
        RUNTIME_BYTES + max((cost.memory_bytes for cost in costs), default=0),
        sum(cost.disk_bytes for cost in costs),
        "times to a factor of about three; memory with the runtime",
    )
