"""A manifest as a person reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from ..data.filling import WARN_FILLED
from .choice import choice_lines
from .verdict import signed

ROWS = ("student", "model", "supervised", "teacher", "seasonal_naive")
LABELS = {
    "student": "artifact",
    "model": "model before lowering",
    "supervised": "supervised, no teacher",
    "teacher": "teacher",
    "seasonal_naive": "seasonal naive",
}


def summary_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Task, accuracy, latency, passes, sizes, and how far each claim was shown."""
    task, teacher, student = manifest["task"], manifest["teacher"], manifest["student"]
    variates = len(task["variates"])
    lines = [
        f"artifact   target {manifest['target']['kind']}, level {manifest['level']}",
        f"task       lookback {task['lookback']} -> horizon {task['horizon']}, {variates} variates, "
        f"step {task['frequency'] or 'unknown'}",
        f"data       {data_words(manifest)}",
        *filled_lines(manifest),
        *fleet_lines(manifest),
        *(teacher_line(each) for each in (teacher, *manifest.get("further_teachers", ()))),
        f"student    {student['name']}, {student['parameters']:,} parameters, "
        f"payload {manifest['size']['payload_bytes']:,} bytes",
        *metadata_lines(manifest),
        *input_lines(manifest),
        "",
        *choice_part(manifest),
        *accuracy_table(manifest),
        *quantile_table(manifest),
        *verdict_lines(manifest),
        "",
        *latency_table(manifest),
    ]
    cold = manifest.get("cold_start")
    if cold:
        lines.append(
            f"cold start load {cold['load_ms']:.0f} ms, first call {cold['first_call_ms']:.1f} ms, "
            f"peak memory {cold.get('peak_rss_mb', 0):.0f} MB"
        )
    parity = manifest.get("parity")
    if parity is not None:
        worst, allowed = parity["max_rel"], parity["tolerance"]
        lines.append(f"parity     largest relative difference {worst:.1e}, tolerance {allowed:.0e}")
    if kept := manifest.get("evaluation"):
        lines.append(f"kept       {kept['file']} beside the artifact holds {kept['contents']}")
    warning = manifest["licence"].get("warning")
    if warning:
        lines.append(f"licence    {warning}")
    return [*lines, "", *pass_table(manifest)]


def teacher_line(teacher: Mapping[str, Any]) -> str:
    """Where a teacher comes from; a further one by the name that tables have for it."""
    return (
        f"teacher    {teacher.get('as', teacher['name'])}, {teacher['parameters']:,} parameters, "
        f"{teacher['licence']}, pre-training overlap with this data: {teacher['pretraining_overlap']}"
    )


def input_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What each set of inputs that was tried gave, over the rolling origins that chose."""
    tried: list[Mapping[str, Any]] = []
    for entry in manifest["passes"] or ():
        tried = entry["metrics"].get("inputs", tried)
    if not tried:
        return []
    best: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in tried:
        kept = best.setdefault(tuple(row["inputs"]), row)
        if row["chosen"] or (row["log_ratio"] < kept["log_ratio"] and not kept["chosen"]):
            best[tuple(row["inputs"])] = row
    lines = ["", "inputs beside the window (*), error over the blocks against none"]
    for names, row in best.items():
        gain = f"{100 * math.expm1(row['log_ratio']):+.1f} % +- {100 * row['standard_error']:.1f}"
        lines.append(f"{'*' if row['chosen'] else ' '} {', '.join(names) or 'none':<55} {gain:>18}")
    return lines


def metadata_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What the program's file says of itself where it does, but for the scaling, a number a variate."""
    said = manifest["target"].get("metadata", {})
    words = [f"{name} {value}" for name, value in said.items() if "scaling" not in name]
    head = f"{manifest['target']['entry']} says " if words else ""
    lines = wrap(head + ", ".join(words), width=89)
    return [f"{'metadata' if line is lines[0] else '':<11}{line}" for line in lines]


def data_words(manifest: Mapping[str, Any]) -> str:
    """The data and the windows that count: those of the test split, or all where nothing was measured."""
    data, windows = manifest["data"], manifest["data"]["windows"]
    if "unmeasured" in manifest["accuracy"]:
        return f"{data['name']}, {windows['train']} windows"
    return f"{data['name']}, {windows['test']} test windows"


def filled_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What ``missing`` filled in, counted; a warning where it is more than a few cells."""
    filled = manifest["data"].get("filled", {})
    cells, rows, share = (filled.get(name, 0) for name in ("cells", "rows", "share"))
    if not cells and not rows:
        return []
    line = f"{cells:,} empty cells and {rows:,} missing rows"
    if share:
        line += f", at most {share:.1%} of a variate ({filled['variate']})"
    warning = "; warning: accuracy on invented values" if share > WARN_FILLED else ""
    return [f"filled     {line}{warning}"]


def fleet_lines(manifest: Mapping[str, Any]) -> list[str]:
    """How many items share how many heads, and what the fleet's head is worth to items it never saw."""
    fleet = manifest.get("fleet")
    if not fleet:
        return []
    heads = fleet["slots"]
    lines = [
        f"fleet      {fleet['items']:,} items, {heads:,} head{'s' if heads > 1 else ''}, one for the unknown"
    ]
    if held := fleet.get("held_out"):
        lines.append(
            f"           {held['items']:,} held out: MSE {held['student']['mse']:.4f} by the head that fits, "
            f"{held['fleet_head']['mse']:.4f} by the fleet's, "
            f"seasonal naive {held['seasonal_naive']['mse']:.4f}"
        )
    return lines


def update_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What an update added, and what the artifact was worth before."""
    facts = manifest.get("updated")
    if not facts:
        return []
    lines = [
        f"updated    {facts['at']}, {facts['rows']} rows ({facts['rows_of_all_updates']} in all updates), "
        f"synthetic part {facts['prior_windows']:g} windows of {facts['windows'] + facts['prior_windows']:g}"
    ]
    if old := facts["old_artifact_on_new_rows"]:
        lines.append(
            f"           before: MSE {old['mse']:.4f} on {old['windows']} windows of new rows, "
            f"seasonal naive {old['seasonal_naive_mse']:.4f}"
        )
    return lines


def accuracy_table(manifest: Mapping[str, Any]) -> list[str]:
    """The test rows that exist, in reading order: artifact, supervised, teacher, naive.

    The difference is the artifact's from that row, with its interval, in per cent of the row.
    """
    rows = manifest["accuracy"]["test"]
    if unmeasured := manifest["accuracy"].get("unmeasured"):
        return [f"accuracy   {unmeasured}", *update_lines(manifest)]
    comparisons = manifest["accuracy"].get("comparisons", {})
    lines = [f"{'test accuracy':<24}{'MSE':>8}{'MAE':>8}{'MASE':>8}"]
    lines[0] += f"{'artifact against it':>28}" if comparisons else ""
    for name in ROWS:
        if name in rows:
            row = rows[name]
            cells = (f"{'-' if row[key] is None else f'{row[key]:.4f}':>8}" for key in ("mse", "mae", "mase"))
            found = comparisons.get(name)
            against = signed(found["relative"], found["relative_interval"]) if found else ""
            lines.append(f"{LABELS[name]:<24}{''.join(cells)}  {against:>26}".rstrip())
        if name == "teacher":
            lines += further_rows(manifest)
    return lines


def further_rows(manifest: Mapping[str, Any]) -> list[str]:
    """The error of each further teacher, and of the first one tuned."""
    lines = []
    for name, row in manifest["accuracy"].get("teachers", {}).items():
        cells = (f"{'-' if row[key] is None else f'{row[key]:.4f}':>8}" for key in ("mse", "mae", "mase"))
        label = f"teacher, {name}"
        label = label if len(label) < 24 else f"{label[:20]}..."
        lines.append(f"{label:<24}{''.join(cells)}")
    return lines


QUANTILE_LABELS = {
    "student": "artifact",
    "model": "model before lowering",
    "empirical_residuals": "its residuals' own",
    "supervised": "supervised, no teacher",
    "teacher": "teacher",
    "seasonal_naive": "seasonal naive",
}


def quantile_table(manifest: Mapping[str, Any]) -> list[str]:
    """The rows of quantile forecasts; none for a point forecast.

    The difference is that of the weighted quantile loss, as in ``accuracy_table``.
    """
    part = manifest["accuracy"].get("quantiles")
    if not part:
        return []
    low, high = (f"P{100 * level:g}" for level in (part["levels"][0], part["levels"][-1]))
    head = f"quantiles {low} to {high}"
    lines = [f"{head:<24}{'WQL':>8}{'cover':>8}{'width':>8}{'artifact against it':>28}"]
    for name, label in QUANTILE_LABELS.items():
        if (row := part["test"].get(name)) is None:
            continue
        found = part["comparisons"].get(name)
        against = signed(found["relative"], found["relative_interval"]) if found else ""
        cells = f"{row['wql']:>8.4f}{row['coverage']:>8.3f}{row['width']:>8.3f}"
        lines.append(f"{label:<24}{cells}  {against:>26}".rstrip())
    if interval := part["coverage_interval"]:
        row = part["test"].get("student", part["test"].get("model"))
        lines.append(
            f"coverage   {row['coverage']:.3f} [{interval[0]:.3f}, {interval[1]:.3f}], "
            f"expected {row['nominal']:.3f}"
        )
    return lines


def choice_part(manifest: Mapping[str, Any]) -> list[str]:
    """How the student was chosen, and an empty line after it."""
    lines = choice_lines(manifest["passes"], manifest["teacher"]["name"])
    return [*lines, ""] if lines else []


def verdict_lines(manifest: Mapping[str, Any]) -> list[str]:
    """What the figures say, in words, and how they were compared."""
    accuracy = manifest["accuracy"]
    lines = [f"verdict    {sentence}" for sentence in accuracy.get("verdict", ())]
    if whose := accuracy.get("judged"):
        lines += wrap(f"judged     {whose}", width=100, subsequent_indent=" " * 11)
    for method in dict.fromkeys(found["method"] for found in accuracy.get("comparisons", {}).values()):
        lines += wrap(f"interval   {method}", width=100, subsequent_indent=" " * 11)
    return lines


def latency_table(manifest: Mapping[str, Any]) -> list[str]:
    """Both scenarios: the artifact, and the speed-up over every form of the teacher; or why there is none."""
    latency = manifest.get("latency")
    if not latency:
        return ["latency    not measured here"]
    lines = []
    for name, record in latency["scenarios"].items():
        lines += scenario_table(name, record)
    if latency.get("measured_on") == "device":
        lines.append(f"measured   on the device, {device_words(latency['host'])}")
    for device in latency.get("devices", ()):
        lines += ["", f"measured   on {device_words(device['host'])}"]
        for name, record in device["scenarios"].items():
            lines += scenario_table(name, record)
    return lines


def scenario_table(scenario: str, record: Mapping[str, Any]) -> list[str]:
    """One scenario's rows, and what else must be known of it."""
    head = f"latency, {scenario}"
    lines = [f"{head:<24}{'p50 us':>10}{'p90 us':>10}{'cpu us':>10}{'speed-up over it':>30}"]
    for row in (record.get("artifact"), *record.get("teachers", ())):
        if row is None:
            continue
        name = f"teacher, {row['name']}" if "name" in row else "artifact"
        cells = "".join(_number(row.get(key)).rjust(10) for key in ("p50_us", "p90_us", "cpu_median_us"))
        against = speedup_words(row) if "speedup" in row else ""
        lines.append(f"{name:<24}{cells}{against:>30}".rstrip())
    lines += [
        f"{'teacher, ' + each['name']:<24}not run: {each['reason']}" for each in record.get("skipped", ())
    ]
    if "speedup" in record:
        fastest = record["teacher"]["name"]
        lines.append(f"speed-up   {speedup_words(record)} over the teacher in its fastest form, {fastest}")
    for row in (record.get("artifact"), *record.get("teachers", ())):
        if row and "modes" in row:
            modes = ", ".join(f"{mode['us']:.1f} us ({mode['share']:.0%})" for mode in row["modes"])
            lines.append(f"modes      {row.get('name', 'artifact')}: {modes}")
    if record.get("noisy"):
        lines.append("noisy      calls vary by more than 5 % of their median, or other programs had the core")
    lines += wrap(f"method     {record['method']}", width=100, subsequent_indent=" " * 11)
    return lines


def speedup_words(record: Mapping[str, Any]) -> str:
    """``12.3x [11.9, 12.8]``."""
    low, high = record["speedup_interval"]
    return f"{record['speedup']:.1f}x [{low:.1f}, {high:.1f}]"


def device_words(host: Mapping[str, Any]) -> str:
    """A device as its record describes it."""
    return ", ".join(str(host[name]) for name in ("board", "cpu", "machine") if host.get(name))


COST_WIDTHS = (13, 13, 13, 10, 10, 11)


def pass_table(manifest: Mapping[str, Any]) -> list[str]:
    """Seconds of every pass, and what those that change the teacher bought (``CostInstrument``).

    Stored and non-zero parameters are two columns: a zero is not a parameter removed.
    """
    costs = [entry["metrics"].get("cost") for entry in manifest["passes"]]
    lines = [f"{'passes':<24}{'seconds':>8}"]
    first = next((cost for cost in costs if cost), None)
    if first:
        names = ("stored", "non-zero", "bytes", "MACs", "val. MSE", "median us")
        lines[0] += "".join(f"{name:>{width}}" for name, width in zip(names, COST_WIDTHS, strict=True))
        lines.append(f"{'(as loaded)':<32}{_cost_cells(first, 'before')}")
    for entry, cost in zip(manifest["passes"], costs, strict=True):
        seconds = "cached" if entry["cached"] else f"{entry['seconds']:.1f}"
        lines.append(f"{entry['name']:<24}{seconds:>8}{_cost_cells(cost, 'after') if cost else ''}")
    return lines


def _cost_cells(cost: Mapping[str, Any], when: str) -> str:
    row, latency = cost[when], cost.get("latency_us", {}).get(when, {})
    cells = (
        f"{row['parameters']:,}",
        f"{row['nonzero_parameters']:,}",
        f"{row['size_bytes']:,}",
        f"{row['macs'] / 1e6:.1f} M",
        f"{row['validation_mse']:.4f}",
        _number(latency.get("median_us")),
    )
    speedup = f"  {cost['speedup']:.2f}x" if when == "after" and "speedup" in cost else ""
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, COST_WIDTHS, strict=True)) + speedup


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
