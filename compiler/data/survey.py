"""``survey``: what a data file is, what is wrong with it, and the options that put it right.

A file is read as it is told, and where that is refused with a way out, the way out is taken and noted: what
remains are the options with which the file reads.  Then the checked series is looked at, in chunks, and by
samples where a look at every row would cost more than it tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import DataError
from ..base.progress import Progress
from .calendar import cycles_of
from .dataset import NOTHING_FILLED, Array, Filled
from .filling import WARN_FILLED
from .objects import as_file
from .reading import Reading
from .reading_options import stated_reading
from .remedies import RepairableError, options_text
from .seasons import Season, calendar_seasons, other_cycle
from .shifts import Shift, level_shifts
from .sources import SAMPLE, Source, find_source
from .table import Table, load_table
from .timeline import Stamps, steps_per_season
from .zones import stamp_text

_CHUNK_CELLS = 1 << 21
_SAMPLE_ROWS, _SAMPLE_VARIATES = 1 << 16, 32
_MOST_REMEDIES = 12
_FEWEST_BLOCK_MEANS = 2000
_STUCK_SHARE, _MOST_NAMED = 0.05, 5
_CODES = (99, 99.9, 99.99, 999, 999.9, 999.99, 9999, 9999.9, 99999, 32767, 32768, 65535)
_CODE_SPREADS = (1.0, 20.0)
"""How many spreads, from the 1st to the 99th percentile, a code is away from them, and any other value."""


@dataclass(frozen=True)
class Finding:
    """Something to act on.

    Attributes:
        level: ``error`` for what a compile refuses, ``warning`` for what harms, ``note``.
        what: what it is, and where.
        do: what to do about it.
        options: options that do it, where some do.
    """

    level: str
    what: str
    do: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VariateFacts:
    """One variate: moments, extremes, and cycles by name where it was sampled."""

    name: str
    mean: float
    std: float
    low: float
    high: float
    seasons: tuple[Season, ...] = ()
    shifts: tuple[Shift, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        name, path, size_bytes, sha256: of the source.
        rows, step, first, last: of the series as it is read with ``options``; 0 and None where it cannot be.
        variates: in the order of the file.
        filled: what reading it so changes.
        options: keywords of ``load_data`` with which it reads, those given among them.
        findings: errors first.
        known: whether it is a published data set.
        sampled: what was looked at by sample, in words; empty where nothing was.
    """

    name: str
    path: str
    size_bytes: int
    sha256: str = ""
    rows: int = 0
    step: str | None = None
    first: str | None = None
    last: str | None = None
    variates: tuple[VariateFacts, ...] = ()
    filled: Filled = NOTHING_FILLED
    options: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    known: bool = False
    sampled: str = ""

    @property
    def readable(self) -> bool:
        """Whether some options read it."""
        return self.rows > 0

    @property
    def options_text(self) -> str:
        """The options as the command line has them."""
        return options_text({name: value for name, value in self.options.items() if value not in ("", False)})

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "readable": self.readable}


def survey(source: str | Path | object, *, progress: Progress | None = None, **options: Any) -> Survey:
    """Looks at a data set.

    Args:
        source: as ``load_data`` takes it.
        options: ``variates``, ``missing``, ``duplicates``, ``sort``, ``zone`` and ``csv`` of ``load_data``.

    Raises:
        UsageError: options that are not understood, or a name that nothing has.
        DataError: there is no such file, or it is none that is read.
    """
    given = {name: value for name, value in options.items() if value not in (None, "", False)}
    place = as_file(source)
    table, found, used, findings = _read(place, given, progress)
    path = Path(place) if found is None else found.path
    name = str(place) if found is None else found.name
    size = path.stat().st_size if path.exists() else 0
    if table is None or found is None:
        return Survey(name, str(path), size, options=used, findings=tuple(findings))
    stamps = table.timestamps
    variates, more, sampled = _look(table)
    findings += _about_reading(table, found, used)
    findings += more
    return Survey(
        name=name,
        path=str(path),
        size_bytes=size,
        sha256=table.sha256,
        rows=len(table.values),
        step=table.frequency,
        first=None if stamps is None else stamp_text(stamps[0]),
        last=None if stamps is None else stamp_text(stamps[-1]),
        variates=variates,
        filled=table.filled,
        options=used,
        findings=tuple(
            sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))
        ),
        known=found.known is not None or found.name == SAMPLE,
        sampled=sampled,
    )


def _read(
    place: str | Path, given: Mapping[str, Any], progress: Progress | None
) -> tuple[Table | None, Source | None, dict[str, Any], list[Finding]]:
    """The series as far as remedies lead, and what stood in the way."""
    findings: list[Finding] = []
    used, found = dict(given), None
    for _ in range(_MOST_REMEDIES):
        stated = {name: value for name, value in used.items() if name not in ("variates", "max_filled")}
        reading = stated_reading(**stated)
        wanted = used.get("variates", "all")
        names = None if wanted == "all" else [name.strip() for name in wanted.split(",")]
        try:
            found = find_source(place, progress, reading.dialect)
            if found.known:
                reading = Reading(missing=reading.missing)
            return load_table(found, names, reading, progress), found, used, findings
        except RepairableError as error:
            findings.append(Finding("error", error.what, error.hint, error.remedy))
            if all(used.get(name, "") == value for name, value in error.remedy.items()):
                break
            used.update(error.remedy)
            used = {name: value for name, value in used.items() if value not in ("", False)}
        except DataError as error:
            if found is None and not Path(place).is_file():
                raise
            findings.append(Finding("error", error.what, error.hint))
            break
    return None, found, used, findings


def _about_reading(table: Table, found: Source, used: Mapping[str, Any]) -> list[Finding]:
    """What the policies had to do, and what a published file is taken with."""
    filled, rows, findings = table.filled, len(table.values), []
    for sentence in filled.sentences():
        findings.append(Finding("note", sentence))
    if filled.share > WARN_FILLED:
        findings.append(
            Finding(
                "warning",
                f"{filled.share:.0%} of variate {filled.variate!r} would be filled in",
                "leave the variate out, or take a stretch with fewer gaps",
            )
        )
    if found.known and table.timestamps is not None:
        steps = np.diff(np.asarray(table.timestamps)).astype(np.int64)
        usual = int(np.median(steps))
        repeated, gaps = int((steps == 0).sum()), int((steps[steps > usual] // max(usual, 1) - 1).sum())
        if usual and (repeated or gaps) and (steps % usual == 0).all():
            findings.append(
                Finding(
                    "note",
                    f"published with {repeated} repeated and {gaps} missing timestamps, {rows:,} rows",
                    "nothing: a published benchmark is taken as everybody takes it",
                )
            )
    if table.timestamps is None:
        findings.append(
            Finding(
                "warning",
                "no column with the time was found, so that rows count as steps",
                "name it with --csv time=NAME if there is one",
            )
        )
    return findings


def _look(table: Table) -> tuple[tuple[VariateFacts, ...], list[Finding], str]:
    """Facts of each variate, what is odd about them, and what was looked at by sample."""
    values, names = table.values, table.variates
    season = steps_per_season(table.frequency)
    facts, twins, runs, means, block = _pass(values, names, season)
    findings = _odd_variates(facts, twins, runs, values, table.timestamps)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), _SAMPLE_VARIATES)).astype(int))
    rests, periods = [], _periods(table.frequency)
    found = list(facts)
    for place in chosen:
        if facts[place].std == 0:
            continue
        recent = np.asarray(values[-_SAMPLE_ROWS:, place])
        short = {name: period for name, period in periods.items() if 3 * period <= len(recent)}
        seasons, rest = calendar_seasons(recent, short)
        long = {name: period / block for name, period in periods.items() if name not in short}
        seasons += [replace(s, period=s.period * block) for s in calendar_seasons(means[:, place], long)[0]]
        shifts = level_shifts(means[:, place], block, facts[place].std)
        found[place] = replace(facts[place], seasons=tuple(seasons), shifts=tuple(shifts))
        rests.append(rest)
    findings += _shifted(found, table.timestamps)
    cycle = other_cycle(rests, list(periods.values()))
    if cycle is not None:
        findings.append(
            Finding(
                "note", f"a cycle of {cycle[0]:.1f} steps, no calendar's, holds {cycle[1]:.0%} of the rest"
            )
        )
    sampled = []
    if len(chosen) < len(names):
        sampled.append(f"{len(chosen)} of {len(names)} variates")
    if len(values) > _SAMPLE_ROWS:
        sampled.append(f"the last {_SAMPLE_ROWS:,} rows")
    return tuple(found), findings, "cycles by " + " and ".join(sampled) if sampled else ""


def _periods(step: str | None) -> dict[str, float]:
    """Cycles of the calendar, in steps, by name."""
    cycles = cycles_of(step)
    return dict(zip(cycles.names, cycles.periods or (), strict=False))


def _pass(
    values: Array, names: Sequence[str], season: int
) -> tuple[list[VariateFacts], dict[int, int], dict[int, tuple[int, int]], Array, int]:
    """One look at every row: moments, equal variates, longest runs (row, length), means of blocks."""
    rows, width = values.shape
    block = season * max(1, rows // season // _FEWEST_BLOCK_MEANS)
    step = max(1, _CHUNK_CELLS // width // block) * block
    count = np.zeros(width)
    mean, squares = np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    digests = [hashlib.blake2b(digest_size=16) for _ in names]
    longest, start_of_longest = np.zeros(width, np.int64), np.zeros(width, np.int64)
    run_start, previous = np.zeros(width, np.int64), np.full(width, np.nan)
    means = []
    for first, chunk in _chunks(values, step):
        n = len(chunk)
        delta = chunk.mean(axis=0) - mean
        squares += ((chunk - chunk.mean(axis=0)) ** 2).sum(axis=0) + delta**2 * count * n / (count + n)
        mean, count = mean + delta * n / (count + n), count + n
        low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
        whole = n // block * block
        if whole:
            means.append(chunk[:whole].reshape(-1, block, width).mean(axis=1))
        changed = np.concatenate([[chunk[0] != previous], chunk[1:] != chunk[:-1]])
        for place in range(width):
            digests[place].update(np.ascontiguousarray(chunk[:, place]).data)
            starts = np.flatnonzero(changed[:, place]) + first
            bounds = np.concatenate([[run_start[place]], starts, [first + n]])
            lengths = np.diff(bounds)
            best = int(np.argmax(lengths))
            if lengths[best] > longest[place]:
                longest[place], start_of_longest[place] = lengths[best], bounds[best]
            run_start[place] = bounds[-2]
        previous = chunk[-1]
    deviation = np.where(low == high, 0.0, np.sqrt(squares / count))
    facts = [
        VariateFacts(name, float(mean[at]), float(deviation[at]), float(low[at]), float(high[at]))
        for at, name in enumerate(names)
    ]
    seen: dict[bytes, int] = {}
    twins = {}
    for at, digest in enumerate(digests):
        first_one = seen.setdefault(digest.digest(), at)
        if first_one != at:
            twins[at] = first_one
    runs = {at: (int(start_of_longest[at]), int(longest[at])) for at in range(width)}
    return facts, twins, runs, np.concatenate(means) if means else np.empty((0, width)), block


def _chunks(values: Array, step: int) -> Iterator[tuple[int, Array]]:
    for begin in range(0, len(values), step):
        yield begin, np.asarray(values[begin : begin + step])


def _odd_variates(
    facts: Sequence[VariateFacts],
    twins: Mapping[int, int],
    runs: Mapping[int, tuple[int, int]],
    values: Array,
    stamps: Stamps | None,
) -> list[Finding]:
    findings = []
    constant = [fact.name for fact in facts if fact.std == 0]
    if constant:
        findings.append(
            Finding(
                "warning", f"constant: {_named(constant)}", _without(facts, constant), _leave(facts, constant)
            )
        )
    twin = [facts[at].name for at in twins if facts[at].std > 0]
    if twin:
        pairs = [
            f"{facts[at].name!r} is {facts[first].name!r}" for at, first in twins.items() if facts[at].std > 0
        ]
        findings.append(
            Finding(
                "warning", f"the same twice: {_listed(pairs)}", _without(facts, twin), _leave(facts, twin)
            )
        )
    for at, fact in enumerate(facts):
        begin, length = runs[at]
        if fact.std > 0 and length >= max(24, _STUCK_SHARE * len(values)):
            findings.append(
                Finding(
                    "warning",
                    f"{fact.name!r} stays at {values[begin, at]:g} for {length:,} rows "
                    f"from {_place(stamps, begin)}",
                    "look whether the sensor was off; leave the variate out, or take rows outside of it",
                )
            )
    return findings + _codes(facts, values)


def _codes(facts: Sequence[VariateFacts], values: Array) -> list[Finding]:
    """Extremes far outside of what a sample has, more than once: likely a code for missing."""
    sample = np.asarray(values[:: max(1, len(values) // _SAMPLE_ROWS)])
    low, high = np.quantile(sample, [0.01, 0.99], axis=0)
    spread = np.where(high > low, high - low, np.inf)
    suspects = {
        (at, extreme)
        for at, fact in enumerate(facts)
        for extreme in (fact.low, fact.high)
        if max(low[at] - extreme, extreme - high[at])
        > (_CODE_SPREADS[0] if abs(extreme) in _CODES else _CODE_SPREADS[1]) * spread[at]
    }
    findings = []
    for at, extreme in sorted(suspects):
        count = sum(int((chunk[:, at] == extreme).sum()) for _, chunk in _chunks(values, len(sample)))
        if count > 1 or abs(extreme) in _CODES:
            findings.append(
                Finding(
                    "warning",
                    f"{facts[at].name!r} is {extreme:g} in {count} rows, far from the rest: a code?",
                    "empty those cells, then fill them with --missing interpolate",
                )
            )
    return findings


def _shifted(facts: Sequence[VariateFacts], stamps: Stamps | None) -> list[Finding]:
    shifts = [(fact.name, shift) for fact in facts for shift in fact.shifts]
    shifts.sort(key=lambda item: -abs(item[1].size))
    return [
        Finding(
            "warning",
            f"{name!r} shifts by {shift.size:+.1f} standard deviations at {_place(stamps, shift.row)}",
            "if the process changed, train on what came after it",
        )
        for name, shift in shifts[:_MOST_NAMED]
    ]


def _place(stamps: Stamps | None, row: int) -> str:
    return f"step {row}" if stamps is None else stamp_text(stamps[min(row, len(stamps) - 1)])


def _leave(facts: Sequence[VariateFacts], out: Sequence[str]) -> dict[str, str]:
    """``variates`` without those; none where a name cannot be given or none is left."""
    kept = [fact.name for fact in facts if fact.name not in out]
    return {"variates": ",".join(kept)} if kept and not any("," in name for name in kept) else {}


def _without(facts: Sequence[VariateFacts], out: Sequence[str]) -> str:
    options = _leave(facts, out)
    shown = options_text(options)
    return f"leave out with {shown}" if options and len(shown) < 200 else "leave out with --variates"


def _named(names: Sequence[str]) -> str:
    return _listed([repr(name) for name in names])


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
