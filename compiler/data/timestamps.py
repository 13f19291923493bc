"""Which column holds the time, and what its cells say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..base.errors import DataError
from .cells import TIME_NAMES, UnixUnit, unix_unit
from .timeline import Stamps

if TYPE_CHECKING:
    import pandas as pd

_ISO = "ISO8601"


@dataclass(frozen=True)
class TimeColumn:
    """The column with the time: the format of its text, or the unit of its Unix time, or neither."""

    name: str
    format: str | None = None
    unit: UnixUnit | None = None

    def parse(self, cells: pd.Series) -> Stamps:
        """Timestamps in UTC without zone, microseconds; NaT for a cell that is none."""
        import pandas as pd

        if self.unit is None:
            parsed = pd.to_datetime(cells, utc=True, errors="coerce", format=self.format)
        else:
            numbers = pd.to_numeric(cells, errors="coerce")
            parsed = pd.to_datetime(numbers, utc=True, errors="coerce", unit=self.unit)
        return parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")


def find_time_column(head: pd.DataFrame, file: str) -> TimeColumn | None:
    """The column with the time: by name, else the first column of text or of a time type that parses.

    A named column may also hold Unix time, see ``cells.py``.

    Raises:
        DataError: a column has the name of a time column but holds numbers or something else.
    """
    named = [column for column in head.columns if column.lower() in TIME_NAMES]
    for column in [*named, *(column for column in head.columns if column not in named)]:
        if found := _as_time(head[column], column):
            return found
    for column in named:
        cell = head[column].iloc[0]
        raise DataError(
            f"{file}: column {column!r} holds {str(cell)!r}, expected timestamps such as 2016-07-01 00:00:00",
            hint="write timestamps as ISO 8601 or Unix time, or rename the column if it is a variate",
        )
    return None


def is_timestamp(text: str) -> bool:
    """Whether ``text`` is an ISO 8601 date or timestamp, told from a number by its dash."""
    return "-" in text and _text_format(text) == _ISO


def _as_time(cells: pd.Series, name: str) -> TimeColumn | None:
    import pandas as pd

    known = cells.dropna()
    if known.empty:
        return None
    if pd.api.types.is_numeric_dtype(cells.dtype):
        unit = unix_unit(float(known.iloc[0])) if name.lower() in TIME_NAMES else None
        return TimeColumn(name, unit=unit) if unit else None
    if not isinstance(known.iloc[0], str):
        found = TimeColumn(name)
    else:
        text_format = _text_format(known.iloc[0])
        if text_format is None or _is_plain_number(known.iloc[0]):
            return None
        found = TimeColumn(name, text_format)
    return found if not np.isnat(found.parse(known.iloc[:1])).any() else None


def _is_plain_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_format(text: str) -> str | None:
    """ISO 8601 where it fits, since it covers dates and times in one file; else the format of ``text``.

    Days come before months where dots separate them, after them where slashes do.
    """
    import pandas as pd
    from pandas.tseries.api import guess_datetime_format

    if not any(character.isdigit() for character in text):
        return None
    if not pd.isna(pd.to_datetime(text, format=_ISO, errors="coerce")):
        return _ISO
    with warnings.catch_warnings():
        # A day above 12 tells the order; pandas warns all the same.
        warnings.simplefilter("ignore", UserWarning)
        return guess_datetime_format(text, dayfirst="." in text)
