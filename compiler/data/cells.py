"""What one cell says: nothing, a number, or a time; a device reads cells by this text.

    empty   one of ``EMPTY``, in this spelling, blanks around it aside
    number  decimal digits with point and exponent, finite; no ``inf``, no ``1_000``, no other digits
    time    ISO 8601, a date with slashes or dots, or Unix time, each with its time of day and zone

A dialect (``dialect.py``) has other decimal signs, groups of digits, or an order of dates of its own.

A zone is kept: the forecast is stamped at the offset of the last row.  Years are those of four digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal

from .dialect import PLAIN, Dialect, date_pattern, plain_number

_EMPTY = "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
EMPTY = frozenset(("", *_EMPTY.split(",")))
"""What pandas takes for an empty cell, so that a device and a compile agree."""

TIME_NAMES = ("date", "timestamp", "time", "datetime", "ds", "ts")
"""Header names, in any case, of a column that must hold the time."""

UnixUnit = Literal["s", "ms", "us", "ns"]
UNIX_UNITS: dict[UnixUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNIX_SECONDS = (631_152_000, 4_102_444_800)
"""Unix time is taken for what it is from 1990 to 2100: no number has two readings there, and dates that are
written as bare digits (20240131, 202401311200) have none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNIX = re.compile(r"\d{9,19}(?:\.\d*)?", re.ASCII)
TIME_OF_DAY = (
    r"(?:[T ] *(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?)?"
    r" *(?P<half>[AaPp][Mm])? *(?P<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?"
)
_YEAR, _MONTH, _DAY = r"(?P<year>[1-9]\d{3})", r"(?P<month>\d{1,2})", r"(?P<day>\d{1,2})"
DATES = (  # the first that fits every row is taken
    f"{_YEAR}-{_MONTH}(?:-{_DAY})?",
    f"{_YEAR}/{_MONTH}/{_DAY}",
    f"{_MONTH}/{_DAY}/{_YEAR}",
    f"{_DAY}/{_MONTH}/{_YEAR}",
    rf"{_DAY}\.{_MONTH}\.{_YEAR}",
)


def is_empty(cell: str) -> bool:
    """Whether the cell holds no value."""
    return cell.strip() in EMPTY


def parse_number(cell: str, dialect: Dialect = PLAIN) -> float | None:
    """A finite number, or None."""
    text = plain_number(cell, dialect)
    value = math.nan if text is None else float(text)
    return value if math.isfinite(value) else None


def unix_unit(value: float) -> UnixUnit | None:
    """The unit in which ``value`` is a Unix time between 1990 and 2100: s, ms, us, ns, or None."""
    first, last = UNIX_SECONDS
    return next((unit for unit, per in UNIX_UNITS.items() if first * per <= value < last * per), None)


class TimeNotation:
    """How a column writes the time: a pattern of dates, or Unix time in one unit."""

    def __init__(self, pattern: str | None = None, unit: UnixUnit | None = None) -> None:
        self.unit = unit
        self._pattern = re.compile(pattern + TIME_OF_DAY, re.ASCII) if pattern else None

    def parse(self, cell: str) -> datetime | None:
        """The time that the cell says, or None."""
        text = cell.strip()
        if self._pattern is None:
            return self._parse_unix(text)
        found = self._pattern.fullmatch(text)
        try:
            return _from_parts(found.groupdict()) if found else None
        except ValueError:  # the 31st of June
            return None

    def render(self, time: datetime) -> str:
        """Unix time as the column has it; everything else as ISO 8601."""
        if self.unit is None:
            return str(time)
        ticks = Decimal((time - _EPOCH) // timedelta(microseconds=1)) * UNIX_UNITS[self.unit] / 10**6
        return f"{ticks.normalize():f}"

    def _parse_unix(self, text: str) -> datetime | None:
        if self.unit is None or not _UNIX.fullmatch(text) or unix_unit(float(text)) != self.unit:
            return None
        microseconds = int(Decimal(text) * 10**6 / UNIX_UNITS[self.unit])
        return _EPOCH + timedelta(microseconds=microseconds)


DATE_NOTATIONS = tuple(TimeNotation(pattern) for pattern in DATES)
UNIX_NOTATIONS = tuple(TimeNotation(unit=unit) for unit in UNIX_UNITS)


def read_times(
    cells: Sequence[str], *, unix: bool, dates: str = ""
) -> tuple[TimeNotation | None, list[datetime]]:
    """The notation that reads the most of the cells from the first one on, and the times so far.

    Fewer times than cells: the cell after them is no time in the notation of those before.  ``unix`` says
    whether the column's name allows bare numbers, ``dates`` in what order the dialect has its dates.
    """
    best: tuple[TimeNotation | None, list[datetime]] = (None, [])
    known = (*DATE_NOTATIONS, *(UNIX_NOTATIONS if unix else ()))
    for notation in (TimeNotation(date_pattern(dates)),) if dates else known:
        times: list[datetime] = []
        for cell in cells:
            time = notation.parse(cell)
            if time is None:
                break
            times.append(time)
        if len(times) > len(best[1]):
            best = notation, times
        if times and len(times) == len(cells):
            break
    return best


def _from_parts(parts: dict[str, str | None]) -> datetime:
    hour = int(parts["hour"] or 0)
    if parts["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"hour {hour} in twelve-hour time")
        hour = hour % 12 + (12 if parts["half"].lower() == "pm" else 0)
    return datetime(
        _year(parts["year"] or ""),
        int(parts["month"] or 0),
        int(parts.get("day") or 1),
        hour,
        int(parts["minute"] or 0),
        int(parts["second"] or 0),
        int((parts["part"] or "0").ljust(6, "0")[:6]),
        _zone(parts["zone"]),
    )


def _year(digits: str) -> int:
    """Two digits are of 1969 to 2068, as POSIX has it."""
    year = int(digits)
    return year if len(digits) > 2 else year + (2000 if year < 69 else 1900)


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in ("Z", "UTC"):
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)
