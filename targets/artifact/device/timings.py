"""Timings: what one scenario's samples say, in a form that goes into a manifest.

Percentiles are MLPerf's early-stopping estimates: upper bounds at confidence 0.99, and absent where the
sample is too small for one.

The ratio of two candidates is that of their medians over rounds.  On one thread, where nothing waits for
another device, it is a ratio of processor times: a program that shares its core takes longer by the clock on
the wall, and the longer its calls are the more of them are hit, which would multiply the ratio.  Its 95 %
interval covers

    drift          a bootstrap over blocks of rounds, the same blocks for both (Kuensch 1989, moving blocks),
                   widened by Student's t because the blocks are few
    another run    memory lies elsewhere the next time: a relative standard deviation of ``BETWEEN_RUNS``
                   (Kalibera and Jones, Rigorous benchmarking in reasonable time, 2013: variation between
                   executions is not seen within one)
    the clock      the ratio by wall time with an interval of its own, where that departs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .modes import find_modes
from .rounds import Candidate, Turns

CONFIDENCE = 0.99
PERCENTILES = {"p50_us": 0.5, "p90_us": 0.9, "p95_us": 0.95, "p99_us": 0.99, "p99.9_us": 0.999}
NOISY, NOISY_COLD = 0.05, 0.10
"""Noisy: the median absolute deviation of the calls exceeds this part of their median, or other programs had
the core for more than ``NOISY`` of the time.  Cold calls vary by themselves: theirs is judged by medians of
four."""
BETWEEN_RUNS = 0.03
"""What ``benchmarks/latency_honesty.py`` found: 1.6 to 4.3 % on a machine with much other work."""
RESAMPLES = 1000
STUDENT_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23}
NORMAL = 1.96


class Row:
    """One candidate's samples.

    Attributes:
        turns_ns: wall time ``[R][calls]`` of the calls of each turn.
        cpu_ns: mean processor time ``[R]`` of a call of each turn.
        one_core: a call keeps one core busy and does nothing else: no other threads, no other device.
            Only then is processor time comparable, and time without it somebody else's.
    """

    def __init__(
        self,
        name: str,
        turns_ns: Sequence[np.ndarray],
        cpu_ns: np.ndarray,
        form: str | None = None,
        one_core: bool = True,
    ) -> None:
        self.name, self.turns_ns, self.cpu_ns = name, turns_ns, cpu_ns
        self.form, self.one_core = form, one_core

    @property
    def samples_ns(self) -> np.ndarray:
        """Every counted call."""
        return np.concatenate([np.asarray(turn, dtype=float) for turn in self.turns_ns])

    @property
    def turn_medians_ns(self) -> np.ndarray:
        """``[R]``."""
        return np.array([float(np.median(turn)) for turn in self.turns_ns])

    @property
    def median_us(self) -> float:
        """Of all calls, wall time."""
        return float(np.median(self.samples_ns)) / 1e3

    @property
    def spread(self) -> float:
        """Median absolute deviation of the calls over their median."""
        return relative_deviation(self.samples_ns)

    @property
    def off_cpu(self) -> float | None:
        """Share of the time in which it wanted the core and did not have it; None where that is not known."""
        if not self.one_core or not self.cpu_ns.any():
            return None
        wall = sum(float(np.mean(turn)) for turn in self.turns_ns)
        return max(0.0, 1.0 - float(self.cpu_ns.sum()) / wall)

    @property
    def noisy(self) -> bool:
        """See ``NOISY``."""
        single = all(len(turn) == 1 for turn in self.turns_ns)
        unsteady = (
            relative_deviation(in_fours(self.samples_ns)) > NOISY_COLD if single else self.spread > NOISY
        )
        return unsteady or (self.off_cpu or 0.0) > NOISY

    def percentile_us(self, name: str) -> float | None:
        """An entry of ``PERCENTILES``, or None where the sample does not support it."""
        bound = percentile_bound(self.samples_ns, PERCENTILES[name])
        return None if bound is None else bound / 1e3

    def to_dict(self) -> dict[str, Any]:
        """Supported percentiles in microseconds, and what is needed to judge them."""
        values: dict[str, Any] = {name: self.percentile_us(name) for name in PERCENTILES}
        record = {name: value for name, value in values.items() if value is not None}
        record.update(median_us=self.median_us, n=len(self.samples_ns), spread=self.spread, noisy=self.noisy)
        if self.cpu_ns.any():
            record["cpu_median_us"] = float(np.median(self.cpu_ns)) / 1e3
        if self.off_cpu is not None:
            record["off_cpu"] = self.off_cpu
        modes = find_modes(self.samples_ns)
        if len(modes) > 1:
            record["modes"] = [{"us": time_us, "share": share} for time_us, share in modes]
        if self.form is not None:
            record["form"] = self.form
        return record


class Ratio(NamedTuple):
    """How many times slower one candidate is than another, with a 95 % interval; see the top."""

    value: float
    low: float
    high: float


def rows_of(turns: Mapping[str, Turns], candidates: Mapping[str, Candidate], threads: int) -> dict[str, Row]:
    """What ``run_rounds`` filled, as rows."""
    return {
        name: Row(
            name,
            [np.array(times, dtype=float) for times in turn.wall_ns],
            np.array(turn.cpu_ns, dtype=float),
            candidates[name].form,
            one_core=threads == 1 and not candidates[name].waits,
        )
        for name, turn in turns.items()
    }


def ratio_of(slow: Row, fast: Row) -> Ratio:
    """Median time of ``slow`` over that of ``fast``."""
    wall = _ratio(slow.turn_medians_ns, fast.turn_medians_ns)
    if not all(row.one_core and np.median(row.cpu_ns) > 0 for row in (slow, fast)):
        return wall
    cpu = _ratio(slow.cpu_ns, fast.cpu_ns)
    return Ratio(cpu.value, min(cpu.low, wall.low), max(cpu.high, wall.high))


def _ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    rounds = len(slow)
    value = float(np.median(slow) / np.median(fast))
    length = max(1, round(rounds**0.5))
    blocks = -(-rounds // length)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, rounds, size=(RESAMPLES, blocks))
    chosen = ((starts[:, :, None] + np.arange(length)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]
    ratios = np.median(slow[chosen], axis=1) / np.median(fast[chosen], axis=1)
    ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
    low, high = np.log(np.percentile(ratios, [2.5, 97.5]) / value)
    few = STUDENT_T.get(blocks - 1, NORMAL * (1 + 2.5 / max(blocks, 1))) / NORMAL
    below, above = (math.hypot(few * edge, NORMAL * BETWEEN_RUNS) for edge in (min(low, 0), max(high, 0)))
    return Ratio(value, value * math.exp(-below), value * math.exp(above))


def percentile_bound(samples: Any, percentile: float) -> float | None:
    """MLPerf's early-stopping estimate of one percentile: an upper bound at confidence 0.99.

    With ``t`` the largest count for which P(Binomial(n, 1 - percentile) <= t) <= 0.01, the estimate is the
    t-th largest sample.  None where ``n`` does not allow t = 1: below 11 samples for p50, 64 for p90,
    130 for p95, 662 for p99 and 6636 for p99.9.
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    n, slower = len(ordered), 1.0 - percentile
    if n == 0:
        return None
    counts = np.arange(n)
    steps = np.log((n - counts) / (counts + 1)) + math.log(slower / percentile)
    log_terms = n * math.log(percentile) + np.concatenate([[0.0], np.cumsum(steps)])
    tail = np.cumsum(np.exp(log_terms))  # P(Binomial(n, slower) <= t)
    t = int(np.searchsorted(tail, 1.0 - CONFIDENCE, side="right")) - 1
    return float(ordered[n - t]) if t >= 1 else None


def relative_deviation(values: np.ndarray) -> float:
    """Median absolute deviation over the median."""
    middle = np.median(values)
    return float(np.median(np.abs(values - middle)) / middle)


def in_fours(values: np.ndarray) -> np.ndarray:
    """Medians of four values that follow each other, where there are at least four of them."""
    groups = len(values) // 4
    return values if groups < 4 else np.median(values[: groups * 4].reshape(groups, 4), axis=1)
