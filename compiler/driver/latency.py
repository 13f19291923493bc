"""Latency of artifact and teacher by the one rule, on windows of the unit's own data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...targets.base import Engine
from ...targets.forms import Model, Skipped, prepare
from ...targets.measure.host import host_record
from ...targets.measure.latency import Candidate, LatencyReport, measure_each
from ..base.errors import UsageError
from ..data import Part
from ..ir.unit import CompileUnit
from .fleets import fleet_of, program_windows
from .recipe import Recipe

WINDOWS = 64
ARTIFACT = "artifact"
CHANGED = "changed "
"""Before the form's name: the teacher as pruning and fine-tuning left it."""
Scenarios = dict[str, dict[str, Any]]


class TeacherForms:
    """The teacher's forms, prepared once for all targets of a compile."""

    def __init__(self) -> None:
        self._models: dict[int, Model] = {}
        self._forms: dict[tuple[int, str, int], Candidate | Skipped] = {}

    def of(
        self, unit: CompileUnit, windows: np.ndarray, recipe: Recipe
    ) -> tuple[dict[str, Candidate], dict[str, str]]:
        """Those that run here, and why the others do not; nothing of a unit without its teacher."""
        prepared = {}
        for prefix, model in self._of_unit(unit, windows):
            for form in recipe.measure.teacher_forms:
                key = (id(model), form, recipe.threads)
                if key not in self._forms:
                    self._forms[key] = prepare(form, model, recipe.threads)
                prepared[prefix + form] = self._forms[key]
        return split_forms(prepared)

    def onnx_file(self, unit: CompileUnit, windows: np.ndarray) -> bytes:
        """The teacher as it was loaded, as ONNX.

        Raises:
            UsageError: the unit has no teacher.
            LoweringError: it has no ONNX form.
        """
        for _, model in self._of_unit(unit, windows):
            return model.onnx_file()
        raise UsageError("--with-teacher needs the teacher itself, not its store", hint="give --teacher")

    def _of_unit(self, unit: CompileUnit, windows: np.ndarray) -> Iterator[tuple[str, Model]]:
        """The teacher as it was loaded, and as passes left it where that is not what is lowered."""
        original = unit.original_teacher or unit.teacher
        if original is None or (fleet_of(unit) is not None and unit.teacher_store is None):
            return
        yield "", self._models.setdefault(id(original), Model(original, windows))
        if unit.teacher is not None and unit.teacher is not original and unit.student is not None:
            yield CHANGED, self._models.setdefault(id(unit.teacher), Model(unit.teacher, windows))


def split_forms(
    prepared: Mapping[str, Candidate | Skipped],
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Forms that run, and reasons of those that do not."""
    running = {name: form for name, form in prepared.items() if isinstance(form, Candidate)}
    skipped = {name: form.reason for name, form in prepared.items() if isinstance(form, Skipped)}
    return running, skipped


def rotation(unit: CompileUnit, part: Part = "test") -> np.ndarray:
    """The rows that calls rotate over: ``[64, D, L]``, evenly spread, with inputs ``[64, D, L + E]``."""
    return program_windows(unit, part, WINDOWS)


def artifact_latency(
    recipe: Recipe, unit: CompileUnit, engine: Engine, precision: str, teacher: TeacherForms
) -> dict[str, Any]:
    """Artifact and teacher (the one that was loaded, and the one that passes made), in one run."""
    rows, lookback = rotation(unit), unit.task.lookback
    forms, skipped = teacher.of(unit, np.ascontiguousarray(rows[..., :lookback]), recipe)
    if rows.shape[-1] > lookback:
        forms = {name: of_window(form, lookback) for name, form in forms.items()}
    reports = _measure(recipe, {ARTIFACT: engine_candidate(engine), **forms}, rows, precision)
    return latency_record(
        {name: report.record(ARTIFACT, list(forms), skipped) for name, report in reports.items()}
    )


def teacher_latency(recipe: Recipe, unit: CompileUnit) -> dict[str, Any]:
    """The teacher's own latency record, for a store that is used without the teacher.

    Raises:
        UsageError: the unit has no teacher.
    """
    if unit.teacher is None:
        raise UsageError("a teacher store is written from a teacher", hint="give --teacher")
    windows = rotation(unit, "train")
    forms, skipped = TeacherForms().of(unit, windows, recipe)
    reports = _measure(recipe, forms, windows, "fp32")
    return latency_record(
        {name: report.record(None, list(forms), skipped) for name, report in reports.items()}
    )


def latency_record(scenarios: Scenarios) -> dict[str, Any]:
    """What a manifest has under ``latency``: every scenario by name, and the machine."""
    return {"scenarios": scenarios, "host": host_record()}


def of_window(form: Candidate, lookback: int) -> Candidate:
    """A form of the teacher, which has no inputs, on rows; cutting them is some microseconds of its time."""
    return Candidate(lambda row: form.call(np.ascontiguousarray(row[..., :lookback])), form.form, form.waits)


def engine_candidate(engine: Engine) -> Candidate:
    """An artifact's engine; one that hands its work to another device says so by ``waits``."""
    return Candidate(engine, waits=bool(getattr(engine, "waits", False)))


def _measure(
    recipe: Recipe, candidates: Mapping[str, Candidate], windows: np.ndarray, precision: str
) -> dict[str, LatencyReport]:
    return measure_each(
        candidates,
        windows,
        threads=recipe.threads,
        duration_s=recipe.measure.duration_s,
        min_queries=recipe.measure.min_queries,
        evict_mib=recipe.measure.evict_mib,
        precision=precision,
    )
