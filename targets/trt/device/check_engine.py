#!/usr/bin/env python3
"""Checks model.engine on this device against stored forecasts, and measures it.

Compares at input scales 1, 1e2 and 1e5, with one window and with the plan's largest batch: fusions
that go wrong do so at one of these.  Needs the standard library and TensorRT alone.
stdout is one JSON object.  Exit codes: 0 equal within tolerance, 3 TensorRT, the GPU or the plan is
missing or another one, 5 not equal.

    python3 check_engine.py             parity
    python3 check_engine.py --latency   parity, then single-stream latency with CUDA graphs
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from array import array
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # an artifact holds the listed files and no other

from trt_engine import DeviceError, Folder, Plan  # type: ignore[import-not-found]  # noqa: E402

WARM_UP_CALLS, WARM_UP_SECONDS, QUERIES = 50, 0.5, 2048
ENOUGH = {50: 11, 90: 64, 95: 130, 99: 662}
"""Queries that a percentile needs (MLPerf early-stopping estimate, confidence 0.99)."""


def read_floats(path: Path) -> array[float]:
    """Little-endian float32 values of a file."""
    values = array("f", path.read_bytes())
    if sys.byteorder == "big":
        values.byteswap()
    return values


def windows(pool: array[float], vector: dict[str, Any], width: int) -> array[float]:
    """The scaled windows of one vector, ``[B, D, L]``."""
    count = len(pool) // width
    past = array("f")
    for i in range(vector["batch"]):
        start = (vector["first"] + i) % count * width
        scale = vector["scales"][i % len(vector["scales"])]
        past.extend(value * scale for value in pool[start : start + width])
    return past


def worst_error(past: array[float], got: array[float], expected: array[float], count: int) -> float:
    """Largest ``max |got - expected| / (max |past| + max |expected|)`` of ``count`` windows."""
    worst = 0.0
    wide, width = len(past) // count, len(expected) // count
    for i in range(count):
        start = i * width
        truth = expected[start : start + width]
        size = max(map(abs, past[i * wide : (i + 1) * wide])) + max(map(abs, truth))
        differences = [abs(a - b) for a, b in zip(got[start : start + width], truth, strict=True)]
        if not all(map(math.isfinite, differences)):
            return math.inf  # max() may step over a nan
        worst = max(worst, max(differences) / size)
    return worst


def parity(plan: Any, directory: Path) -> list[dict[str, Any]]:
    """Every stored vector with its error and tolerance."""
    spec = plan.spec
    width = spec["input"]["shape"][0] * spec["input"]["shape"][1]
    pool = read_floats(directory / spec["pool"])
    results = []
    for vector in spec["vectors"]:
        past = windows(pool, vector, width)
        got = array("f", plan.run(past.tobytes(), vector["batch"]))
        expected = read_floats(directory / vector["expected"])
        error = worst_error(past, got, expected, vector["batch"])
        results.append(
            {
                "name": vector["name"],
                "batch": vector["batch"],
                "error": error,
                "tolerance": spec["tolerance"],
                "passed": error <= spec["tolerance"],
            }
        )
    return results


def latency(plan: Any, directory: Path) -> dict[str, Any]:
    """Single-stream latency of the smallest batch in microseconds: rotating windows, host copies in."""
    spec = plan.spec
    batch, shape = spec["batch"]["min"], spec["input"]["shape"]
    size = 4 * batch * shape[0] * shape[1]
    content = (directory / spec["pool"]).read_bytes()
    inputs = [content[i : i + size] for i in range(0, len(content) - size + 1, size)]
    replay = plan.graph(batch)
    times: list[int] = []
    gc.disable()
    started, calls = time.perf_counter(), 0
    while calls < WARM_UP_CALLS or time.perf_counter() - started < WARM_UP_SECONDS:
        plan.put(inputs[calls % len(inputs)])
        replay()
        calls += 1
    for i in range(QUERIES):
        past = inputs[i % len(inputs)]
        begin = time.perf_counter_ns()
        plan.put(past)
        replay()
        plan.get()
        times.append(time.perf_counter_ns() - begin)
    gc.enable()
    times.sort()
    median = times[len(times) // 2]
    deviation = sorted(abs(value - median) for value in times)[len(times) // 2]
    sizes = f"batch {batch}, L {shape[1]}, H {spec['output']['shape'][1]}, D {shape[0]}, {spec['precision']}"
    return {
        **{
            f"p{p}_us": times[min(len(times) - 1, len(times) * p // 100)] / 1000
            for p, n in ENOUGH.items()
            if len(times) >= n
        },
        "noisy": deviation > 0.05 * median,
        "method": f"single-stream, {sizes}, CUDA graph, warm-up {calls}, n {QUERIES}, {len(inputs)} windows,"
        " host copies in",
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency", action="store_true", help="measure after the check")
    parser.add_argument("--any-device", action="store_true", help="try a plan built for another GPU")
    options = parser.parse_args(arguments)
    directory = Path(__file__).resolve().parent
    try:
        plan = Plan(Folder(directory), options.any_device)
        results = parity(plan, directory)
        passed = all(result["passed"] for result in results)
        record = {
            "level": "executed" if passed else "device_built",
            "built_with": plan.record["built_with"],
            "gpu": plan.gpu,
            "parity": results,
        }
        if options.latency and passed:
            record["latency"] = latency(plan, directory)
    except DeviceError as error:
        print(json.dumps({"level": "missing", "errors": [str(error)]}))
        print(error, file=sys.stderr)
        return 3
    print(json.dumps(record))
    for result in results:
        if not result["passed"]:
            print(
                f"{result['name']}: error {result['error']:.3g} is above {result['tolerance']:.3g};"
                " do not use this engine: try another TensorRT version or fp32, and report it",
                file=sys.stderr,
            )
    return 0 if passed else 5


if __name__ == "__main__":
    sys.exit(main())
