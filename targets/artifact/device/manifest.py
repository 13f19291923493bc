"""Manifest: the fields of ``manifest.json`` that running needs, checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ....compiler.data.filling import POLICIES
from .errors import ArtifactError
from .files import MAX_MANIFEST_BYTES, is_safe_name, read_text

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_STEPS = 1 << 24


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest with the fields that running needs checked; hashes are not looked at here.

    Raises:
        ArtifactError: names the field.
    """
    text = read_text(directory, MANIFEST, MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{MANIFEST} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(f"{MANIFEST} has schema {got!r}, this runner reads schema {SCHEMA}")
    task, scaling, target = (_part(manifest, name) for name in ("task", "input", "target"))
    _check_task(task)
    _check_scaling(scaling, len(task["variates"]))
    entry = target.get("entry")
    if not isinstance(entry, str) or not is_safe_name(entry):
        raise _field("target.entry", "a file name", entry)
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
    if not isinstance(variates, list) or not variates or not all(isinstance(name, str) for name in variates):
        raise ArtifactError(f"{MANIFEST} field task.variates: expected a list of names")
    if not isinstance(task.get("frequency"), (str, type(None))):
        raise _field("task.frequency", "a name or null", task["frequency"])
    seconds = task.get("step_seconds")
    if seconds is not None and not (is_number(seconds) and 1e-6 <= seconds <= 1e10):
        raise _field("task.step_seconds", "a number of seconds or null", seconds)
    if task.get("missing", POLICIES[0]) not in POLICIES:
        raise _field("task.missing", f"one of {', '.join(POLICIES)}", task["missing"])


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


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
