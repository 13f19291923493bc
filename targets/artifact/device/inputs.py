"""Inputs: what a device supplies besides the past, as the manifest's ``task.inputs`` states it.

A row of the program is a variate's past ``[L]``, then the inputs ``[E]``, which all variates share:

    calendar   when the first forecast step is
    known      a column over the lookback and the horizon, ``L + H`` values
    past       a column over the lookback, L values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from ....compiler.data.encoding import CYCLE_SECONDS, encode_column, encode_cycle
from .errors import ArtifactError, InputError

MAX_GROUPS = 64
EPOCH = datetime(1970, 1, 1)
GROUP_FIELDS = ("harmonics", "kind", "name", "scale", "width")


def checked_groups(task: dict[str, Any]) -> list[dict[str, Any]]:
    """``task.inputs``, each group with the width that its kind has.

    Raises:
        ArtifactError: names the field.
    """
    groups = task.get("inputs") or []
    if not isinstance(groups, list) or len(groups) > MAX_GROUPS:
        raise ArtifactError(f"manifest.json field task.inputs: expected a list of up to {MAX_GROUPS} groups")
    for group in groups:
        if not isinstance(group, dict) or tuple(sorted(group)) != GROUP_FIELDS:
            raise ArtifactError(f"manifest.json field task.inputs: expected {', '.join(GROUP_FIELDS)}")
        widths = {"known": task["horizon"], "past": task["lookback"]}
        harmonics, scale = group["harmonics"], group["scale"]
        if group["kind"] == "calendar" and type(harmonics) is int and 1 <= harmonics <= 64:
            widths["calendar"] = 2 * harmonics
        named = isinstance(group["name"], str) and (
            group["kind"] != "calendar" or group["name"] in CYCLE_SECONDS
        )
        scaled = type(scale) in (int, float) and 0 < scale < float("inf")
        if not named or not scaled or group["width"] != widths.get(group["kind"]):
            raise ArtifactError(
                f"manifest.json field task.inputs: {str(group)[:80]} is no group of this task"
            )
    names = [group["name"] for group in groups]
    if len(set(names)) != len(names) or set(names) & set(task["variates"]):
        raise ArtifactError("manifest.json field task.inputs: a name occurs twice")
    return groups


def input_width(task: dict[str, Any]) -> int:
    """E."""
    return sum(group["width"] for group in task.get("inputs") or [])


def column_names(task: dict[str, Any], kinds: Sequence[str] = ("known", "past")) -> list[str]:
    """Columns that are read beside the variates."""
    return [group["name"] for group in task.get("inputs") or [] if group["kind"] in kinds]


def encode_inputs(
    task: dict[str, Any], first_step: datetime | None, columns: Mapping[str, Sequence[float] | np.ndarray]
) -> np.ndarray:
    """The inputs ``[E]`` of one row.

    Args:
        first_step: when the first forecast step is; only a calendar needs it.
        columns: name -> its values over the lookback, and for a known one over the horizon, too.

    Raises:
        InputError: says which input is missing, or what is wrong with it.
    """
    lookback, parts = task["lookback"], []
    for group in task.get("inputs") or []:
        name, kind = group["name"], group["kind"]
        if kind == "calendar":
            if first_step is None:
                raise InputError(f"the input {name!r} needs the time of the first forecast step")
            seconds = np.array([_seconds(first_step)])
            parts.append(encode_cycle(name, group["harmonics"], seconds)[0])
            continue
        steps = lookback + (task["horizon"] if kind == "known" else 0)
        if name not in columns:
            raise InputError(f"the input column {name!r} is missing, expected {steps} values")
        values = np.asarray(columns[name], dtype=np.float64)
        if values.shape != (steps,) or not np.isfinite(values).all():
            raise InputError(
                f"input column {name!r} has shape {list(values.shape)}, "
                f"all finite: {bool(np.isfinite(values).all())}, expected {steps} finite values: "
                + ("the lookback, then the horizon" if kind == "known" else "the lookback")
            )
        parts.append(encode_column(kind, values[None], lookback, group["scale"])[0])
    return np.concatenate(parts) if parts else np.empty(0)


def _seconds(time: datetime) -> float:
    """Since 1970, of the time as it is written; of one with a zone in UTC, as the compiler reads it."""
    if time.tzinfo is not None:
        time = time.astimezone(timezone.utc).replace(tzinfo=None)
    return (time - EPOCH).total_seconds()
