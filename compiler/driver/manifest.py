"""What the manifest of an artifact says about it: task, provenance, passes, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...targets.base import TaskFacts
from ...targets.measure.host import host_record
from ..base.errors import UsageError
from ..data.reading import reading_fields
from ..data.timeline import step_seconds
from ..ir.companions import FIRST
from ..ir.forecaster import nonzero_count, parameter_count
from ..ir.provenance import TeacherInfo
from ..ir.unit import CompileUnit, Task
from .build import Build, Job
from .fleets import program_scale, program_variates
from .quantiles import quantile_part
from .verdict import accuracy_part


def manifest_fields(unit: CompileUnit, build: Build, job: Job) -> dict[str, Any]:
    """The manifest but for files, sizes and self-test, which are known when the artifact is sealed."""
    _, payload = build.lowered
    task, data, info = unit.task, unit.data, unit.teacher_info
    if info is None:
        raise ValueError("the unit has no provenance of its teacher")
    # The first teacher as it was loaded, which may stand beside itself once it is tuned, is no further one.
    others = [each for each in unit.companions if each.name != FIRST]
    further = [{"as": each.name, **provenance(each.info, data.overlap_name)} for each in others]
    rows = {**unit.accuracy, **build.accuracy}
    counts = {part: len(data.windows(part, task.lookback, task.horizon)) for part in ("train", "val", "test")}
    return {
        "target": {"kind": build.kind, "entry": payload.entry, **payload.details},
        "task": {
            "lookback": task.lookback,
            "horizon": task.horizon,
            "variates": list(program_variates(unit)),
            "frequency": task.frequency,
            "step_seconds": step_seconds(task.frequency),
            **reading_fields(job.recipe.reading),
            **quantile_fields(task),
            **input_fields(unit),
        },
        "input": dict(zip(("mean", "std"), program_scale(unit), strict=True)),
        "teacher": provenance(info, data.overlap_name),
        **({"further_teachers": further} if further else {}),
        "student": {
            "name": job.recipe.student.kind,
            "parameters": parameter_count(unit.shipped),
            "nonzero_parameters": nonzero_count(unit.shipped),
            "config": dict(unit.model.config),
        },
        "data": {
            "name": data.name,
            "sha256": data.sha256,
            "split": str(data.splits),
            "filled": asdict(data.filled),
            "windows": counts,
        },
        "passes": [
            {
                "name": entry.name,
                "config": dict(entry.config),
                "modified": entry.modified,
                "cached": entry.cached,
                "seconds": round(entry.seconds, 3),
                "metrics": dict(entry.metrics),
            }
            for entry in unit.record
        ],
        "parity": build.parity and dict(build.parity),
        "accuracy": {**accuracy_part(rows, unit), **_quantile_rows(unit, build)},
        "latency": build.latency,
        "level": "executed" if build.parity is not None and payload.level == "exported" else payload.level,
        "runtime_requirements": [*job.target.runtime_requirements, *payload.requires],
        "environment": host_record()["packages"],
        "licence": licence_of([info, *(each.info for each in others)]),
        **unit.facts,
    }


def _quantile_rows(unit: CompileUnit, build: Build) -> dict[str, Any]:
    part = quantile_part({**unit.quantile_accuracy, **build.quantiles}, unit)
    return {"quantiles": part} if part else {}


def quantile_fields(task: Task) -> dict[str, Any]:
    """What a step's numbers are: with levels its quantiles, the median among them; else its mean."""
    if not task.quantile_levels:
        return {"point": "mean"}
    return {"quantile_levels": list(task.quantile_levels), "point": "median"}


def input_fields(unit: CompileUnit) -> dict[str, Any]:
    """What stands in a row behind the lookback, where anything does."""
    groups = unit.shipped.inputs
    return {"inputs": [asdict(group) for group in groups]} if groups else {}


def provenance(info: TeacherInfo, data: str) -> dict[str, Any]:
    """Where a teacher comes from.

    Args:
        data: what the data are known as.
    """
    return {
        "name": info.name,
        "family": info.family,
        "parameters": info.parameters,
        "sha256": info.sha256,
        "licence": info.licence,
        "source": info.source,
        "revision": info.revision or None,
        "commit": info.commit or None,
        "pretraining_overlap": overlap_with(info, data),
    }


def licence_of(infos: Sequence[TeacherInfo]) -> dict[str, Any]:
    """What follows from the licences of all teachers, whatever share of the mix each one got: all took part
    in choosing it."""
    spdx = " AND ".join(dict.fromkeys(info.licence for info in infos))
    limited = list(dict.fromkeys(info.licence for info in infos if not info.commercial))
    warning = f"distilled from weights under {' and '.join(limited)}" if limited else None
    return {"spdx": spdx, "commercial": not limited, "warning": warning}


def task_facts(unit: CompileUnit, missing: str) -> TaskFacts:
    """What a payload may hold of the task; ``missing`` is the recipe's policy."""
    task = unit.task
    return TaskFacts(
        variates=program_variates(unit),
        frequency=task.frequency,
        step_seconds=step_seconds(task.frequency),
        missing=missing,
        mean=tuple(program_scale(unit)[0]),
        std=tuple(program_scale(unit)[1]),
        licence=unit.teacher_info.licence if unit.teacher_info else None,
        quantile_levels=task.quantile_levels,
        inputs=tuple(asdict(group) for group in unit.shipped.inputs),
    )


def overlap_with(info: TeacherInfo, data: str) -> str:
    """Whether the teacher's pre-training may have seen ``data``: yes, no or unknown."""
    from ..frontends import find_card

    try:
        return str(find_card(info.name).overlap.get(data, "unknown"))
    except UsageError:
        return str(info.pretraining_overlap)
