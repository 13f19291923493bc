"""Gates of ``bench``: what a continuous integration asks of artifacts.  A missed one is exit code 4.

A speed-up is judged by the lower end of its interval, never by an absolute time; a noisy measurement passes
nothing unless it may.  A regression is judged on the ratio too, which outlives a change of machine: the whole
interval must lie below that of the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from ..base.errors import BudgetError, UsageError
from ..base.reading import read_json, validated
from .bench import Bench, Entry
from .budgets import NOISY_LINE, missed_latency

MAX_BASELINE_BYTES = 64 << 20


class _Entry(BaseModel):
    """What a gate reads of an earlier entry."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    against: str | None = None
    scenarios: dict[str, dict[str, Any]] = {}


class _Baseline(RootModel[tuple[_Entry, ...]]):
    """``bench --format json``."""


@dataclass(frozen=True)
class Gates:
    """Those that were asked for."""

    min_speedup: float | None = None
    max_p90_us: float | None = None
    baseline: Path | None = None
    allow_noisy: bool = False

    @property
    def asked(self) -> bool:
        """Whether there is one."""
        return any(gate is not None for gate in (self.min_speedup, self.max_p90_us, self.baseline))


def check_gates(bench: Bench, gates: Gates) -> None:
    """Judges every artifact that was measured, in every scenario that was.

    Raises:
        BudgetError: naming every gate that was missed and by what; also where nothing was measured.
        UsageError: a gate on a ratio without ``--against``, or a baseline that is none of these artifacts'.
    """
    if not gates.asked:
        return
    if not bench.measured:
        raise BudgetError("no gate can be judged: none of the artifacts runs here")
    needs_ratio = gates.min_speedup is not None or gates.baseline is not None
    if needs_ratio and any(entry["against"] is None for entry in bench.measured):
        raise UsageError("a gate on the speed-up needs --against", hint="e.g. --against teacher")
    missed = [
        f"{entry['name']}, {scenario}: {line}"
        for entry in bench.measured
        for scenario, record in entry["scenarios"].items()
        for line in missed_latency(
            record,
            min_speedup=gates.min_speedup,
            max_p90_us=gates.max_p90_us,
            allow_noisy=gates.allow_noisy,
        )
    ]
    if gates.baseline is not None:
        missed += _regressions(bench, read_baseline(gates.baseline), gates)
    if missed:
        raise BudgetError("; ".join(dict.fromkeys(missed)))


def read_baseline(path: Path) -> dict[str, Entry]:
    """Name -> entry of an earlier ``bench --format json``.

    Raises:
        UsageError: it is not one.
    """
    hint = "write one with tsfmc bench ... --format json and the same --against"
    what = "output of tsfmc bench"
    entries = read_json(path, what=what, error=UsageError, max_bytes=MAX_BASELINE_BYTES, hint=hint)
    parsed = validated(entries, _Baseline, what=f"{path}: {what}", error=UsageError, hint=hint)
    return {entry.name: entry.model_dump() for entry in parsed.root}


def _regressions(bench: Bench, baseline: Mapping[str, Entry], gates: Gates) -> Iterator[str]:
    compared = 0
    for entry in bench.measured:
        before = baseline.get(entry["name"], {})
        if before and before.get("against") != entry["against"]:
            raise UsageError(
                f"{entry['name']} is measured against {entry['against']}, the baseline against "
                f"{before.get('against')}",
                hint="measure both against the same",
            )
        for scenario, record in entry["scenarios"].items():
            old = _interval(before, scenario)
            if old is None:
                continue
            compared += 1
            low, high = record["speedup_interval"]
            if high < old[0]:
                found = f"speed-up {record['speedup']:.2f}x [{low:.2f}, {high:.2f}]"
                before_words = f"the baseline had [{old[0]:.2f}, {old[1]:.2f}]"
                yield f"{entry['name']}, {scenario}: {found}, {before_words}"
            if record["noisy"] and not gates.allow_noisy:
                yield f"{entry['name']}, {scenario}: {NOISY_LINE}"
    if not compared:
        raise UsageError("the baseline has none of these artifacts", hint="names and scenarios must be equal")


def _interval(entry: Entry, scenario: str) -> tuple[float, float] | None:
    found: Any = entry.get("scenarios", {}).get(scenario, {}).get("speedup_interval")
    if isinstance(found, list) and len(found) == 2 and all(isinstance(end, (int, float)) for end in found):
        return float(found[0]), float(found[1])
    return None
