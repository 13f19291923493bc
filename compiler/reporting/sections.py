"""The sections of a report as plain values for the template: tables of text, charts by the id of their place.

A section that has nothing to show says why.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..driver.choice import remarkable, setting_words
from ..driver.evaluation import QUANTILES, Evaluation
from ..driver.verdict import signed
from . import charts as draw
from .collect import Entry
from .figures import bytes_words, count_words, figure, ratio_with_interval, seconds_words, time_words
from .palette import LABELS
from .picture import png_uri
from .verdict import judge, verdict

Charts = dict[str, Any]
SCENARIOS = {
    "stream": "calls follow each other: warm caches",
    "interval": "a forecast now and then: caches evicted between calls",
}
COSTS = {
    "bytes": "bytes, log scale",
    "stream": "median microseconds, log scale",
    "interval": "median microseconds, log scale",
}
COMMERCIAL = {"True": "allowed", "False": "not allowed"}
OVERVIEW = ["artifact", "test MSE", "stream, µs", "interval, µs", "to ship", "verdict"]
FP32_BYTES = 4
TOP_LAGS = 8


def artifact(entry: Entry, key: str, charts: Charts) -> dict[str, Any]:
    """All about one artifact.

    Args:
        key: prefix of the ids of its charts, which are added to ``charts``.
    """
    manifest, evaluation = entry.manifest, entry.evaluation
    return {
        "key": key,
        "name": entry.name,
        "missing": entry.missing,
        "verdict": verdict(manifest),
        "facts": in_and_out(manifest),
        "accuracy": accuracy(manifest, evaluation, key, charts),
        "curves": curves(evaluation, key, charts),
        "examples": examples(evaluation, key, charts),
        "latency": latency(manifest, key, charts),
        "passes": passes(manifest),
        "selection": selection(manifest),
        "matrix": matrix(manifest, evaluation, key, charts),
        "provenance": provenance(manifest),
    }


def title(manifest: Mapping[str, Any]) -> str:
    """``ttm-r2-512-96 on ETTh1``."""
    teacher, data = manifest.get("teacher") or {}, manifest.get("data") or {}
    return f"{teacher.get('name', 'unknown teacher')} on {data.get('name', 'unknown data')}"


def in_and_out(manifest: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What went in and what came out, a line each."""
    task, data = manifest["task"], manifest.get("data") or {}
    teacher, student = manifest.get("teacher") or {}, manifest.get("student") or {}
    windows = data.get("windows") or {}
    variates = task["variates"]
    went_in = [
        ("teacher", str(teacher.get("name", "-"))),
        ("teacher's size", f"{count_words(teacher.get('parameters'))} parameters"),
        ("data", str(data.get("name", "-"))),
        ("windows", ", ".join(f"{count:,} {part}" for part, count in windows.items()) or "-"),
        ("variates", f"{len(variates)}: {', '.join(variates[:12])}{' ...' if len(variates) > 12 else ''}"),
        (
            "task",
            f"{task['lookback']} steps in, {task['horizon']} out, step {task.get('frequency') or 'unknown'}",
        ),
    ]
    came_out = [
        ("target", f"{manifest['target']['kind']}, {manifest['level']}"),
        ("student", f"{student.get('name', '-')}, {count_words(student.get('parameters'))} parameters"),
        ("payload", bytes_words(manifest.get("size", {}).get("payload_bytes"))),
        ("needs", ", ".join(manifest.get("runtime_requirements", ())) or "nothing"),
    ]
    if parity := manifest.get("parity"):
        came_out.append(
            ("parity", f"{parity['max_rel']:.1e} of the window's scale, allowed {parity['tolerance']:.0e}")
        )
    if cold := manifest.get("cold_start"):
        came_out.append(
            ("cold start", f"load {cold['load_ms']:.0f} ms, first call {cold['first_call_ms']:.1f} ms")
        )
        if cold.get("peak_rss_mb"):
            came_out.append(("peak memory", f"{cold['peak_rss_mb']:.0f} MB"))
    return {"went_in": went_in, "came_out": came_out}


def accuracy(
    manifest: Mapping[str, Any], evaluation: Evaluation | None, key: str, charts: Charts
) -> dict[str, Any]:
    """Rows of the test split, the bars and the paired differences."""
    part = manifest.get("accuracy") or {}
    rows, comparisons = part.get("test") or {}, part.get("comparisons") or {}
    table = []
    for name in draw.known(rows):
        found = comparisons.get(name)
        against = signed(found["relative"], found["relative_interval"]) if found else ""
        cells = [figure(rows[name].get(measure)) for measure in ("mse", "mae", "mase")]
        table.append([LABELS[name], *cells, against])
    if comparisons:
        charts[f"{key}-differences"] = draw.differences(comparisons)
    if evaluation is not None:
        charts[f"{key}-bars"] = draw.error_bars(evaluation.rows)
    methods = list(dict.fromkeys(str(found["method"]) for found in comparisons.values()))
    return {
        "rows": table,
        "unmeasured": part.get("unmeasured", ""),
        "judged": part.get("judged", ""),
        "methods": methods,
        "bars": evaluation is not None,
        "differences": bool(comparisons),
        "windows": next((row["windows"] for row in rows.values() if row.get("windows")), None),
    }


def curves(evaluation: Evaluation | None, key: str, charts: Charts) -> dict[str, Any] | None:
    """Error by step ahead and over time, each with a table of a few points."""
    if evaluation is None:
        return None
    rows = evaluation.rows
    names = draw.known(rows)
    charts[f"{key}-horizon"] = draw.horizon_curves(rows)
    charts[f"{key}-time"] = draw.time_curves(rows, evaluation.times)
    steps = len(rows[names[0]].steps)
    few_steps = sorted({1, *(max(1, round(steps * part)) for part in (0.25, 0.5, 0.75, 1))})
    quarters = np.array_split(np.arange(len(evaluation.times)), min(4, len(evaluation.times)))
    return {
        "columns": [LABELS[name] for name in names],
        "horizon": [
            [f"{step}", *(figure(rows[name].steps[step - 1]) for name in names)] for step in few_steps
        ],
        "time": [
            [
                time_words(evaluation.times[quarter[0]]),
                *(figure(float(np.mean([rows[name].times[at] for at in quarter]))) for name in names),
            ]
            for quarter in quarters
        ],
    }


def examples(evaluation: Evaluation | None, key: str, charts: Charts) -> dict[str, Any] | None:
    """Windows at three quantiles of the artifact's error for each shown variate."""
    if evaluation is None or not evaluation.examples:
        return None
    kept = evaluation.examples
    variates = list(dict.fromkeys(example.variate for example in kept))
    names = draw.known(kept[0].forecasts)
    charts[f"{key}-examples"] = {
        "frame": draw.example_frame(names),
        "labels": LABELS,
        "windows": [
            {
                "variate": variates.index(example.variate),
                "kind": example.kind,
                "title": f"starts {time_words(example.starts)}, MSE {figure(example.mse)}",
                "past": example.past,
                "truth": example.truth,
                "forecasts": {name: example.forecasts[name] for name in names},
            }
            for example in kept
        ],
    }
    return {
        "variates": variates,
        "kinds": [
            {"name": kind, "words": f"{kind}: {quantile:.0%} of the windows are easier"}
            for kind, quantile in QUANTILES.items()
        ],
        "rows": [
            [example.variate, example.kind, time_words(example.starts), figure(example.mse)]
            for example in kept
        ],
        "contents": evaluation.contents,
        "legend": [
            {"label": LABELS[name], "colour": name.replace("_", "-"), "stroke": stroke}
            for name, stroke in (
                ("past", "solid"),
                ("truth", "solid"),
                ("student", "solid"),
                ("teacher", "dashed"),
            )
            if name in ("past", "truth", *names)
        ],
    }


def latency(manifest: Mapping[str, Any], key: str, charts: Charts) -> dict[str, Any]:
    """Both scenarios, as far as they were measured."""
    measured = (manifest.get("latency") or {}).get("scenarios") or {}
    found = []
    for name, words in SCENARIOS.items():
        record = measured.get(name)
        if not record:
            continue
        rows = latency_rows(record)
        place = f"{key}-latency-{name}"
        charts[place] = draw.latency_ranges(rows)
        with_samples = [row for row in rows if row.get("histogram")]
        if with_samples:
            charts[f"{place}-histogram"] = draw.latency_histogram(with_samples)
        found.append(
            {
                "name": name,
                "words": words,
                "place": place,
                "histogram": bool(with_samples),
                "rows": [_latency_cells(row) for row in rows],
                "speedup": speedup_words(record),
                "noisy": bool(record.get("noisy")),
                "method": record.get("method", ""),
            }
        )
    return {"scenarios": found, "host": host_words((manifest.get("latency") or {}).get("host") or {})}


def latency_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The artifact's row and one for each form of the teacher."""
    rows = []
    if record.get("artifact"):
        rows.append({**record["artifact"], "label": "artifact", "kind": "student"})
    teachers = record.get("teachers") or ([record["teacher"]] if record.get("teacher") else [])
    for row in teachers:
        form = str(row.get("form") or row.get("name") or "")
        rows.append(
            {**row, "label": f"teacher, {short_form(form)}" if form else "teacher", "kind": "teacher"}
        )
    return rows


def short_form(form: str) -> str:
    """``fp32, PyTorch eager, inference_mode`` -> ``PyTorch eager``: what fits beside an axis."""
    parts = [part.strip() for part in form.split(",")]
    return next((part for part in parts if part != "fp32"), form)


def speedup_words(record: Mapping[str, Any]) -> str:
    """``47x [45, 50] over the teacher``, or nothing."""
    if record.get("speedup") is None:
        return ""
    words = ratio_with_interval(record["speedup"], record.get("speedup_interval"))
    return f"{words} over the teacher's fastest form"


def _latency_cells(row: Mapping[str, Any]) -> list[str]:
    cells = [
        figure(row.get(name), 1) for name in ("median_us", "p50_us", "p90_us", "p99_us", "cpu_median_us")
    ]
    modes = row.get("modes") or ()
    remarks = ["noisy"] if row.get("noisy") else []
    if len(modes) > 1:
        remarks.append(f"{len(modes)} modes")
    return [
        row.get("form") or row["label"],
        *cells,
        f"{row['n']:,}" if row.get("n") else "-",
        ", ".join(remarks),
    ]


def host_words(host: Mapping[str, Any]) -> str:
    """The machine in a line."""
    named = (
        host.get("cpu"),
        host.get("cores") and f"{host['cores']} cores",
        host.get("gpu"),
        host.get("system"),
    )
    return ", ".join(str(each) for each in named if each)


def passes(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What each pass cost and bought; the columns of the teacher only where a pass changed it."""
    entries = manifest.get("passes") or ()
    costs = [entry["metrics"].get("cost") for entry in entries]
    first = next((cost for cost in costs if cost), None)
    rows = [["as loaded", "", *_cost_cells(first["before"]), ""]] if first else []
    for entry, cost in zip(entries, costs, strict=True):
        seconds = "cached" if entry.get("cached") else seconds_words(entry.get("seconds"))
        cells = (_cost_cells(cost["after"]) if cost else [""] * 5) if first else []
        rows.append([entry["name"], seconds, *cells, _found_words(entry["metrics"])])
    columns = ["stored", "non-zero", "bytes", "MACs", "val. MSE"] if first else []
    total = sum(entry.get("seconds") or 0 for entry in entries if not entry.get("cached"))
    return {
        "columns": ["pass", "time", *columns, "what it found"],
        "rows": rows,
        "total": seconds_words(total),
    }


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        count_words(row["parameters"]),
        count_words(row["nonzero_parameters"]),
        bytes_words(row["size_bytes"]),
        count_words(row["macs"]),
        figure(row["validation_mse"]),
    ]


def _found_words(metrics: Mapping[str, Any]) -> str:
    """The scalars that a pass noted, a few of them."""
    words = []
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        text = (
            f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        )
        words.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(words[:6])


def selection(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the student was chosen: the chosen row, the best of each form and the best without a teacher."""
    entries = manifest.get("passes") or ()
    chosen = next((entry["metrics"] for entry in entries if entry["metrics"].get("selection")), None)
    if chosen is None:
        return None
    rows = chosen["selection"]
    table = []
    for row in remarkable(rows):
        change = round(100 * math.expm1(row["log_ratio"]), 1) + 0.0
        table.append(
            {
                "chosen": bool(row.get("chosen")),
                "cells": [
                    setting_words(row),
                    f"{change:+.1f} % ± {100 * row['standard_error']:.1f}",
                    count_words(row["parameters"]),
                    bytes_words(row["parameters"] * FP32_BYTES),
                ],
            }
        )
    return {"words": setting_words({**chosen, "form": chosen["maps"]}), "count": len(rows), "rows": table}


def matrix(
    manifest: Mapping[str, Any], evaluation: Evaluation | None, key: str, charts: Charts
) -> dict[str, Any] | None:
    """The student's map as a picture, and the weight of each lag."""
    if evaluation is None or evaluation.matrix is None:
        return None
    found = evaluation.matrix
    charts[f"{key}-lags"] = draw.lag_profile(found.profile, manifest["task"].get("step_seconds"))
    pictures = []
    for name, cells in found.pictures.items():
        values = np.frombuffer(base64.b64decode(cells), np.int8)
        if values.size == found.shape[0] * found.shape[1]:
            pictures.append({"name": name, "uri": png_uri(values.reshape(found.shape))})
    order = np.argsort(found.profile)[::-1][:TOP_LAGS]
    lags = [[f"{len(found.profile) - int(at)}", figure(found.profile[int(at)])] for at in order]
    return {
        "pictures": pictures,
        "lookback": found.lookback,
        "horizon": found.horizon,
        "largest": figure(found.largest),
        "lags": lags,
    }


def provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Licence, and where everything came from."""
    teacher, data = manifest.get("teacher") or {}, manifest.get("data") or {}
    licence = manifest.get("licence") or {}
    facts = [
        ("licence of the teacher's weights", str(licence.get("spdx", "unknown"))),
        ("commercial use", COMMERCIAL.get(str(licence.get("commercial")), "unknown")),
        ("teacher", str(teacher.get("source", "-"))),
        ("teacher's sha256", str(teacher.get("sha256", "-"))),
        ("revision", str(teacher.get("commit") or teacher.get("revision") or "-")),
        ("seen this data in pre-training", str(teacher.get("pretraining_overlap", "unknown"))),
        ("data's sha256", str(data.get("sha256", "-"))),
        ("split (train/val/test rows)", str(data.get("split", "-"))),
    ]
    filled = data.get("filled") or {}
    if filled.get("cells") or filled.get("rows"):
        facts.append(("filled in", f"{filled.get('cells', 0):,} cells, {filled.get('rows', 0):,} rows"))
    packages = manifest.get("environment") or {}
    facts.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or "-"))
    files = [
        [name, bytes_words(fields["bytes"]), fields["sha256"]]
        for name, fields in (manifest.get("files") or {}).items()
    ]
    return {"warning": licence.get("warning") or "", "facts": facts, "files": files}


def overview(entries: Sequence[Entry], charts: Charts) -> dict[str, Any]:
    """Everything in the folder side by side: a table, and error against latency and bytes."""
    rows, points = [], []
    for entry in entries:
        manifest = entry.manifest
        test = (manifest.get("accuracy") or {}).get("test") or {}
        mine = test.get("student") or test.get("model") or {}
        scenarios = (manifest.get("latency") or {}).get("scenarios") or {}
        medians = {name: _median(scenarios.get(name), "artifact") for name in SCENARIOS}
        size = manifest.get("size", {}).get("payload_bytes")
        rows.append(
            [
                entry.name,
                figure(mine.get("mse")),
                *(figure(medians[name], 1) for name in SCENARIOS),
                bytes_words(size),
                judge(manifest.get("accuracy") or {})[1],
            ]
        )
        points.append(
            {"name": entry.name, "kind": "student", "mse": mine.get("mse"), "bytes": size, **medians}
        )
        points.append(_teacher_point(manifest, test, scenarios))
    points = list({(point["name"], point["mse"]): point for point in points}.values())
    shown = {}
    for field, title in (
        ("stream", "Error against latency, stream"),
        ("interval", "Error against latency, interval"),
        ("bytes", "Error against bytes to ship"),
    ):
        usable = [point for point in points if point["mse"] is not None and point.get(field)]
        if sum(point["kind"] == "student" for point in usable):
            charts[f"pareto-{field}"] = draw.pareto(on_front(usable, field), field, COSTS[field])
            shown[field] = title
    return {"columns": OVERVIEW, "rows": rows, "pareto": shown}


def on_front(points: Sequence[Mapping[str, Any]], field: str) -> list[dict[str, Any]]:
    """The points with ``front``: none other has both a smaller error and a smaller cost."""
    return [
        {
            **point,
            "front": not any(
                other[field] <= point[field]
                and other["mse"] <= point["mse"]
                and (other[field], other["mse"]) != (point[field], point["mse"])
                for other in points
            ),
        }
        for point in points
    ]


def _teacher_point(
    manifest: Mapping[str, Any], test: Mapping[str, Any], scenarios: Mapping[str, Any]
) -> dict[str, Any]:
    teacher = manifest.get("teacher") or {}
    return {
        "name": str(teacher.get("name", "teacher")),
        "kind": "teacher",
        "mse": (test.get("teacher") or {}).get("mse"),
        "bytes": (teacher.get("parameters") or 0) * FP32_BYTES,
        **{name: _median(scenarios.get(name), "teacher") for name in SCENARIOS},
    }


def _median(record: Mapping[str, Any] | None, candidate: str) -> float | None:
    row = (record or {}).get(candidate) or {}
    value = row.get("median_us") or row.get("p50_us")
    return None if value is None else float(value)
