"""Which column holds the time, and what its cells say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..base.errors import DataError, unknown_name
from .cells import DATES, TIME_NAMES, TIME_OF_DAY, UnixUnit, is_empty, unix_unit
from .dialect import PLAIN, Dialect, date_pattern
from .guessing import propose
from .timeline import Stamps

if TYPE_CHECKING:
    import pandas as pd

_ISO = "ISO8601"
_DIRECTIVES = {
    "month": "%m", "day": "%d", "minute": "%M", "second": "%S", "part": "%f", "half": "%p", "zone": "%z",
}  # fmt: skip
_DATES = ("mm/dd/yyyy", "dd/mm/yyyy", "dd.mm.yyyy", "dd-mm-yyyy", "mm-dd-yyyy", "yyyy/mm/dd", "yyyymmdd",
          "dd.mm.yy", "dd/mm/yy", "mm/dd/yy")  # fmt: skip
"""Orders of dates that are proposed, the usual ones first."""


@dataclass(frozen=True)
class TimeColumn:
    """The column with the time: the format of its text, or the unit of its Unix time, or neither."""

    name: str
    format: str | None = None
    unit: UnixUnit | None = None
    local: bool = True
    """Whether its times have no offset from UTC, so that they may be those of a zone's clock."""

    def parse(self, cells: pd.Series) -> Stamps:
        """Timestamps in UTC without zone, microseconds; NaT for a cell that is none."""
        import pandas as pd

        if self.unit is None:
            if self.format is not None and pd.api.types.is_numeric_dtype(cells.dtype):
                cells = cells.astype("Int64").astype(str)  # 20240131
            parsed = pd.to_datetime(cells, utc=True, errors="coerce", format=self.format)
        else:
            numbers = pd.to_numeric(cells, errors="coerce")
            parsed = pd.to_datetime(numbers, utc=True, errors="coerce", unit=self.unit)
        return parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")


def find_time_column(head: pd.DataFrame, file: str, dialect: Dialect = PLAIN) -> TimeColumn | None:
    """The column with the time: as the dialect names it, by a usual name, else the first that parses.

    That is one of text or of a time type.  A named column may also hold Unix time, see ``cells.py``.

    Raises:
        DataError: a column has the name of a time column but holds numbers or something else.
        UsageError: the dialect names a column that is not there.
    """
    if dialect.time and dialect.time not in head.columns:
        raise unknown_name(f"column of {file}", dialect.time, head.columns)
    named = [column for column in head.columns if column.lower() in TIME_NAMES]
    named = [dialect.time] if dialect.time else named
    for column in named if dialect.time else [*named, *(c for c in head.columns if c not in named)]:
        if found := _as_time(head[column], column, dialect.dates, named=column in named):
            return found
    for column in named:
        cell = head[column].iloc[0]
        expected = dialect.dates or "2016-07-01 00:00:00"
        what = f"{file}: column {column!r} holds {str(cell)!r}, expected timestamps such as {expected}"
        if dates := guess_dates([str(cell) for cell in head[column].dropna()], dialect):
            raise propose(what, dates)
        raise DataError(
            what,
            hint="write timestamps as ISO 8601 or Unix time, or rename the column if it is a variate",
        )
    return None


def is_timestamp(text: str) -> bool:
    """Whether ``text`` is an ISO 8601 date or timestamp, told from a number by its dash."""
    return "-" in text and _text_format([text]) == _ISO


def _as_time(cells: pd.Series, name: str, dates: str, *, named: bool) -> TimeColumn | None:
    import pandas as pd

    known = cells.dropna()
    if known.empty:
        return None
    if pd.api.types.is_numeric_dtype(cells.dtype) and not (named and dates):
        unit = unix_unit(float(known.iloc[0])) if named else None
        return TimeColumn(name, unit=unit, local=False) if unit else None
    first = known.iloc[0]
    if not isinstance(first, str) and not dates:
        found = TimeColumn(name, local=getattr(cells.dtype, "tz", None) is None)
    else:
        texts = [str(cell) for cell in known]
        text_format = _stated_format(texts, (date_pattern(dates),)) if dates else _text_format(texts)
        if text_format is None or (_is_plain_number(texts[0]) and not dates):
            return None
        found = TimeColumn(name, text_format, local=_ZONE.search(texts[0]) is None)
    return found if not np.isnat(found.parse(known.iloc[:1])).any() else None


_ZONE = re.compile(r":\d{2}(?:[.,]\d+)? *(?:[AaPp][Mm])? *(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)$")


def _is_plain_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_format(texts: Sequence[str]) -> str | None:
    """ISO 8601 where it fits, since it covers dates and times in one file; else the format of ``texts``.

    Days come before months where dots separate them, and after them where slashes do, unless the texts are
    none in that order.
    """
    import pandas as pd
    from pandas.tseries.api import guess_datetime_format

    text = texts[0]
    if not any(character.isdigit() for character in text):
        return None
    if not pd.isna(pd.to_datetime(text, format=_ISO, errors="coerce")):
        return _ISO
    if found := _stated_format(texts, DATES):
        return found
    with warnings.catch_warnings():
        # A day above 12 tells the order; pandas warns all the same.
        warnings.simplefilter("ignore", UserWarning)
        return guess_datetime_format(text, dayfirst="." in text)


def _stated_format(texts: Sequence[str], dates: Sequence[str]) -> str | None:
    """The format of the first text by the first of these patterns of dates that reads the most of them."""
    best: tuple[int, str | None] = (0, None)
    for pattern in dates:
        notation = re.compile(pattern + TIME_OF_DAY, re.ASCII)
        read = 0
        for text in texts:
            found = notation.fullmatch(text.strip())
            if found is None or not 1 <= int(found["month"]) <= 12:
                break
            read += 1
        if read > best[0]:
            first = notation.fullmatch(texts[0].strip())
            best = read, None if first is None else _format_of(first)
        if read == len(texts):
            break
    return best[1]


def _format_of(found: re.Match[str]) -> str:
    """The text of a match with a directive for each of its parts."""
    text, end = "", 0
    parts = [(span, name) for name in found.re.groupindex if (span := found.span(name))[0] >= 0]
    for (begin, stop), name in sorted(parts):
        if name == "year":
            directive = "%Y" if stop - begin == 4 else "%y"
        elif name == "hour":
            directive = "%I" if found["half"] else "%H"
        else:
            directive = "%Z" if found[name] == "UTC" else _DIRECTIVES[name]
        text += found.string[end:begin].replace("%", "%%") + directive
        end = stop
    return text


def is_time_of(text: str, dates: str) -> bool:
    """Whether ``text`` is a time whose date is written in the order ``dates``."""
    return _stated_format([text], (date_pattern(dates),)) is not None


def guess_dates(cells: Sequence[str], given: Dialect) -> Dialect | None:
    """``given`` with the order of dates that reads all cells; None where there is none, or it is given."""
    texts = [cell for cell in cells if isinstance(cell, str) and not is_empty(cell)]
    for dates in _DATES:
        if texts and dates != given.dates and all(is_time_of(text, dates) for text in texts):
            return given._replace(dates=dates)
    return None
