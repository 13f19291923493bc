"""The latency rule: one way to measure, for every target.

MLPerf's single-stream scenario: the next query starts when the previous one has ended.  All candidates are
measured in the same run, interleaved, on the same rotating real windows, with the same number of threads
and the garbage collector off.

    round:  A ... A  B     one call of the slowest candidate, ``calls`` of each faster one
    stop:   after ``duration_s``, but never before ``min_rounds``: 64, what a p90 of the slowest needs

``calls`` is 1, the plain A B A B, whenever ``min_queries`` rounds fit into ``duration_s``; only where a slow
teacher leaves room for few rounds do faster candidates run several times a round, so that they still reach
``min_queries``.  The first call after another candidate finds cold caches and counts like the others.

Percentiles are MLPerf's early-stopping estimates (upper bounds at confidence 0.99) and absent where the
sample is too small for one.  The ratio of two candidates is the ratio of their medians, with an interval
from a bootstrap over blocks of rounds, the same blocks for both, so that drift of the machine cancels.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.base.errors import UsageError, VerificationError
from ..artifact.device.bench import percentile_bound
from .host import host_record

if TYPE_CHECKING:
    from torch import nn

MIN_WINDOWS = 64
MIN_ROUNDS = 64
MAX_ROUNDS = 16384
"""Enough for a p99.9; a longer run would only cost time and memory."""
PERCENTILES = {"p50_us": 0.5, "p90_us": 0.9, "p95_us": 0.95, "p99_us": 0.99, "p99.9_us": 0.999}
NOISY = 0.05
"""A run is noisy when the median absolute deviation exceeds this part of the median."""
RESAMPLES = 1000
COLD_STARTS = 3

Call = Callable[[np.ndarray], Any]


@dataclass(frozen=True, eq=False)
class Row:
    """One candidate's samples: ``samples_ns [rounds, calls]``."""

    name: str
    samples_ns: np.ndarray
    form: str | None = None

    @property
    def median_us(self) -> float:
        """The sample median; ratios are made of it."""
        return float(np.median(self.samples_ns)) / 1e3

    @property
    def spread(self) -> float:
        """Median absolute deviation over the median."""
        middle = np.median(self.samples_ns)
        return float(np.median(np.abs(self.samples_ns - middle)) / middle)

    def percentile_us(self, name: str) -> float | None:
        """An entry of ``PERCENTILES``, or None where the sample does not support it."""
        bound = percentile_bound(self.samples_ns.ravel().tolist(), PERCENTILES[name])
        return None if bound is None else bound / 1e3

    def to_dict(self) -> dict[str, Any]:
        """Supported percentiles in microseconds, and what is needed to judge them."""
        values: dict[str, Any] = {name: self.percentile_us(name) for name in PERCENTILES}
        record = {name: value for name, value in values.items() if value is not None}
        record |= {
            "median_us": self.median_us,
            "n": int(self.samples_ns.size),
            "spread": self.spread,
            "noisy": self.spread > NOISY,
        }
        if self.form is not None:
            record["form"] = self.form
        return record


@dataclass(frozen=True)
class Ratio:
    """How many times slower one candidate is than another, with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LatencyReport:
    """What one run measured: a row for each candidate, the method and the host."""

    rows: Mapping[str, Row]
    method: str
    host: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noisy(self) -> bool:
        """Whether any candidate was."""
        return any(row.spread > NOISY for row in self.rows.values())

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Median time of ``slow`` over that of ``fast``."""
        above, below = self.rows[slow].samples_ns, self.rows[fast].samples_ns
        rounds = len(above)
        length = max(1, round(rounds**0.5))
        rng = np.random.default_rng(0)
        starts = rng.integers(0, rounds - length + 1, size=(RESAMPLES, -(-rounds // length)))
        blocks = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :rounds]
        ratios = [float(np.median(above[chosen]) / np.median(below[chosen])) for chosen in blocks]
        low, high = np.percentile(ratios, [2.5, 97.5])
        return Ratio(float(np.median(above) / np.median(below)), float(low), float(high))

    def to_manifest(self) -> dict[str, Any]:
        """``{artifact, teacher, ..., speedup, speedup_interval, method, host}``; the speed-up is that of
        ``artifact`` over ``teacher`` and absent unless both were measured."""
        record: dict[str, Any] = {name: row.to_dict() for name, row in self.rows.items()}
        if {"artifact", "teacher"} <= set(self.rows):
            speedup = self.ratio("teacher", "artifact")
            record |= {"speedup": speedup.value, "speedup_interval": [speedup.low, speedup.high]}
        return {**record, "noisy": self.noisy, "method": self.method, "host": dict(self.host)}


def measure(
    candidates: Mapping[str, Call],
    windows: np.ndarray,
    *,
    threads: int = 1,
    duration_s: float = 5.0,
    min_queries: int = 1024,
    warmup_calls: int = 50,
    warmup_s: float = 0.5,
    min_rounds: int = MIN_ROUNDS,
    precision: str = "fp32",
    forms: Mapping[str, str] | None = None,
) -> LatencyReport:
    """Measures all candidates in one interleaved run.

    Args:
        candidates: name -> call on one window ``[1, D, L]`` float32 in host memory; it must return the
            forecast in host memory, so that copies are inside.
        windows: at least 64 real windows ``[N, D, L]``.
        threads: what the candidates were opened with; torch is pinned to it during the run.
        duration_s: upper limit of the measured part, unless ``min_rounds`` take longer.
        min_queries: calls that each candidate gets, as far as ``duration_s`` allows; see above.
        min_rounds: fewer than 64 only for models of seconds a call: medians, ratio and fewer percentiles.
        forms: name -> the form a candidate runs in, such as ``fp32, inference_mode``, for the record.

    Raises:
        UsageError: fewer than 64 windows, or windows of zeros, whose speed says nothing.
    """
    if windows.ndim != 3 or len(windows) < MIN_WINDOWS:
        raise UsageError(
            f"latency needs at least {MIN_WINDOWS} windows [N, D, L], got shape {list(windows.shape)}",
            hint="take more windows of the data",
        )
    if not windows.any():
        raise UsageError("latency is measured on real windows, got only zeros")
    rotation = [np.ascontiguousarray(window[None], dtype=np.float32) for window in windows]
    with _pinned(threads), _no_garbage_collection():
        warmups = {
            name: _warm_up(call, rotation, warmup_calls, warmup_s) for name, call in candidates.items()
        }
        calls = _calls_per_round(
            {name: warm.typical_s for name, warm in warmups.items()}, duration_s, min_queries, min_rounds
        )
        samples = _run_rounds(candidates, calls, rotation, duration_s, min_rounds)
    rows = {
        name: Row(name, np.array(samples[name]).reshape(-1, calls[name]), (forms or {}).get(name))
        for name in candidates
    }
    shape = warmups[next(iter(candidates))].output_shape
    method = _method(rows, calls, windows.shape, shape[-1], threads, warmups, precision)
    return LatencyReport(rows, method, host_record())


def torch_candidate(model: nn.Module, *, compiled: bool = False) -> Call:
    """A PyTorch model in its fair form: ``inference_mode``, numpy in and out, optionally ``torch.compile``.

    The model is expected in eval mode, fp32, on the CPU.
    """
    import torch

    forward = torch.compile(model) if compiled else model

    def call(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = forward(torch.from_numpy(past)).numpy()
        return forecast

    return call


def cold_start(directory: Path, threads: int = 1) -> dict[str, Any]:
    """Load time, first call and peak memory of an artifact, each time in a fresh process: medians of three.

    The process runs this package's runner with the target's engine (the same text as the artifact's own
    ``run.py``, but no code out of the artifact is executed).

    Returns:
        ``load_ms`` (imports, hashes, opening the engine), ``first_call_ms``, ``peak_rss_mb``, ``n``.

    Raises:
        VerificationError: the artifact does not load.
    """
    from .. import TARGETS
    from ..artifact.device.manifest import read_manifest
    from ..artifact.open import compiler_errors
    from ..artifact.runner import render_runner

    with compiler_errors():
        kind = read_manifest(directory)["target"]["kind"]
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
        script = Path(folder) / "run.py"
        script.write_text(render_runner(TARGETS[kind].engine_source()), encoding="utf-8")
        command = [sys.executable, "-I", str(script), "--artifact", str(directory.resolve())]
        command += ["--threads", str(threads), "bench", "--queries", "0"]
        results = [_run_json(command) for _ in range(COLD_STARTS)]
    names = [name for name, value in results[0].items() if value is not None]
    return {
        **{name: statistics.median(result[name] for result in results) for name in names},
        "n": COLD_STARTS,
    }


def github_action_benchmark(report: LatencyReport, name: str) -> list[dict[str, Any]]:
    """Entries of github-action-benchmark, tool ``customSmallerIsBetter``: percentiles, and the time relative
    to the teacher, which unlike them does not depend on the machine of the day."""
    entries: list[dict[str, Any]] = []
    for candidate, row in report.rows.items():
        for percentile in ("p50_us", "p90_us"):
            value = row.percentile_us(percentile)
            if value is not None:
                title = f"{name} {candidate} {percentile.removesuffix('_us')}"
                entries.append(
                    {
                        "name": title,
                        "unit": "us",
                        "value": value,
                        "range": f"± {row.spread:.1%}",
                        "extra": report.method,
                    }
                )
    if {"artifact", "teacher"} <= set(report.rows):
        ratio = report.ratio("artifact", "teacher")
        entries.append(
            {
                "name": f"{name} artifact / teacher",
                "unit": "ratio",
                "value": ratio.value,
                "range": f"{ratio.low:.4g} to {ratio.high:.4g}",
                "extra": report.method,
            }
        )
    return entries


@dataclass(frozen=True)
class _WarmUp:
    calls: int
    typical_s: float
    output_shape: Sequence[int]


def _warm_up(call: Call, rotation: Sequence[np.ndarray], min_calls: int, min_s: float) -> _WarmUp:
    times: list[int] = []
    until = time.perf_counter_ns() + int(min_s * 1e9)
    shape: Sequence[int] = ()
    while len(times) < min_calls or time.perf_counter_ns() < until or not times:
        began = time.perf_counter_ns()
        forecast = call(rotation[len(times) % len(rotation)])
        times.append(time.perf_counter_ns() - began)
        shape = tuple(forecast.shape)
    return _WarmUp(len(times), statistics.median(times[len(times) // 2 :]) / 1e9, shape)


def _calls_per_round(
    typical_s: Mapping[str, float], duration_s: float, min_queries: int, min_rounds: int
) -> dict[str, int]:
    """See the top of this file: 1 where time allows, else more for those faster than the slowest."""
    rounds = min(max(duration_s / sum(typical_s.values()), min_rounds), MAX_ROUNDS)
    slowest = max(typical_s, key=lambda name: typical_s[name])
    several = -(-min_queries // int(rounds))
    return {
        name: 1 if name == slowest else max(1, min(several, int(typical_s[slowest] / seconds)))
        for name, seconds in typical_s.items()
    }


def _run_rounds(
    candidates: Mapping[str, Call],
    calls: Mapping[str, int],
    rotation: Sequence[np.ndarray],
    duration_s: float,
    min_rounds: int,
) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {name: [] for name in candidates}
    plan = [(call, samples[name], range(calls[name])) for name, call in candidates.items()]
    clock, count = time.perf_counter_ns, len(rotation)
    until = clock() + int(duration_s * 1e9)
    for done in range(MAX_ROUNDS):
        if done >= min_rounds and clock() >= until:
            break
        for call, times, several in plan:
            for _ in several:
                window = rotation[len(times) % count]
                began = clock()
                call(window)
                times.append(clock() - began)
    return samples


def _method(
    rows: Mapping[str, Row],
    calls: Mapping[str, int],
    windows: Sequence[int],
    horizon: int,
    threads: int,
    warmups: Mapping[str, _WarmUp],
    precision: str,
) -> str:
    def each(values: Mapping[str, int]) -> str:
        if len(set(values.values())) == 1:
            return str(next(iter(values.values())))
        return " / ".join(f"{value} {name}" for name, value in values.items())

    count, variates, lookback = windows
    parts = [
        "single-stream",
        "batch 1",
        f"L {lookback}",
        f"H {horizon}",
        f"D {variates}",
        precision,
        f"{threads} thread{'s' if threads > 1 else ''}",
        f"warm-up {each({name: warm.calls for name, warm in warmups.items()})}",
        f"n {each({name: row.samples_ns.size for name, row in rows.items()})}",
        f"{min(count, max(row.samples_ns.size for row in rows.values()))} windows",
        "host copies in",
    ]
    others = [name for name in rows if name != "artifact"]
    if len(rows) > 1:
        parts.append(f"interleaved with {' and '.join(others)}" if others else "interleaved")
        if max(calls.values()) > 1:
            parts.append(f"calls a round {each(calls)}")
    if any(row.percentile_us("p50_us") is not None for row in rows.values()):
        parts.append("percentiles are upper bounds at confidence 0.99")
    else:
        parts.append("too few calls for percentiles")
    return ", ".join(parts)


def _run_json(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise VerificationError(
            f"the artifact does not start in a fresh process: {done.stderr.strip()[-300:]}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """torch on ``threads`` threads inside, as before outside; nothing where torch was never imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
