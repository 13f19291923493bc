"""What ``bench`` prints: a table, Markdown for a job's summary, or github-action-benchmark's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .bench import Bench, Entry

COLUMNS = ("artifact", "scenario", "row", "p50 us", "p90 us", "cpu us", "n", "noisy", "speed-up", "interval")


def table_rows(bench: Bench) -> list[tuple[Any, ...]]:
    """A row for each candidate in each scenario, under ``COLUMNS``."""
    rows = []
    for entry in bench.entries:
        rows += [(entry["name"], *row) for row in _rows(entry)]
    return rows


def markdown(bench: Bench) -> str:
    """A table, and the method of each scenario below it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table_rows(bench)]
    methods = {
        f"{scenario}: {record['method']}"
        for entry in bench.measured
        for scenario, record in entry["scenarios"].items()
    }
    return "\n".join([*lines, "", *(f"- {method}" for method in sorted(methods))])


def github_action_benchmark(bench: Bench) -> list[dict[str, Any]]:
    """Entries of github-action-benchmark, tool ``customSmallerIsBetter``.

    Percentiles, and the time relative to each rival, which unlike them does not depend on the machine of the
    day; and the instructions of what was emulated.
    """
    entries: list[dict[str, Any]] = []
    for entry in bench.entries:
        for scenario, record in entry.get("scenarios", {}).items():
            entries += _gha_record(f"{entry['name']} {scenario}", record)
        count = entry.get("emulated", {}).get("instructions")
        if count is not None:
            runner = entry["emulated"]["runner"]
            entries.append(
                _gha(f"{entry['name']} instructions", "instructions", count, "exact", f"one call, {runner}")
            )
    return entries


def _gha_record(name: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    method = record["method"]
    for row in (record["artifact"], *_rivals(record)):
        for key in ("p50_us", "p90_us"):
            if key in row:
                title = f"{name} {row.get('name', 'artifact')} {key.removesuffix('_us')}"
                yield _gha(title, "us", row[key], f"± {row['spread']:.1%}", method)
    for row in _rivals(record):
        low, high = row["speedup_interval"]
        ratio = f"{1 / high:.4g} to {1 / low:.4g}"
        yield _gha(f"{name} artifact / {row['name']}", "ratio", 1 / row["speedup"], ratio, method)


def _gha(name: str, unit: str, value: float, spread: str, extra: str) -> dict[str, Any]:
    return {"name": name, "unit": unit, "value": value, "range": spread, "extra": extra}


def _rows(entry: Entry) -> Iterator[tuple[Any, ...]]:
    for scenario, record in entry.get("scenarios", {}).items():
        for row in (record["artifact"], *_rivals(record)):
            facts = [row.get(key) for key in ("p50_us", "p90_us", "cpu_median_us", "n", "noisy")]
            speedup = interval = None
            if "speedup" in row:
                low, high = row["speedup_interval"]
                speedup, interval = f"{row['speedup']:.1f}x", f"{low:.1f} to {high:.1f}"
            yield (scenario, row.get("name", "artifact"), *facts, speedup, interval)
    if "emulated" in entry:
        found = entry["emulated"]
        count = "" if found["instructions"] is None else f", {found['instructions']:,} instructions"
        yield (f"{found['runner']}: correct{count}; no times", *[None] * 8)
    elif "not_measured" in entry:
        yield (f"not measured: level {entry['level']}", *[None] * 8)


def _rivals(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return next((record[name] for name in ("teachers", "plains", "rivals") if name in record), [])


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
