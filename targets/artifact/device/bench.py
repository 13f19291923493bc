"""Bench: load time, memory and single-stream latency on this device."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .forecaster import Forecaster
from .start import STARTED_NS

CONFIDENCE = 0.99


def bench(forecaster: Forecaster, queries: int = 1024) -> dict[str, Any]:
    """First call, peak memory and single-stream latency on this device; see the method string.

    Percentiles are left out where ``queries`` do not support them.
    """
    windows = list(forecaster.scaling.unscale(forecaster.example_windows(64)[:, None]))
    began = time.perf_counter_ns()
    forecaster.forecast(windows[0])
    result: dict[str, Any] = {
        "load_ms": (began - STARTED_NS) / 1e6,
        "first_call_ms": (time.perf_counter_ns() - began) / 1e6,
        "peak_rss_mb": peak_rss_mb(),
    }
    if queries < 1:
        return result
    warm_until = time.perf_counter_ns() + 500_000_000
    warmed = 0
    while warmed < 50 or time.perf_counter_ns() < warm_until:
        forecaster.forecast(windows[warmed % len(windows)])
        warmed += 1
    samples = []
    gc.disable()
    try:
        for query in range(queries):
            window = windows[query % len(windows)]
            start = time.perf_counter_ns()
            forecaster.forecast(window)
            samples.append(time.perf_counter_ns() - start)
    finally:
        gc.enable()
    for percent in (50, 90, 99):
        value = percentile_bound(samples, percent / 100)
        if value is not None:
            result[f"p{percent}_us"] = value / 1e3
    result["n"] = queries
    result["method"] = (
        f"single-stream, batch 1, L {forecaster.lookback}, H {forecaster.horizon}, "
        f"D {len(forecaster.variates)}, warm-up {warmed}, n {queries}, "
        "64 windows rolled from the self-test windows, scaling and host copies in"
    )
    return result


def percentile_bound(samples: Sequence[float], percentile: float) -> float | None:
    """MLPerf's early-stopping estimate of one percentile: an upper bound at confidence 0.99.

    With ``t`` the largest count for which P(Binomial(n, 1 - percentile) <= t) <= 0.01, the estimate is the
    t-th largest sample.  None where ``n`` does not allow t = 1: below 11 samples for p50, 64 for p90,
    130 for p95, 662 for p99 and 6636 for p99.9.
    """
    n, slower = len(samples), 1.0 - percentile
    below = 0.0  # P(Binomial(n, slower) <= t), summed term by term
    t = -1
    while t < n:
        log_term = math.lgamma(n + 1) - math.lgamma(t + 2) - math.lgamma(n - t)
        below += math.exp(log_term + (t + 1) * math.log(slower) + (n - t - 1) * math.log(percentile))
        if below > 1.0 - CONFIDENCE:
            break
        t += 1
    return sorted(samples)[n - t] if t >= 1 else None


def peak_rss_mb() -> float | None:
    """Highest resident memory of this process so far, or None where the system does not tell."""
    try:  # not getrusage: on Linux its figure starts with the memory of the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
