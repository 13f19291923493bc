"""The verdict at the top of a report: a headline no kinder than the figures, and the figures that count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..driver.verdict import signed
from .figures import bytes_words, figure, ratio_with_interval

Found = Mapping[str, Any]
FP32_BYTES = 4


def verdict(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """``status`` (good, mixed, bad or unknown), ``headline``, ``sentences`` and ``tiles``."""
    part = manifest.get("accuracy") or {}
    status, headline = judge(part)
    return {
        "status": status,
        "headline": headline,
        "sentences": [str(sentence) for sentence in part.get("verdict") or ()],
        "tiles": tiles(manifest),
    }


def judge(part: Mapping[str, Any]) -> tuple[str, str]:
    """Status and headline.

    bad       measurably worse than repeating the last season
    mixed     not measurably better than it, or measurably worse than the same student without the teacher
    good      measurably better than it
    unknown   nothing was measured, or the test split is too short for an interval
    """
    comparisons = part.get("comparisons") or {}
    naive = comparisons.get("seasonal_naive")
    if naive is None:
        return "unknown", str(part.get("unmeasured") or "no accuracy was measured")
    size = f"{abs(100 * naive['relative']):.0f} %"
    if naive.get("relative_interval") is None:
        direction = "below" if naive["relative"] < 0 else "above"
        return (
            "unknown",
            f"error {size} {direction} the seasonal naive forecast, but too few windows to be sure",
        )
    if is_worse(naive):
        return "bad", f"do not deploy: error {size} above that of repeating the last season"
    if not is_better(naive):
        return "mixed", "no measurable difference from repeating the last season"
    headline = f"error {size} below that of repeating the last season"
    alone = comparisons.get("supervised")
    if alone is not None and is_worse(alone):
        return "mixed", f"{headline}, but the same student without the teacher is better"
    return "good", headline


def is_better(found: Found) -> bool:
    """The whole interval is below zero."""
    interval = found.get("relative_interval")
    return interval is not None and interval[1] < 0


def is_worse(found: Found) -> bool:
    """The whole interval is above zero."""
    interval = found.get("relative_interval")
    return interval is not None and interval[0] > 0


def tiles(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Error, speed and size, each with what it is held against."""
    part = manifest.get("accuracy") or {}
    test = part.get("test") or {}
    mine = test.get("student") or test.get("model")
    found = []
    if mine:
        against = (part.get("comparisons") or {}).get("teacher")
        note = (
            f"{signed(against['relative'], against['relative_interval'])} against the teacher"
            if against
            else ""
        )
        found.append({"name": "test error (MSE)", "value": figure(mine["mse"], 3), "note": note})
    scenarios = (manifest.get("latency") or {}).get("scenarios") or {}
    for name in ("stream", "interval"):
        record = scenarios.get(name) or {}
        row = record.get("artifact") or {}
        median = row.get("median_us")
        if median is None:
            continue
        tile = {"name": f"latency, {name}", "value": f"{median:,.3g} µs", "note": ""}
        if record.get("speedup") is not None:
            words = ratio_with_interval(record["speedup"], record.get("speedup_interval"))
            tile["note"] = f"{words} faster than the teacher"
        if record.get("noisy"):
            tile["note"] += " (noisy run)"
        found.append(tile)
    if not scenarios:
        found.append({"name": "latency", "value": "-", "note": "not measured here"})
    size = manifest.get("size", {}).get("payload_bytes")
    parameters = (manifest.get("teacher") or {}).get("parameters")
    note = f"the teacher's weights in fp32: {bytes_words(parameters * FP32_BYTES)}" if parameters else ""
    found.append({"name": "to ship", "value": bytes_words(size), "note": note})
    return found
