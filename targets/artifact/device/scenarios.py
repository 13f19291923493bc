"""Scenarios: candidates warmed up once, then measured in one scenario after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .rounds import (
    INTERVAL,
    MIN_QUERIES,
    SCENARIOS,
    SETTLE_S,
    SLICE_S,
    STREAM,
    WARM_UP_CALLS,
    WARM_UP_S,
    Candidate,
    Turns,
    WarmUp,
    eviction_mib,
    evictor,
    last_level_cache_kib,
    no_garbage_collection,
    run_rounds,
    stream_turn,
    warm_up,
)
from .timings import Ratio, Row, ratio_of, rows_of

SPEEDUP = ("speedup", "speedup_interval")


class LatencyReport:
    """What one scenario of one run measured: a row for each candidate, and the method in words."""

    def __init__(self, rows: Mapping[str, Row], method: str) -> None:
        self.rows, self.method = rows, method

    @property
    def noisy(self) -> bool:
        """Whether any candidate was."""
        return any(row.noisy for row in self.rows.values())

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Median time of ``slow`` over that of ``fast``; see ``ratio_of``."""
        return ratio_of(self.rows[slow], self.rows[fast])

    def fastest(self, names: Sequence[str]) -> str:
        """The one of ``names`` that the others are slower than, by the clock that ratios are of."""
        first, *others = names
        for name in others:
            if self.ratio(first, name).value > 1:
                first = name
        return first

    def to_manifest(self) -> dict[str, Any]:
        """Every row by name; with both ``artifact`` and ``teacher`` among them, the speed-up of the one over
        the other."""
        record: dict[str, Any] = {name: row.to_dict() for name, row in self.rows.items()}
        if "artifact" in self.rows and "teacher" in self.rows:
            record.update(speedup_fields(self.ratio("teacher", "artifact")))
        record.update(noisy=self.noisy, method=self.method)
        return record

    def record(
        self,
        artifact: str | None,
        teachers: Sequence[str],
        skipped: Mapping[str, str] = MappingProxyType({}),
        role: str = "teacher",
    ) -> dict[str, Any]:
        """One artifact beside every form of its teacher, or a teacher alone.

        Args:
            skipped: the forms that did not run, and why.
            role: what ``teachers`` are, when not teachers; a record names them by it.

        Returns:
            ``artifact``, ``teacher`` (the fastest form), ``teachers`` (a row for every form, with its name
            and the speed-up over it), ``speedup`` and ``speedup_interval`` over the fastest, ``skipped``,
            ``noisy``, ``method``; what has no teacher is absent.
        """
        record: dict[str, Any] = {}
        rows = {name: {"name": name, **self.rows[name].to_dict()} for name in teachers}
        if artifact is not None:
            record["artifact"] = self.rows[artifact].to_dict()
            for name, row in rows.items():
                row.update(speedup_fields(self.ratio(name, artifact)))
        if rows:
            first = rows[self.fastest(teachers)]
            record.update({name: first[name] for name in SPEEDUP if name in first})
            record.update({role: first, f"{role}s": list(rows.values())})
        if skipped:
            record["skipped"] = [{"name": name, "reason": reason} for name, reason in skipped.items()]
        measured = [*teachers] if artifact is None else [artifact, *teachers]
        record.update(noisy=any(self.rows[name].noisy for name in measured), method=self.method)
        return record


def speedup_fields(ratio: Ratio) -> dict[str, Any]:
    """A ratio as records have it."""
    return dict(zip(SPEEDUP, (ratio.value, [ratio.low, ratio.high])))


def measure_scenarios(
    candidates: Mapping[str, Candidate],
    windows: np.ndarray,
    *,
    scenarios: Sequence[str] = SCENARIOS,
    threads: int = 1,
    duration_s: float = 5.0,
    min_queries: int = MIN_QUERIES,
    warmup_calls: int = WARM_UP_CALLS,
    warmup_s: float = WARM_UP_S,
    evict_mib: int | None = None,
    precision: str = "fp32",
    notes: Sequence[str] = (),
) -> dict[str, LatencyReport]:
    """Scenario -> what was measured in it.

    Args:
        windows: real windows ``[N, D, L]``.
        threads: what the candidates were opened with, for the record.
        duration_s: seconds of measuring, shared by the scenarios; ``min_queries`` calls of every candidate in
            every scenario may take longer.
        evict_mib: what is read and written before each call of the interval scenario; None: by this
            machine's caches.
        notes: further parts of the method string.
    """
    rotation = [np.ascontiguousarray(window[None], dtype=np.float32) for window in windows]
    mib = eviction_mib(last_level_cache_kib()) if evict_mib is None else evict_mib
    share_s = duration_s / len(scenarios)
    reports = {}
    with no_garbage_collection():
        warm = {
            name: warm_up(each, rotation, warmup_calls, warmup_s, threads)
            for name, each in candidates.items()
        }
        for scenario in scenarios:
            if scenario == STREAM:
                turns, between = {name: stream_turn(found.typical_s) for name, found in warm.items()}, None
            else:
                turns, between = {name: Turns(0, 1) for name in warm}, evictor(mib)
            run_rounds(
                candidates, turns, rotation, duration_s=share_s, min_queries=min_queries, before_call=between
            )
            rows = rows_of(turns, candidates, threads)
            facts = [precision, f"{threads} thread{'s' if threads > 1 else ''}"]
            other_work = mib, last_level_cache_kib()
            method = method_words(scenario, rows, turns, warm, windows.shape, facts, other_work, notes)
            reports[scenario] = LatencyReport(rows, method)
    return reports


def method_words(
    scenario: str,
    rows: Mapping[str, Row],
    turns: Mapping[str, Turns],
    warm: Mapping[str, WarmUp],
    windows: Sequence[int],
    facts: Sequence[str],
    other_work: tuple[int, int | None],
    notes: Sequence[str],
) -> str:
    """How the rows were measured.

    Args:
        windows: ``[N, D, L]``.
        other_work: MiB that were read and written between calls, and KiB of the last-level cache.
    """
    mib, cache = other_work
    count, variates, lookback = windows
    horizon = next(iter(warm.values())).output_shape[-1]
    queries = {name: sum(len(turn) for turn in row.turns_ns) for name, row in rows.items()}
    parts = [
        "single-stream" if scenario == STREAM else scenario,
        "batch 1",
        f"L {lookback}",
        f"H {horizon}",
        f"D {variates}",
        *facts,
        f"warm-up {_each({name: found.calls for name, found in warm.items()})}",
        f"n {_each(queries)}",
        f"{min(count, max(queries.values()))} windows",
        "host copies in",
    ]
    if scenario == INTERVAL:
        parts.append(f"before every call {mib} MiB read and written{_cache_words(mib, cache)}")
    if len(rows) > 1:
        parts.append(f"interleaved: {len(next(iter(rows.values())).turns_ns)} rounds")
        if scenario == STREAM:
            parts.append(
                f"calls a turn {_each({name: turn.calls for name, turn in turns.items()})} "
                f"({SLICE_S * 1e3:g} ms, the first {SETTLE_S * 1e3:g} ms not counted)"
            )
    parts += notes
    if any(row.percentile_us("p50_us") is not None for row in rows.values()):
        parts.append("percentiles are upper bounds at confidence 0.99")
    else:
        parts.append("too few calls for percentiles")
    return ", ".join(parts)


def _cache_words(mib: int, cache: int | None) -> str:
    if cache is None:
        return ""
    shared = ", which stays" if cache > mib * 1024 else ""
    return f" (last-level cache {cache / 1024:g} MiB{shared})"


def _each(values: Mapping[str, int]) -> str:
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return " / ".join(f"{value} {name}" for name, value in values.items())
