"""Manifest: the fields of ``manifest.json`` that running needs, checked.

Nothing in it decides how much memory is taken: every shape is that of the task, and the task has caps.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ....compiler.data.levels import MEDIAN, levels_problem
from ....compiler.data.reading import checked_reading
from .errors import ArtifactError
from .files import MAX_MANIFEST_BYTES, is_safe_name, read_bytes
from .inputs import checked_groups, input_width
from .strict import parse_json

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_STEPS = 1 << 20
MAX_VARIATES = 1 << 16
MAX_NAME = 1000
MAX_WINDOW_VALUES = 1 << 24
"""Numbers of one window and its forecast, ``D (L + H Q)``: 64 MiB of float32."""
MAX_BATCH_VALUES = 1 << 26
"""The same of one call of a program with a fixed batch."""


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest with the fields that running needs checked; hashes are not looked at here.

    Raises:
        ArtifactError: names the field.
    """
    return parse_manifest(read_bytes(directory, MANIFEST, MAX_MANIFEST_BYTES))


def parse_manifest(content: bytes) -> dict[str, Any]:
    """``read_manifest`` of what is in memory already."""
    return checked_manifest(parse_json(content, MANIFEST))


def checked_manifest(manifest: Any) -> dict[str, Any]:
    """The manifest with the fields that running needs checked.

    Raises:
        ArtifactError: names the field.
    """
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(f"{MANIFEST} has schema {repr(got)[:80]}, this runner reads schema {SCHEMA}")
    task, scaling, target = (_part(manifest, name) for name in ("task", "input", "target"))
    _check_task(task)
    _check_scaling(scaling, len(task["variates"]))
    entry = target.get("entry")
    if not isinstance(entry, str) or not is_safe_name(entry):
        raise _field("target.entry", "a file name", entry)
    _check_shapes(task, target)
    _part(manifest, "files")
    return manifest


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_task(task: dict[str, Any]) -> None:
    for name in ("lookback", "horizon"):
        if type(task.get(name)) is not int or not 1 <= task[name] <= MAX_STEPS:
            raise _field(f"task.{name}", f"a positive integer up to {MAX_STEPS}", task.get(name))
    variates = task.get("variates")
    if not isinstance(variates, list) or not all(isinstance(name, str) for name in variates):
        raise ArtifactError(f"{MANIFEST} field task.variates: expected a list of names")
    if not 1 <= len(variates) <= MAX_VARIATES or max(map(len, variates)) > MAX_NAME:
        raise ArtifactError(
            f"{MANIFEST} field task.variates: expected 1 to {MAX_VARIATES} names, each up to {MAX_NAME} long"
        )
    if len(set(variates)) != len(variates):
        raise ArtifactError(f"{MANIFEST} field task.variates: a name occurs twice")
    _check_levels(task.get("quantile_levels"))
    checked_groups(task)
    if values_of(task) > MAX_WINDOW_VALUES:
        raise _field("task", f"a window of up to {MAX_WINDOW_VALUES} numbers", values_of(task))
    if not isinstance(task.get("frequency"), (str, type(None))):
        raise _field("task.frequency", "a name or null", task["frequency"])
    seconds = task.get("step_seconds")
    if seconds is not None and not (is_number(seconds) and 1e-6 <= seconds <= 1e10):
        raise _field("task.step_seconds", "a number of seconds or null", seconds)
    try:
        checked_reading(task)
    except ValueError as error:
        raise ArtifactError(f"{MANIFEST} field task.{error}") from None


def _check_levels(levels: object) -> None:
    """None of them, or ascending numbers between 0 and 1 with the median, the point forecast, among them."""
    if levels is None:
        return
    if not isinstance(levels, list) or not levels or not all(map(is_number, levels)):
        raise _field("task.quantile_levels", "a list of numbers", levels)
    if problem := levels_problem(levels):
        raise ArtifactError(f"{MANIFEST} field task.quantile_levels: {problem}")


def outputs_of(task: dict[str, Any]) -> int:
    """Numbers of a variate's forecast, ``H``, or ``H Q`` where a step has Q quantiles."""
    size: int = task["horizon"] * len(task.get("quantile_levels") or [MEDIAN])
    return size


def inputs_of(task: dict[str, Any]) -> int:
    """Numbers of a variate's row: its past, and the inputs behind it, ``L + E``."""
    size: int = task["lookback"] + input_width(task)
    return size


def values_of(task: dict[str, Any]) -> int:
    """Numbers of one row and its forecast, ``D (L + E + H Q)``."""
    size: int = len(task["variates"]) * (inputs_of(task) + outputs_of(task))
    return size


def _check_shapes(task: dict[str, Any], target: dict[str, Any]) -> None:
    """A program's fixed shapes are the task's, and its batches stay within the cap."""
    batches = _batches(target.get("batch"))
    for name, steps in (("input_shape", inputs_of(task)), ("output_shape", outputs_of(task))):
        shape = target.get(name)
        if shape is None:
            continue
        expected = [len(task["variates"]), steps]
        if not isinstance(shape, list) or shape[1:] != expected or not all(type(n) is int for n in shape):
            raise _field(f"target.{name}", f"[batch, {expected[0]}, {expected[1]}] as in the task", shape)
        batches.append(shape[0])
    most = MAX_BATCH_VALUES // values_of(task)
    for batch in batches:
        if type(batch) is not int or not 1 <= batch <= most:
            raise _field("target.batch", f"an integer from 1 to {most} for this task", batch)
    if len(set(batches)) > 1 and not isinstance(target.get("batch"), dict):
        raise _field("target.batch", "the batch of its shapes", target.get("batch"))


def _batches(batch: object) -> list[Any]:
    """The batches that a target speaks of: one, or those of a profile; none where any will do."""
    if isinstance(batch, dict):
        return list(batch.values())
    return [] if batch is None or isinstance(batch, str) else [batch]


def _check_scaling(scaling: dict[str, Any], variates: int) -> None:
    for name in ("mean", "std"):
        values = scaling.get(name)
        if not isinstance(values, list) or len(values) != variates or not all(map(is_number, values)):
            raise ArtifactError(f"{MANIFEST} field input.{name}: expected {variates} finite numbers")
    if min(scaling["std"]) <= 0:
        raise ArtifactError(
            f"{MANIFEST} field input.std: expected numbers above 0, got {min(scaling['std'])}"
        )


def _part(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    part = manifest.get(name)
    if not isinstance(part, dict):
        raise _field(name, "an object", part)
    return part


def _field(name: str, expected: str, got: object) -> ArtifactError:
    return ArtifactError(f"{MANIFEST} field {name}: expected {expected}, got {str(got)[:80]!r}")
