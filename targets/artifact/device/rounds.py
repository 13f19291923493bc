"""Rounds: how candidates take turns, in two scenarios that are measured apart and never mixed.

    stream     the next call follows at once, as in MLPerf's single-stream scenario: caches are warm.
               A turn: 2 ms of calls that do not count, which undo what the candidate before left in the
               caches, then 20 ms of calls that count, but at least four.
    interval   a forecast now and then, as a device makes it: caches are cold.
               A turn: other work reads and writes a buffer, the same for all and not timed, then one call.

A round is one turn of each candidate; which of them begins rotates.  What a turn is made of follows from the
candidate's own speed in the warm-up and from nothing else: neither from how slow another one is nor from how
long the run lasts, so that a longer run measures the same quantity more often.

Wall time is taken call by call, processor time turn by turn, because its clock is coarse on some systems and
slow on all; what an empty turn of as many calls takes is subtracted from it.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

STREAM, INTERVAL = SCENARIOS = ("stream", "interval")
SLICE_S = 0.02
SETTLE_S = 0.002
SETTLED_S = 0.02
"""A call of this length warms its caches itself: none goes uncounted."""
LEAST_CALLS = 4
SLOW_S = 0.25
"""A call of this length has a turn for itself."""
MAX_CALLS, MAX_ROUNDS = 4096, 4096
MIN_QUERIES = 64
"""Calls that a 90th percentile needs."""
WARM_UP_CALLS, WARM_UP_S = 50, 0.5
LONGEST_WARM_UP_S = 2.0
"""Slow candidates end their warm-up here, after five calls."""
EVICT_MIB = (8, 64)
"""Least and most of what is read and written between two calls, see ``eviction_mib``."""
EMPTY_TURNS = 9


class Candidate:
    """What is measured.

    Attributes:
        call: one window ``[1, D, L]`` float32 in host memory to its forecast in host memory.
        form: what it runs in, such as ``fp32, PyTorch eager``, for the record.
        waits: another device does its work, so that this processor's time says nothing about it.
    """

    def __init__(
        self, call: Callable[[np.ndarray], Any], form: str | None = None, waits: bool = False
    ) -> None:
        self.call, self.form, self.waits = call, form, waits


class WarmUp:
    """What the warm-up of a candidate found.

    Attributes:
        typical_s: usual time of a call, less what other programs took of it: a turn must not depend on them.
        output_shape: of the forecast.
    """

    def __init__(self, calls: int, typical_s: float, output_shape: tuple[int, ...]) -> None:
        self.calls, self.typical_s, self.output_shape = calls, typical_s, output_shape


class Turns:
    """One candidate's turns in one scenario.

    Attributes:
        settle, calls: of a turn, those that are not counted and those that are.
        wall_ns: wall time of each counted call, turn by turn.
        cpu_ns: mean processor time of a turn's calls.
        place: of the next window in the rotation.
    """

    def __init__(self, settle: int, calls: int) -> None:
        self.settle, self.calls = settle, calls
        self.wall_ns: list[list[int]] = []
        self.cpu_ns: list[float] = []
        self.place = 0


def warm_up(
    candidate: Candidate, rotation: Sequence[np.ndarray], calls: int, seconds: float, threads: int = 1
) -> WarmUp:
    """Both at least ``calls`` calls and ``seconds``; see ``LONGEST_WARM_UP_S``."""
    wall: list[int] = []
    cpu: list[int] = []
    shape: tuple[int, ...] = ()
    start = time.perf_counter_ns()
    while True:
        passed = (time.perf_counter_ns() - start) / 1e9
        done = len(wall) >= calls and passed >= seconds
        if wall and (done or (len(wall) >= min(calls, 5) and passed >= max(seconds, LONGEST_WARM_UP_S))):
            break
        cpu_began, began = time.process_time_ns(), time.perf_counter_ns()
        forecast = candidate.call(rotation[len(wall) % len(rotation)])
        wall.append(time.perf_counter_ns() - began)
        cpu.append(time.process_time_ns() - cpu_began)
        shape = tuple(forecast.shape)
    clocks = [cpu, wall] if threads == 1 and not candidate.waits else [wall]
    medians = (statistics.median(times[len(times) // 2 :]) for times in clocks)
    typical = next((median for median in medians if median > 0), 1)  # a coarse clock may not tick in a call
    return WarmUp(len(wall), typical / 1e9, shape)


def stream_turn(typical_s: float) -> Turns:
    """A turn of the stream for a candidate whose calls take this long."""
    settle = 0 if typical_s >= SETTLED_S else math.ceil(SETTLE_S / typical_s)
    least = 1 if typical_s >= SLOW_S else LEAST_CALLS
    return Turns(min(settle, MAX_CALLS), min(max(least, round(SLICE_S / typical_s)), MAX_CALLS))


def run_rounds(
    candidates: Mapping[str, Candidate],
    turns: Mapping[str, Turns],
    rotation: Sequence[np.ndarray],
    *,
    duration_s: float,
    min_queries: int,
    before_call: Callable[[], Any] | None = None,
) -> None:
    """Fills ``turns``: rounds for ``duration_s``, and until every candidate has ``min_queries`` calls.

    Args:
        before_call: work ahead of each turn; it is not timed.
    """
    empty = {name: _empty_turn_ns(rotation, turn.calls) for name, turn in turns.items()}
    least = max(-(-min_queries // turn.calls) for turn in turns.values())
    names = list(candidates)
    until = time.perf_counter_ns() + int(duration_s * 1e9)
    for number in range(max(MAX_ROUNDS, least)):
        if number >= least and time.perf_counter_ns() >= until:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turn = turns[name]
            if before_call is not None:
                before_call()
            wall, cpu = _take_turn(candidates[name].call, rotation, turn)
            turn.wall_ns.append(wall)
            turn.cpu_ns.append(max(cpu - empty[name], 0.0) / turn.calls)


def _take_turn(
    call: Callable[[np.ndarray], Any], rotation: Sequence[np.ndarray], turn: Turns
) -> tuple[list[int], float]:
    """Wall time of each counted call, processor time of all of them with the clock's own."""
    clock, count = time.perf_counter_ns, len(rotation)
    for place in range(turn.place, turn.place + turn.settle):
        call(rotation[place % count])
    counted = range(turn.place + turn.settle, turn.place + turn.settle + turn.calls)
    turn.place = counted.stop
    samples = []
    cpu_began = time.process_time_ns()
    for place in counted:
        window = rotation[place % count]
        began = clock()
        call(window)
        samples.append(clock() - began)
    return samples, time.process_time_ns() - cpu_began


def _empty_turn_ns(rotation: Sequence[np.ndarray], calls: int) -> float:
    """Processor time of a turn whose calls do nothing."""
    return statistics.median(
        _take_turn(lambda window: None, rotation, Turns(0, calls))[1] for _ in range(EMPTY_TURNS)
    )


def evictor(mib: int) -> Callable[[], Any]:
    """Other work: reads and writes ``mib`` MiB, so that caches of less hold nothing of a candidate's."""
    buffer = np.ones(mib << 17, dtype=np.int64)
    return lambda: np.add(buffer, 1, out=buffer)


def eviction_mib(cache_kib: int | None) -> int:
    """Twice the last-level cache, but 8 to 64 MiB.

    More would measure the eviction: a server's last level may have 480 MiB, which all its cores share.
    What is larger than half of 64 MiB is evicted from the core's own levels alone; the method says so.
    """
    least, most = EVICT_MIB
    return most if cache_kib is None else min(max(2 * cache_kib // 1024, least), most)


def last_level_cache_kib() -> int | None:
    """Of this machine, or None where Linux does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            sizes.append(int(path.read_text().strip().rstrip("K")))
        except (OSError, ValueError):
            continue
    return max(sizes, default=None)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """The collector off inside, as it was outside."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
