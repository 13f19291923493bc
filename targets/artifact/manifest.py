"""``manifest.json`` as it is written: strict models, and the one check that both directions pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...compiler.base.errors import VerificationError
from .device.errors import ArtifactError
from .device.manifest import MANIFEST, MAX_STEPS, SCHEMA, checked_manifest


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class TargetPart(_Part):
    """``entry`` is the file the engine loads."""

    kind: str
    entry: str


class TaskPart(_Part):
    """What is forecast.

    ``step_seconds`` is None where a step has no fixed length (months); ``missing`` is what the compile did
    with empty cells and missing rows, and what a forecast does unless it is told otherwise; so are the other
    fields of a reading (``compiler/data/reading.py``), absent where they are as usual.  A point
    forecast is the mean, or where there are ``quantile_levels`` the ``median``.
    """

    lookback: int = Field(ge=1, le=MAX_STEPS)
    horizon: int = Field(ge=1, le=MAX_STEPS)
    variates: tuple[str, ...] = Field(min_length=1)
    frequency: str | None = None
    step_seconds: float | None = Field(default=None, gt=0)
    missing: Literal["error", "ffill", "interpolate"] = "error"
    quantile_levels: tuple[float, ...] | None = None
    point: Literal["mean", "median"] = "mean"
    inputs: tuple[dict[str, Any], ...] | None = None
    duplicates: Literal["error", "mean", "first"] = "error"
    sort: bool = False
    zone: str = ""
    data_format: dict[str, str] = Field(default_factory=dict)


class InputPart(_Part):
    """Scaling, one number a variate: the engine sees ``(past - mean) / std``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SelftestPart(_Part):
    """``tolerance`` as in ``targets/measure/parity.py``."""

    tolerance: float = Field(gt=0, lt=1)


class FilePart(_Part):
    """Size and hash of one file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LicencePart(_Part):
    """What follows from the teacher's licence; ``commercial`` is None when unknown."""

    spdx: str
    commercial: bool | None = None
    warning: str | None = None


class Manifest(BaseModel):
    """``manifest.json``.  A field that was not measured is absent or null, never zero."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    schema_number: int = Field(default=SCHEMA, alias="schema")
    tsfmc: str | None = None
    target: TargetPart
    task: TaskPart
    input: InputPart
    level: str
    selftest: SelftestPart
    files: dict[str, FilePart] = Field(default_factory=dict)
    size: dict[str, int] = Field(default_factory=dict)
    teacher: dict[str, Any] | None = None
    further_teachers: list[dict[str, Any]] | None = None
    student: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    passes: list[dict[str, Any]] | None = None
    parity: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    statistics: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    updated: dict[str, Any] | None = None
    fleet: dict[str, Any] | None = None
    fleet_member: dict[str, Any] | None = None
    cold_start: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    licence: LicencePart | None = None
    runtime_requirements: tuple[str, ...] = ()


def validate(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as JSON has them.

    Raises:
        VerificationError: names the field that is missing, unknown or of a wrong type.
    """
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(
            f"{MANIFEST} field {where}: {first['msg']}, got {str(first['input'])[:60]!r}"
        ) from None
    found = manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)
    try:
        return checked_manifest({"files": {}, **found})
    except ArtifactError as error:
        raise VerificationError(str(error)) from None


def plain(value: Any, where: str = "") -> Any:
    """``value`` as JSON has it: lists for tuples and arrays, Python numbers for those of numpy, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}.{place}") for place, item in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise VerificationError(
            f"{MANIFEST} field {where.lstrip('.')}: expected a finite number, got {value}"
        )
    return value
