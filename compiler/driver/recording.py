"""``bench --record``: what a device measured becomes part of its artifact's manifest.

The file was written by the artifact's own ``run.py``, or by the static program of ``package --layout bench``,
and carried here by a person, so it proves nothing: it is checked for whether it can be true of this artifact.

    binding        the payload that was measured is this one, by its hashes
    parity         the device's self-test passed, at this artifact's tolerance
    plausibility   figures are finite and in order, a ratio agrees with the medians it is of, its interval
                   holds it, and the machine is the one that the program was made for

Under an emulator everything but the times is what it is on the device: the record says that the artifact
computes there what it should, and none of its times goes into the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ...targets.artifact.device.bench import listed_payload
from ...targets.artifact.device.check import read_sums
from ...targets.artifact.open import check_artifact, joined, read_manifest
from ...targets.artifact.write import replace_manifest
from ..base.errors import UsageError, VerificationError
from ..base.reading import read_json, validated
from .samples import Samples

MAX_RECORD_BYTES = 32 << 20
COMPILED, EMULATED, EXECUTED = "compiled", "emulated", "executed"
SAME_RATIO = 3.0
"""A ratio may depart from that of the wall medians by this factor: it is of processor times, and other
programs stretch the wall's."""
WHAT = "latency record"
UNCHANGED = "copy what run.py bench --record wrote, unchanged"
ORDER = ("p50_us", "p90_us", "p95_us", "p99_us", "p99.9_us")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RecordRow(BaseModel):
    """A candidate's row, see ``device/timings.py``; percentiles stand among the extra fields."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    median_us: float = Field(gt=0, lt=1e12)
    n: int = Field(ge=64)
    spread: float = Field(ge=0)
    noisy: bool
    speedup: float | None = Field(default=None, gt=0)
    speedup_interval: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> RecordRow:
        extra = self.model_extra or {}
        found = [extra[name] for name in ORDER if name in extra]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in found):
            raise PydanticCustomError("percentile", "percentiles must be numbers above 0")
        if sorted(found) != found or ("p50_us" in extra and extra["p50_us"] < 0.999 * self.median_us):
            raise PydanticCustomError("order", "percentiles must rise, from the median on")
        if (self.speedup is None) != (self.speedup_interval is None):
            raise PydanticCustomError("speedup", "a speed-up and its interval come together")
        if self.speedup is not None and self.speedup_interval is not None:
            low, high = self.speedup_interval
            if not 0 < low <= self.speedup <= high:
                raise PydanticCustomError("interval", "a speed-up must lie in its interval")
        return self


class RecordScenario(_Part):
    """One scenario, see ``LatencyReport.record``."""

    artifact: RecordRow
    teacher: RecordRow | None = None
    teachers: tuple[RecordRow, ...] = ()
    speedup: float | None = Field(default=None, gt=0)
    speedup_interval: tuple[float, float] | None = None
    skipped: tuple[dict[str, str], ...] = ()
    noisy: bool
    method: str = Field(min_length=1, max_length=4096)

    @model_validator(mode="after")
    def _agrees(self) -> RecordScenario:
        for row in self.teachers:
            ratio = row.median_us / self.artifact.median_us
            if row.speedup is None or not 1 / SAME_RATIO <= row.speedup / ratio <= SAME_RATIO:
                raise PydanticCustomError("ratio", "a speed-up does not agree with the medians it is of")
        if (self.teacher is None) != (not self.teachers) or self.teacher not in (None, *self.teachers):
            raise PydanticCustomError("teacher", "the teacher is none of the record's teachers")
        first = (
            (None, None) if self.teacher is None else (self.teacher.speedup, self.teacher.speedup_interval)
        )
        if (self.speedup, self.speedup_interval) != first:
            raise PydanticCustomError("ratio", "the speed-up is not that over the teacher")
        return self


class RecordSelftest(_Part):
    """See ``Forecaster.selftest``."""

    windows: int = Field(ge=1)
    max_abs: float = Field(ge=0)
    max_rel: float = Field(ge=0)
    tolerance: float = Field(gt=0, lt=1)
    passed: bool


class LatencyRecord(_Part):
    """``latency.json``: rows, or the samples that rows are worked out from."""

    format: Literal["tsfmc-latency"]
    version: Literal[1]
    payload_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    measured_at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$")
    threads: int = Field(ge=1, le=1024)
    host: dict[str, Any]
    selftest: RecordSelftest
    cold_start: dict[str, float]
    scenarios: dict[Literal["stream", "interval"], RecordScenario] = Field(default={})
    samples: Samples | None = None

    @model_validator(mode="after")
    def _measured(self) -> LatencyRecord:
        if bool(self.scenarios) == (self.samples is not None):
            raise PydanticCustomError("scenarios", "there must be scenarios, or samples of them")
        return self

    @property
    def emulator(self) -> str | None:
        """What ran the program in the place of a processor."""
        found = self.host.get("emulator")
        return None if found is None else str(found)


def add_record(artifact: Path, file: Path) -> dict[str, Any]:
    """Adds a device's measurement to the artifact's manifest; returns the manifest.

    Where nothing was measured at home (a cross-compiled program), it becomes the latency and the cold start
    of the artifact, ``measured_on: device``; elsewhere it stands under ``latency.devices``.  The level
    becomes ``executed``.  A record from an emulator says that the artifact works there, under
    ``target.emulated_record``, at the level ``emulated`` where nothing better is known; its times are left
    out.  A signature of the artifact ends with its old manifest: sign it again.

    Raises:
        UsageError: the artifact is packed in one file, or the record is no record.
        VerificationError: the artifact is broken, or the record cannot be of it.
    """
    if not artifact.is_dir():
        raise UsageError(f"{artifact}: a record is added to an artifact directory", hint="unpack it first")
    standing = check_artifact(artifact)
    if standing.problems:
        raise VerificationError(
            f"{artifact}: {joined(standing.problems)}", hint="get an intact copy of the artifact"
        )
    manifest = read_manifest(artifact)
    fields = read_json(file, what=WHAT, error=UsageError, max_bytes=MAX_RECORD_BYTES, hint=UNCHANGED)
    record = _checked(fields, file)
    _check_binding(record, manifest, artifact, file)
    if record.emulator is not None:
        return replace_manifest(artifact, with_emulated(manifest, record))
    if record.samples is not None:
        fields["scenarios"] = record.samples.worked_out(manifest)
        _checked({name: value for name, value in fields.items() if name != "samples"}, file)
    return replace_manifest(artifact, with_record(manifest, fields))


def with_emulated(manifest: Mapping[str, Any], record: LatencyRecord) -> dict[str, Any]:
    """The manifest's fields with what an emulated run shows: that the program computes what it should."""
    found = {
        "emulator": record.emulator,
        "measured_at": record.measured_at,
        "selftest": record.selftest.model_dump(),
    }
    level = EMULATED if manifest["level"] == COMPILED else manifest["level"]
    return {**manifest, "target": {**manifest["target"], "emulated_record": found}, "level": level}


def with_record(manifest: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's fields with the record among them; an earlier one of the same device and time goes."""
    kept = ("scenarios", "host", "threads", "selftest", "measured_at", "cold_start")
    measured = {name: record[name] for name in kept}
    latency = manifest.get("latency")
    if not latency or latency.get("measured_on") == "device":
        fields = {"latency": {**measured, "measured_on": "device"}, "cold_start": record["cold_start"]}
    else:
        others = [each for each in latency.get("devices", ()) if each["measured_at"] != record["measured_at"]]
        fields = {"latency": {**latency, "devices": [*others, measured]}}
    return {**manifest, **fields, "level": EXECUTED}


def _checked(fields: Any, file: Path) -> LatencyRecord:
    return validated(fields, LatencyRecord, what=f"{file}: {WHAT}", error=UsageError, hint=UNCHANGED)


def _check_binding(record: LatencyRecord, manifest: Mapping[str, Any], artifact: Path, file: Path) -> None:
    if record.payload_sha256 != listed_payload(read_sums(artifact)):
        raise VerificationError(
            f"{file} was measured on another artifact than {artifact}", hint="copy this one to the device"
        )
    found, tolerance = record.selftest, manifest["selftest"]["tolerance"]
    if not found.passed or found.tolerance != tolerance or found.max_rel > tolerance:
        raise VerificationError(
            f"{file}: the device's self-test differs by {found.max_rel:.3g} of the window's scale, "
            f"expected at most {tolerance:.3g}",
            hint="what computes something else has no latency",
        )
    wanted, machine = manifest["target"].get("machine"), record.host.get("machine")
    if wanted is not None and machine != wanted:
        raise VerificationError(f"{file} was measured on {machine}, the program is for {wanted}")
