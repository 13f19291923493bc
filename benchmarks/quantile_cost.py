"""What quantiles cost, and whether they ever cross.

    python benchmarks/quantile_cost.py [--windows 10000] [--out results/quantile_cost]

time       the point student against 3 and 9 levels on onnxruntime and on c: one thread, batch 1, all in
           turns within one process, so that a busy machine slows all; the figure is the median of the ratios
           of neighbouring rounds, and its quartiles say how busy it was
crossings  neighbouring levels in the wrong order over drawn windows: random walks with spreads from 1e-3 to
           1e3 around levels from 0 to 1e6, on onnxruntime, c and tvm, in fp32 and int8

Weights and windows are drawn: neither question hangs on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn import student

from tsfmc.compiler.ir.quantiles import QuantileForecaster, QuantileHead, Spread
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.host import host_record

LOOKBACK, HORIZON, VARIATES = 512, 96, 7
LEVELS = {
    1: (),
    3: (0.1, 0.5, 0.9),
    9: tuple(round(0.1 * step, 1) for step in range(1, 10)),
}
ROUNDS, ROUND_SECONDS = 41, 0.01
ENGINES = (
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("c", "fp32"),
    ("c", "int8"),
    ("tvm", "fp32"),
    ("tvm", "int8-weights"),
)
RESULTS = Path(__file__).parent / "results" / "quantile_cost"
Call = Callable[[np.ndarray], np.ndarray]


def model(levels: tuple[float, ...]) -> torch.nn.Module:
    """One map for all variates, with offsets that ascend."""
    point = student({"kind": "affine", "bias": False}, LOOKBACK, HORIZON)
    if not levels:
        return point
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(VARIATES, HORIZON, len(levels), generator=generator).sort(-1).values
    head = QuantileHead.of(offsets, levels, Spread("deviation"))
    return QuantileForecaster(point, head).eval()


def windows(count: int, seed: int = 0) -> np.ndarray:
    """``[N, D, L]`` random walks of all spreads and levels."""
    rng = np.random.default_rng(seed)
    walks = rng.normal(size=(count, VARIATES, LOOKBACK)).cumsum(-1)
    spreads = 10.0 ** rng.uniform(-3, 3, size=(count, VARIATES, 1))
    levels = rng.choice([0.0, 1.0, 1e3, 1e6], size=(count, VARIATES, 1))
    return (walks * spreads + levels).astype(np.float32)


def engine(kind: str, precision: str, levels: tuple[float, ...], folder: Path) -> Call:
    """The class that artifacts carry, one window at a time."""
    target = TARGETS[kind]
    options: dict[str, Any] = {"precision": precision} if precision != "fp32" else {}
    if kind == "onnx":
        options["batch"] = 1
    shape = Shape(VARIATES, LOOKBACK, HORIZON, max(1, len(levels)))
    folder.mkdir(parents=True)
    calibration = (windows(16, seed=1) / 100).astype(np.float32)
    payload = target.lower_model(
        model(levels), shape, folder, options=target.Options(**options), calibration=calibration
    )
    return target.load(folder, payload, 1)


def seconds(call: Call, past: np.ndarray, count: int) -> float:
    """Mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(count):
        call(past)
    return (time.perf_counter() - start) / count


def time_rows(kind: str, folder: Path) -> list[dict[str, Any]]:
    """The point student and each number of levels in turns."""
    calls = {
        count: engine(kind, "fp32", levels, folder / f"{kind}-{count}") for count, levels in LEVELS.items()
    }
    past = windows(1)
    for call in calls.values():
        seconds(call, past, 100)
    count = max(10, int(ROUND_SECONDS / seconds(calls[1], past, 50)))
    rounds = [{levels: seconds(call, past, count) for levels, call in calls.items()} for _ in range(ROUNDS)]
    rows = []
    for levels in calls:
        ratios = sorted(found[levels] / found[1] for found in rounds)
        rows.append(
            {
                "engine": kind,
                "levels": levels,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_quartiles": [round(ratios[ROUNDS // 4], 3), round(ratios[-ROUNDS // 4], 3)],
                "allowed": None if levels == 1 else round(1.2 * levels, 2),
                "fastest_us": round(min(found[levels] for found in rounds) * 1e6, 2),
            }
        )
    return rows


def crossing_row(kind: str, precision: str, count: int, folder: Path) -> dict[str, Any]:
    """Crossings of 9 levels over ``count`` windows; says why where there is no such engine here."""
    row = {"engine": kind, "precision": precision, "levels": 9, "windows": count}
    target = TARGETS[kind]
    here = target.probe()
    if not here.can_run:
        return {**row, "crossings": None, "why": "; ".join(here.problems)}
    try:
        call = engine(kind, precision, LEVELS[9], folder / f"{kind}-{precision}")
    except Exception as error:
        return {
            **row,
            "crossings": None,
            "why": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}",
        }
    crossed = 0
    for start in range(0, count, 500):
        for past in windows(min(500, count - start), seed=2 + start):
            steps = call(past[None]).reshape(VARIATES, HORIZON, 9)
            crossed += int((np.diff(steps, axis=-1) < 0).sum())
    return {**row, "crossings": crossed}


def markdown(found: dict[str, Any]) -> str:
    """Two tables and how they were made."""
    lines = ["# What quantiles cost", "", found["method"], ""]
    lines += ["| engine | levels | time over the point's | quartiles | allowed | fastest us |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in found["time"]:
        low, high = row["ratio_quartiles"]
        lines.append(
            f"| {row['engine']} | {row['levels']} | {row['ratio']:.2f} | {low:.2f} to {high:.2f} "
            f"| {row['allowed'] or '-'} | {row['fastest_us']:.1f} |"
        )
    lines += ["", "| engine | precision | windows | crossings |", "| --- | --- | ---: | ---: |"]
    for row in found["crossings"]:
        crossed = row["crossings"] if row["crossings"] is not None else f"not run: {row['why']}"
        lines.append(f"| {row['engine']} | {row['precision']} | {row['windows']:,} | {crossed} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes ``--out`` with the endings json and md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=10_000)
    parser.add_argument("--machine", default="not known to be quiet", help="what else ran, in words")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "host": host_record(),
        "method": f"One shared map, {VARIATES} variates, lookback {LOOKBACK}, horizon {HORIZON}, one thread, "
        f"batch 1, in turns in one process, median of {ROUNDS} ratios. Machine: {arguments.machine}.",
        "time": [],
        "crossings": [],
    }
    with tempfile.TemporaryDirectory() as name:
        for kind in ("onnx", "c"):
            found["time"] += time_rows(kind, Path(name) / "time")
            print(*found["time"][-3:], sep="\n", flush=True)
        for kind, precision in ENGINES:
            found["crossings"].append(crossing_row(kind, precision, arguments.windows, Path(name) / "cross"))
            print(found["crossings"][-1], flush=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(found))


if __name__ == "__main__":
    main()
