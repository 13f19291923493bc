"""A manifest as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = ("student", "supervised", "teacher", "seasonal_naive")
LABELS = {
    "student": "artifact",
    "supervised": "supervised, no teacher",
    "teacher": "teacher",
    "seasonal_naive": "seasonal naive",
}


def summary_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Task, accuracy, latency, sizes, and how far each claim was shown."""
    task, teacher, student = manifest["task"], manifest["teacher"], manifest["student"]
    variates = len(task["variates"])
    lines = [
        f"target     {manifest['target']['kind']}, level {manifest['level']}",
        f"task       lookback {task['lookback']} -> horizon {task['horizon']}, {variates} variates, "
        f"step {task['frequency'] or 'unknown'}",
        f"data       {manifest['data']['name']}, {manifest['data']['windows']['test']} test windows",
        f"teacher    {teacher['name']}, {teacher['parameters']:,} parameters, {teacher['licence']}, "
        f"pre-training overlap with this data: {teacher['pretraining_overlap']}",
        f"student    {student['name']}, {student['parameters']:,} parameters, "
        f"payload {manifest['size']['payload_bytes']:,} bytes",
        "",
        *accuracy_table(manifest),
        "",
        *latency_table(manifest),
    ]
    parity = manifest.get("parity")
    if parity is not None:
        lines.append(
            f"parity     largest relative difference {parity['max_rel']:.1e}, tolerance {parity['tolerance']:.0e}"
        )
    warning = manifest["licence"].get("warning")
    return [*lines, f"licence    {warning}"] if warning else lines


def accuracy_table(manifest: Mapping[str, Any]) -> list[str]:
    """Test rows that exist, best first reading order: artifact, supervised, teacher, naive."""
    rows = manifest["accuracy"]["test"]
    lines = [f"{'test accuracy':<24}{'MSE':>8}{'MAE':>8}{'MASE':>8}"]
    for name in ROWS:
        if name in rows:
            row = rows[name]
            lines.append(f"{LABELS[name]:<24}{row['mse']:>8.4f}{row['mae']:>8.4f}{row['mase']:>8.4f}")
    return lines


def latency_table(manifest: Mapping[str, Any]) -> list[str]:
    """Latency of artifact and teacher, or why there is none."""
    latency = manifest.get("latency")
    if not latency:
        return ["latency    not measured here"]
    lines = [f"{'latency':<24}{'p50 us':>10}{'p90 us':>10}"]
    for name in ("artifact", "teacher"):
        row = latency.get(name)
        if row:
            lines.append(f"{name:<24}{_number(row.get('p50_us')):>10}{_number(row.get('p90_us')):>10}")
    if latency.get("speedup") is not None:
        low, high = latency["speedup_interval"]
        lines.append(f"speed-up   {latency['speedup']:.1f}x [{low:.1f}, {high:.1f}] over the teacher")
    lines.append(f"method     {latency['method']}")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
