"""Rows in: the last rows of a table become a window, by one set of rules.

1.  A table is a header and rows: CSV in UTF-8 with commas, packed or not, unless the artifact or a caller
    states another dialect.  Blank lines are skipped.
2.  Columns are found by name, after those that a caller renames; their order and others do not matter.
3.  The time is the column that the dialect names, else the first named like one (date, timestamp, time,
    datetime, ds, ts in any case), else the first whose last cell is a date.  It may be missing: then rows
    count as steps.  Where a zone is stated, times are of its clock.
4.  Times ascend, all with a zone or all without, in one notation, and follow each other by the artifact's
    step.  Rows of another step are refused, whatever is filled.
5.  With ``missing = error`` the last L rows must be whole, and no others are looked at.  With ``ffill`` or
    ``interpolate`` missing rows and empty cells among the last 2 L steps are filled, and counted.
6.  Rows of one time are refused, averaged or all but the first dropped, as is stated; rows in another order
    are refused, or put in order.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import re
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from ....compiler.base.text import printable
from ....compiler.data.cells import TIME_NAMES, TimeNotation, is_empty, parse_number, read_times
from ....compiler.data.dialect import PLAIN, Dialect, parse_dialect
from ....compiler.data.filling import FILL_HINT, fill_run
from ....compiler.data.packed import refuse_padding
from ....compiler.data.reading import AS_IT_IS, LocalClock, Reading, checked_reading
from .errors import InputError
from .steps import BusinessStep, FixedStep, MonthStep, find_step

FORMULA_STARTS = r"=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20"
FORMULA = re.compile(rf"^(?=\s*[{FORMULA_STARTS}])|(?<=[;|])(?=\s*[{FORMULA_STARTS}])")
"""Where a spreadsheet would see a formula begin; some of them split at semicolons or bars."""
UNSORTED = "expected a later one: sort the rows with --sort, merge those of one time with --duplicates mean"
SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar", ",": "comma"}
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)
SORT_SAMPLE = 1000
"""Rows from which the notation of times is read before rows are put in order."""
MAX_LINE, MAX_EMPTY_LINES = 1 << 23, 1 << 20
"""What no table has that anybody forecasts from: 8 million characters are some 400,000 variates."""


class History:
    """What a forecast starts from.

    Attributes:
        values: ``[D, L]``, in the units of the data.
        time_column: its name, None where the table has no time.
        last: time of the last row, None without.
        notation: how the table writes the time.
        missing: the policy.
        filled_rows, filled_cells: rows that were missing, and empty cells of rows that were there.
        filled_share: of the lookback of the most filled variate.
        merged_rows: rows of the lookback that went into another of their time.
    """

    def __init__(self, values: np.ndarray, missing: str) -> None:
        self.values, self.missing = values, missing
        self.filled_rows = self.filled_cells = self.merged_rows = 0
        self.filled_share = 0.0
        self.time_column: str | None = None
        self.last: datetime | None = None
        self.notation: TimeNotation | None = None


class Table:
    """The end of a table, as text; ``rows`` are ``(number, cells)``, numbered as its ``word`` counts them."""

    def __init__(
        self, name: str, header: Sequence[str], rows: Iterable[tuple[int, list[str]]], word: str = "line"
    ) -> None:
        self.name, self.word = name, word
        self.header = [column.strip() for column in header]
        self.rows = list(rows)

    def renamed(self, names: Mapping[str, str]) -> Table:
        """The same under new names of its columns.

        Raises:
            InputError: there is no such column.
        """
        for old in names:
            if old not in self.header:
                raise InputError(
                    f"{self.name}: no column {old!r} to rename; the columns are "
                    f"{', '.join(map(repr, self.header[:12])) or 'none'}"
                )
        self.header = [names.get(column, column) for column in self.header]
        return self

    def where(self, index: int, column: int | None = None) -> str:
        """``past.csv line 12, column 'load'``."""
        place = f"{self.name} {self.word} {self.rows[index][0]}"
        return place if column is None else f"{place}, column {self.header[column]!r}"

    def cells(self, column: int) -> list[str]:
        """One column."""
        return [cells[column] for _, cells in self.rows]


def header_cell(name: str) -> str:
    """A name as a header has it: an apostrophe before what a spreadsheet would run as a formula, and control
    characters, which a terminal would obey, as escapes."""
    return printable(FORMULA.sub("'", name))


def rows_needed(task: Mapping[str, Any], missing: str) -> int:
    """How many steps at the end of a table are looked at."""
    lookback: int = task["lookback"]
    return lookback if missing == "error" else 2 * lookback


def rows_kept(task: Mapping[str, Any], reading: Reading) -> int:
    """How many rows at the end of a table are held: several may be of one time."""
    return rows_needed(task, reading.missing) * (1 if reading.duplicates == "error" else 4)


def reading_of(task: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> Reading:
    """How rows are read: as is asked for, else as the compile read them.

    Args:
        asked: ``missing``, ``duplicates``, ``sort``, ``zone``, and ``csv`` as one text; None is as compiled.

    Raises:
        InputError: an unknown policy, or a dialect that is not understood.
    """
    given = {name: value for name, value in (asked or {}).items() if value is not None}
    csv_text = given.pop("csv", None)
    try:
        reading = checked_reading({**task, **given})
        return reading if csv_text is None else reading._replace(dialect=parse_dialect(csv_text))
    except ValueError as error:
        raise InputError(str(error)) from None


def renamed_columns(texts: Iterable[str]) -> dict[str, str]:
    """Name in a table -> name in the artifact, from ``old=new`` each.

    Raises:
        InputError: it is not of this form.
    """
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not equals or not old or not new or old in names or new in names.values():
            raise InputError(f"--rename {text!r}: expected old=new, each name once")
        names[old] = new
    return names


def read_csv(
    path: Path,
    manifest: dict[str, Any],
    missing: str | None = None,
    rename: Mapping[str, str] | None = None,
    **asked: Any,
) -> History:
    """The window at the end of a CSV, which may end in ``.gz``.

    Args:
        missing: the policy; None is the artifact's.
        rename: name of a column -> the variate that it is.
        asked: see ``reading_of``.

    Raises:
        InputError: names file, line and column.
    """
    task = manifest["task"]
    reading = reading_of(task, {**asked, "missing": missing})
    dialect = reading.dialect
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    try:
        with open_csv(path, "r", encoding) as stream:
            reader = csv.reader(bounded_lines(stream), strict=True, delimiter=separator_of(path, dialect))
            header = next(reader, [])
            rows = ((reader.line_num, row) for row in reader if any(map(str.strip, row)) or len(row) > 1)
            table = last_rows(Table(str(path), header, ()).renamed(rename or {}), rows, task, reading)
    except (OSError, EOFError, UnicodeError, csv.Error, zlib.error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None
    return read_window(table, task, reading)


def separator_of(path: Path, dialect: Dialect) -> str:
    """What stands between two cells: a comma, in a ``.tsv`` a tab, unless the dialect says another sign."""
    return dialect.sep or ("\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else ",")


def last_rows(
    table: Table, rows: Iterable[tuple[int, list[str]]], task: Mapping[str, Any], reading: Reading
) -> Table:
    """The rows that are looked at: the last ones, or where rows are put in order the latest.

    Raises:
        InputError: rows are to be put in order and have no times, or one that cannot be read.
    """
    count = rows_kept(task, reading)
    if not reading.sort:
        table.rows = list(deque(rows, maxlen=count))
        return table
    rows = iter(rows)
    table.rows = [row for _, row in zip(range(SORT_SAMPLE), rows)]
    column = _time_column(table, set(_find_columns(table, task["variates"])), reading.dialect)
    if column is None:
        raise InputError(f"{table.name}: no column with the time to sort by")
    notation, _ = _read_times(table, column, reading.dialect)
    known = table.rows

    def when(row: tuple[int, list[str]]) -> tuple[datetime, int]:
        time = notation.parse(row[1][column]) if notation and len(row[1]) > column else None
        if time is None:
            table.rows = [row]
            raise InputError(f"{table.where(0)}: expected a time in the notation of the rows before")
        # The order of rows with and without a zone does not matter: they are refused.
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)), -row[0]

    latest = heapq.nlargest(count, (row for part in (known, rows) for row in part), key=when)
    table.rows = latest[::-1]
    return table


def bounded_lines(stream: TextIO) -> Iterator[str]:
    """The lines of a table.  A few kilobytes of gzip unpack to gigabytes: of one line, or of empty ones.

    Raises:
        csv.Error: a line of more than ``MAX_LINE`` characters, or ``MAX_EMPTY_LINES`` empty ones in a row.
    """
    empty = 0
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line has more than {MAX_LINE} characters")
        empty = 0 if line.strip() else empty + 1
        if empty > MAX_EMPTY_LINES:
            raise csv.Error(f"more than {MAX_EMPTY_LINES} empty lines in a row")
        yield line


def open_csv(path: Path, mode: Literal["r", "w"], encoding: str = "utf-8") -> TextIO:
    """A text file, packed where its name ends in ``.gz``."""
    if path.name.lower().endswith(".gz"):
        if mode == "r":
            refuse_padding(path)
        return TextIOWrapper(gzip.GzipFile(path, mode), encoding=encoding, newline="")
    return path.open(mode, encoding=encoding, newline="")


def read_window(table: Table, task: dict[str, Any], reading: Reading = AS_IT_IS) -> History:
    """The last L steps of the variates of ``task``, checked, merged and filled.

    Raises:
        InputError: names table, row and column.
    """
    columns = _find_columns(table, task["variates"])
    _check_shape(table)
    missing = reading.missing
    if not table.rows or (missing == "error" and len(table.rows) < task["lookback"]):
        raise _too_short(table, task, len(table.rows), "rows")
    time_at = _time_column(table, set(columns), reading.dialect)
    values = _read_values(table, columns, missing, reading.dialect)  # [D, T]
    places, history = np.arange(len(table.rows)), History(values, missing)
    if time_at is not None:
        history.time_column = table.header[time_at]
        history.notation, times = _read_times(table, time_at, reading.dialect)
        if reading.zone:
            times = _on_the_clock(table, times, reading.zone)
        if reading.duplicates != "error":
            times = _merge(history, table, times, reading.duplicates, task["lookback"])
        history.last = times[-1]
        places = _places(table, times, find_step(task), missing)
    _take_window(history, table, task, places)
    return history


def _on_the_clock(table: Table, times: Sequence[datetime], zone: str) -> list[datetime]:
    """Local times with their offset from UTC; dates, whose hour is always the same, stay what they are."""
    if len(times) > 1 and len({time.time() for time in times}) == 1:
        return list(times)
    try:
        clock = LocalClock(zone)
    except ValueError as error:
        raise InputError(f"zone: {error}") from None
    found = []
    for index, time in enumerate(times):
        if time.tzinfo is not None:
            raise InputError(f"{table.where(index)}: {time} has an offset from UTC; leave --zone out")
        local = clock.at(time)
        if local is None:
            raise InputError(f"{table.where(index)}: {time} is an hour that the clock of {zone} skips")
        found.append(local)
    return found


def _merge(
    history: History, table: Table, times: Sequence[datetime], policy: str, lookback: int
) -> list[datetime]:
    """One row for each run of equal times, in ``history`` and in ``table``; their times."""
    starts = [index for index, time in enumerate(times) if not index or time != times[index - 1]]
    if len(starts) < len(times):
        groups = np.split(history.values, starts[1:], axis=1)
        merged = [_mean(group) if policy == "mean" else group[:, 0] for group in groups]
        history.merged_rows = sum(group.shape[1] - 1 for group in groups[-lookback:])
        history.values = np.array(merged).T
        table.rows = [table.rows[start] for start in starts]
    return [times[start] for start in starts]


def _mean(group: np.ndarray) -> np.ndarray:
    """Of the known cells of ``[D, n]``; NaN where there is none."""
    known = ~np.isnan(group)
    counts = known.sum(axis=1)
    sums = np.where(known, group, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _find_columns(table: Table, variates: Sequence[str]) -> list[int]:
    columns = []
    for name in variates:
        found = [at for at, column in enumerate(table.header) if column in (name.strip(), header_cell(name))]
        if len(found) != 1:
            raise InputError(
                f"{table.name}: column {name!r} occurs {len(found)} times in the header, expected once; "
                f"the columns are {', '.join(map(repr, table.header[:12])) or 'none'}"
                f"{_separated(table.header)}"
            )
        columns.append(found[0])
    return columns


def _separated(header: Sequence[str]) -> str:
    """The option for a header that another sign splits; empty for one that is split."""
    sign = next((sign for sign in SEPARATORS if len(header) == 1 and sign in header[0]), "")
    return f"; add --csv sep={SEPARATORS[sign]} if that is what separates them" if sign else ""


def _check_shape(table: Table) -> None:
    for index, (_, cells) in enumerate(table.rows):
        if len(cells) != len(table.header):
            raise InputError(f"{table.where(index)} has {len(cells)} fields, expected {len(table.header)}")


def _read_values(table: Table, columns: Sequence[int], missing: str, dialect: Dialect = PLAIN) -> np.ndarray:
    values = np.full((len(columns), len(table.rows)), np.nan)
    for place, column in enumerate(columns):
        for index, cell in enumerate(table.cells(column)):
            if is_empty(cell):
                if missing == "error":
                    where = table.where(index, column)
                    raise InputError(f"{where}: expected a number, got {cell[:40]!r}; {FILL_HINT}")
                continue
            value = parse_number(cell, dialect)
            if value is None:
                where = table.where(index, column)
                way = "; for decimal commas add --csv decimal=comma" if DECIMAL_COMMA.fullmatch(cell) else ""
                raise InputError(f"{where}: expected a number, got {cell[:40]!r}{way}")
            values[place, index] = value
    return values


def _time_column(table: Table, taken: set[int], dialect: Dialect = PLAIN) -> int | None:
    """Rule 3."""
    if dialect.time:
        if table.header.count(dialect.time) != 1:
            raise InputError(f"{table.name}: no column {dialect.time!r} with the time")
        return table.header.index(dialect.time)
    free = [at for at in range(len(table.header)) if at not in taken]
    named = [at for at in free if table.header[at].lower() in TIME_NAMES]
    if named or not table.rows:
        return named[0] if named else None
    last = table.rows[-1][1]
    dates = dialect.dates
    return next(
        (at for at in free if at < len(last) and read_times([last[at]], unix=False, dates=dates)[1]), None
    )


def _read_times(
    table: Table, column: int, dialect: Dialect = PLAIN
) -> tuple[TimeNotation | None, list[datetime]]:
    cells = table.cells(column)
    unix = table.header[column].lower() in TIME_NAMES or bool(dialect.time)
    notation, times = read_times(cells, unix=unix, dates=dialect.dates)
    if len(times) < len(cells):
        expected = "a time in the notation of the rows before" if times else "a time"
        raise InputError(
            f"{table.where(len(times), column)}: expected {expected}, got {cells[len(times)][:40]!r}; "
            "write ISO 8601 such as 2024-01-31 13:00:00, or Unix time"
        )
    zoned = [time.tzinfo is not None for time in times]
    if len(set(zoned)) > 1:
        index = zoned.index(not zoned[0])
        raise InputError(f"{table.where(index)}: times with and without a time zone are mixed")
    return notation, times


def _places(
    table: Table,
    times: Sequence[datetime],
    step: FixedStep | MonthStep | BusinessStep | None,
    missing: str,
) -> np.ndarray:
    """The place ``[T]`` of each row on the regular axis, from 0 on."""
    pairs = list(zip(times, times[1:]))
    if step is not None:
        _check_step(table, pairs, step)
    places = [0]
    for index, (before, after) in enumerate(pairs, 1):
        if after <= before:
            raise _irregular(table, index, before, after, UNSORTED)
        steps = 1 if step is None else step.between(before, after)
        if not steps:
            raise _irregular(table, index, before, after, f"expected {step}")
        if steps > 1 and missing == "error":
            raise _irregular(table, index, before, after, f"expected {step}; {FILL_HINT}")
        places.append(places[-1] + steps)
    return np.array(places)


def _check_step(
    table: Table, pairs: Sequence[tuple[datetime, datetime]], step: FixedStep | MonthStep | BusinessStep
) -> None:
    """No gap is commoner than the step: otherwise it is another step, not rows that are missing."""
    later = [(after - before, step.between(before, after)) for before, after in pairs if after > before]
    common = Counter(gap if steps is None else steps for gap, steps in later)
    found, count = common.most_common(1)[0] if common else (1, 0)
    if count > max(1, common[1]):
        gap = next(gap for gap, steps in later if found in (gap, steps))
        raise InputError(
            f"{table.name}: most rows are {gap.total_seconds():g} s apart, the artifact's step is {step}; "
            "resample the rows to that step"
        )


def _irregular(table: Table, index: int, before: datetime, after: datetime, expected: str) -> InputError:
    gap = (after - before).total_seconds()
    return InputError(
        f"{table.where(index)}: timestamp {after} is {gap:g} s after the row before, {expected}"
    )


def _take_window(history: History, table: Table, task: dict[str, Any], places: np.ndarray) -> None:
    """Puts the rows at their places, fills, and keeps the last L steps."""
    lookback, span = task["lookback"], rows_needed(task, history.missing)
    covered = int(places[-1]) + 1 if len(places) else 0
    if covered < lookback:
        raise _too_short(table, task, covered, "rows" if covered == len(places) else "steps")
    axis = np.full((len(task["variates"]), min(span, covered)), np.nan)
    there = np.zeros(axis.shape[1], dtype=bool)
    at = places - covered  # -1 is the last step
    kept = at >= -axis.shape[1]
    axis[:, at[kept]] = history.values[:, kept]
    there[at[kept]] = True
    history.filled_rows = int((~there[-lookback:]).sum())
    history.filled_cells = int(np.isnan(axis[:, -lookback:])[:, there[-lookback:]].sum())
    history.filled_share = float(np.isnan(axis[:, -lookback:]).mean(axis=1).max())
    for name, run in zip(task["variates"], axis):
        known = np.flatnonzero(~np.isnan(run))
        if not len(known) or known[0] > len(run) - lookback:
            raise InputError(
                f"{table.name}: variate {name!r} has no value in the last {len(run)} steps "
                f"from which the lookback's first could be filled"
            )
        fill_run(run[known[0] :], history.missing)
    history.values = axis[:, -lookback:].copy()


def _too_short(table: Table, task: dict[str, Any], found: int, what: str) -> InputError:
    whose = task.get("rows_are", "lookback")
    return InputError(f"{table.name} has {found} {what}, expected at least {task['lookback']} (the {whose})")
