"""Is the interval of a speed-up honest?  Short and long runs, alone and beside a busy core, many times over.

    tsfmc compile --recipe benchmarks/demo.toml --target onnx --target tvm --out out
    python benchmarks/latency_honesty.py out/onnx out/tvm

Every run is a process of its own: ``tsfmc bench ARTIFACT... --against teacher``.  Runs of all lengths, with
and without load, take turns, so that the machine's day is the same for all.  Two runs agree when their
intervals overlap; the truth, as far as it can be known, is the median of the long runs without load.  "Alone"
means that this script starts no other load: ``load_before`` says how many other programs wanted a core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SCENARIOS = ("stream", "interval")
ALONE, BUSY = "alone", "busy"


def main() -> None:
    """Runs what is asked for; what is already in the results is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="*", type=Path)
    parser.add_argument("--durations", nargs="+", type=float, default=[2.0, 30.0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--forms", default="eager")
    parser.add_argument("--results", type=Path, default=RESULTS / "latency_honesty.json")
    options = parser.parse_args()
    runs = json.loads(options.results.read_text())["runs"] if options.results.is_file() else []
    for repeat in range(options.repeats if options.artifacts else 0):
        for duration in options.durations:
            for condition in (ALONE, BUSY):
                if any(
                    (run["repeat"], run["duration_s"], run["condition"]) == (repeat, duration, condition)
                    for run in runs
                ):
                    continue
                runs.append({"repeat": repeat, **one_run(options, duration, condition)})
                options.results.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
                print(json.dumps(runs[-1])[:200], file=sys.stderr)
    found = {"summary": summary(runs), "runs": runs}
    options.results.write_text(json.dumps(found, indent=1) + "\n")
    options.results.with_suffix(".md").write_text(page(found["summary"]))
    print(page(found["summary"]))


def one_run(options: argparse.Namespace, duration: float, condition: str) -> dict[str, Any]:
    """Speed-ups of every artifact, by scenario."""
    command = [sys.executable, "-m", "tsfmc", "bench", *map(str, options.artifacts), "--against", "teacher"]
    command += ["--forms", options.forms, "--duration", str(duration), "--format", "json"]
    load = os.getloadavg()[0]
    with busy_cores(os.cpu_count() or 1 if condition == BUSY else 0):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = {
        f"{entry['name']} {scenario}": {
            "speedup": record["speedup"],
            "interval": record["speedup_interval"],
            "wall_ratio": record["teacher"]["median_us"] / record["artifact"]["median_us"],
            "noisy": record["noisy"],
        }
        for entry in json.loads(done.stdout)
        for scenario, record in entry["scenarios"].items()
    }
    seconds = round(time.monotonic() - began, 1)
    return {
        "duration_s": duration,
        "condition": condition,
        "took_s": seconds,
        "load_before": round(load, 2),
        "rows": rows,
    }


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """``count`` processes that compute without end."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For every artifact and scenario: who agrees with whom, and who holds the truth."""
    found = {}
    for name in runs[0]["rows"] if runs else ():
        cells = [(run["condition"], run["duration_s"], run["rows"][name]) for run in runs]
        longest = max(duration for _, duration, _ in cells)
        calm = [row["speedup"] for how, length, row in cells if (how, length) == (ALONE, longest)]
        truth = statistics.median(calm)
        pairs = [
            overlap(a[2]["interval"], b[2]["interval"]) for a, b in combinations(cells, 2) if a[1] != b[1]
        ]
        groups = {}
        for condition in (ALONE, BUSY):
            for duration in sorted({cell[1] for cell in cells}):
                rows = [row for c, d, row in cells if (c, d) == (condition, duration)]
                groups[f"{condition} {duration:g} s"] = group(rows, truth) if rows else None
        logs = [math.log(value) for value in calm]
        found[name] = {
            "truth": truth,
            "between_runs": statistics.stdev(logs) if len(logs) > 1 else None,
            "short_and_long_overlap": [sum(pairs), len(pairs)],
            "groups": groups,
        }
    return found


def group(rows: list[dict[str, Any]], truth: float) -> dict[str, Any]:
    """Runs of one length in one condition."""
    return {
        "runs": len(rows),
        "speedup": [min(row["speedup"] for row in rows), max(row["speedup"] for row in rows)],
        "wall_ratio": [min(row["wall_ratio"] for row in rows), max(row["wall_ratio"] for row in rows)],
        "median_interval": [statistics.median(row["interval"][end] for row in rows) for end in (0, 1)],
        "hold_the_truth": sum(row["interval"][0] <= truth <= row["interval"][1] for row in rows),
        "noisy": sum(row["noisy"] for row in rows),
    }


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two intervals touch."""
    return one[0] <= other[1] and other[0] <= one[1]


def page(found: dict[str, Any]) -> str:
    """The summary in Markdown."""
    lines = [
        "# Short and long runs, alone and beside busy cores",
        "",
        "Written by `benchmarks/latency_honesty.py`, which says what is what.",
        "",
    ]
    for name, facts in found.items():
        held, pairs = facts["short_and_long_overlap"]
        lines += [
            f"## {name}",
            "",
            f"Median of the long runs alone {facts['truth']:.1f}x, standard deviation between runs "
            f"{facts['between_runs'] or 0:.1%}; {held} of {pairs} pairs of a short and a long run overlap.",
            "",
            "| runs | speed-up | median interval | ratio of wall medians | hold the truth | noisy |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for label, row in facts["groups"].items():
            if row is None:
                continue
            low, high = row["median_interval"]
            lines.append(
                f"| {label} | {row['speedup'][0]:.1f} to {row['speedup'][1]:.1f} | {low:.1f} to {high:.1f} "
                f"| {row['wall_ratio'][0]:.1f} to {row['wall_ratio'][1]:.1f} "
                f"| {row['hold_the_truth']} of {row['runs']} | {row['noisy']} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
