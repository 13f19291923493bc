"""Latency of artifact and teacher by the one rule, on windows of the unit's own data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...targets.base import Engine
from ...targets.measure.latency import measure, torch_candidate
from ..base.errors import UsageError
from ..data import Part
from ..ir.unit import CompileUnit
from .recipe import Recipe

WINDOWS = 64
TEACHER_FORM = "fp32, PyTorch eager, inference_mode, forecast only"


def rotation(unit: CompileUnit, part: Part = "test") -> np.ndarray:
    """The windows that calls rotate over: ``[64, D, L]``, evenly spread."""
    return unit.data.windows(part, unit.task.lookback, unit.task.horizon).spread(WINDOWS)


def artifact_latency(recipe: Recipe, unit: CompileUnit, engine: Engine, precision: str) -> dict[str, Any]:
    """Artifact and teacher (the one that was loaded), interleaved in one run."""
    candidates: dict[str, Callable[[np.ndarray], Any]] = {"artifact": engine}
    original = unit.original_teacher or unit.teacher
    if original is not None:
        candidates["teacher"] = torch_candidate(original)
    report = measure(
        candidates,
        rotation(unit),
        threads=recipe.threads,
        duration_s=recipe.measure.duration_s,
        min_queries=recipe.measure.min_queries,
        precision=precision,
        forms={"teacher": TEACHER_FORM},
    )
    return report.to_manifest()


def teacher_latency(recipe: Recipe, unit: CompileUnit) -> dict[str, Any]:
    """The teacher's own latency record, for a store that is used without the teacher.

    Raises:
        UsageError: the unit has no teacher.
    """
    if unit.teacher is None:
        raise UsageError("a teacher store is written from a teacher", hint="give --teacher")
    report = measure(
        {"teacher": torch_candidate(unit.teacher)},
        rotation(unit, "train"),
        threads=recipe.threads,
        duration_s=recipe.measure.duration_s,
        min_queries=64,
        forms={"teacher": TEACHER_FORM},
    )
    return report.to_manifest()
