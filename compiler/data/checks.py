"""The checks on rows: cells are finite numbers, timestamps ascend in regular steps.

Every refusal names the file, the row as the user counts it (the header of a CSV is row 1) and the
column, says what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError
from .filling import FILL_HINT
from .timeline import Positions, Stamps, Timeline, infer_timeline

if TYPE_CHECKING:
    import pandas as pd

    from .dataset import Array
    from .formats import TableFile
    from .timestamps import TimeColumn


def row_name(file: TableFile, frame: pd.DataFrame, index: int) -> str:
    """``file: row 12`` for row ``index`` of a chunk."""
    return f"{file.name}: row {int(frame.index[index]) + file.first_row}"


def read_numbers(
    file: TableFile, frame: pd.DataFrame, variates: Sequence[str], *, allow_empty: bool
) -> Array:
    """The cells of a chunk ``[rows, D]``, NaN for an empty one where that is allowed.

    Raises:
        DataError: a cell is text, infinite, or empty.
    """
    numbers = np.empty((len(frame), len(variates)))
    for place, name in enumerate(variates):
        numbers[:, place] = _column(file, frame, name)
    refused = np.isinf(numbers) if allow_empty else ~np.isfinite(numbers)
    if refused.any():
        index, place = (int(found) for found in np.argwhere(refused)[0])
        where = f"{row_name(file, frame, index)}, column {variates[place]!r}"
        if np.isinf(numbers[index, place]):
            raise DataError(f"{where} is infinite, expected a number", hint="repair the file")
        raise DataError(f"{where} is empty or NaN, expected a number", hint=FILL_HINT)
    return numbers


def read_timestamps(file: TableFile, frame: pd.DataFrame, time: TimeColumn) -> Stamps:
    """The timestamps of a chunk.

    Raises:
        DataError: a cell is not a timestamp, or is one in another format.
    """
    cells = frame[time.name]
    stamps = time.parse(cells)
    unreadable = np.isnat(stamps)
    if unreadable.any():
        index = int(np.argmax(unreadable))
        cell = cells.iloc[index]
        found = repr(cell[:60]) if isinstance(cell, str) else "empty"
        raise DataError(
            f"{row_name(file, frame, index)}, column {time.name!r} is {found}, "
            "expected a timestamp in the format of the rows before",
            hint="write all timestamps in one format, best ISO 8601",
        )
    return stamps


class TimeAxis:
    """Follows the timestamps of a file chunk by chunk and gives each row its place on a regular axis.

    Args:
        file: for messages.
        allow_gaps: whether timestamps may be missing between two rows.
    """

    def __init__(self, file: TableFile, *, allow_gaps: bool) -> None:
        self._file = file
        self._allow_gaps = allow_gaps
        self._last: np.datetime64 | None = None
        self.timeline: Timeline | None = None
        self.rows = 0
        """Rows of the regular axis so far, missing ones included."""

    @property
    def frequency(self) -> str | None:
        """pandas offset alias, None for a single row."""
        return self.timeline.frequency if self.timeline else None

    def stamps(self, first: int, count: int) -> Stamps:
        """The timestamps of ``count`` places from ``first`` on."""
        assert self._last is not None
        return np.array([self._last]) if self.timeline is None else self.timeline.stamps(first, count)

    def extend(self, frame: pd.DataFrame, stamps: Stamps) -> Positions:
        """Places of the rows of a chunk on the axis, whose ``rows`` grow by all places that it adds.

        Raises:
            DataError: a timestamp is repeated, out of order, off the regular step, or missing.
        """
        begins = self._last is None
        previous = np.concatenate(
            [stamps[:1] if begins else np.array([self._last], stamps.dtype), stamps[:-1]]
        )
        self._refuse_disorder(frame, stamps, previous, first=1 if begins else 0)
        if begins:
            self.timeline = infer_timeline(stamps)
        self._last = stamps[-1]
        first = self.rows
        if self.timeline is None:
            if first + len(stamps) > 1:
                raise DataError(
                    f"{self._file.name}: the timestamps follow no regular step",
                    hint="resample the file to a regular step",
                )
            self.rows = 1
            return np.zeros(1, dtype=np.int64)
        places = self.timeline.positions(stamps)
        expected = np.concatenate([[first], places[:-1] + 1])
        refused = places < expected if self._allow_gaps else places != expected
        if refused.any():
            raise self._irregular(frame, stamps, previous, int(np.argmax(refused)), places - expected)
        self.rows = int(places[-1]) + 1
        return places

    def _refuse_disorder(self, frame: pd.DataFrame, stamps: Stamps, previous: Stamps, first: int) -> None:
        steps = (stamps - previous).astype(np.int64)
        disorder = np.flatnonzero(steps[first:] <= 0) + first
        if not disorder.size:
            return
        index = int(disorder[0])
        where = f"{row_name(self._file, frame, index)} has the timestamp {_text(stamps[index])}"
        if steps[index] == 0:
            raise DataError(f"{where} like the row before it", hint="keep one row per timestamp")
        raise DataError(
            f"{where} after {_text(previous[index])}, expected ascending order", hint="sort the file by time"
        )

    def _irregular(
        self, frame: pd.DataFrame, stamps: Stamps, previous: Stamps, index: int, ahead: npt.NDArray[np.int64]
    ) -> DataError:
        where = f"{row_name(self._file, frame, index)} has the timestamp {_text(stamps[index])}"
        after = f"{_text(previous[index])} at the step {self.frequency}"
        if ahead[index] < 0:
            return DataError(
                f"{where}, which does not follow {after}", hint="resample the file to a regular step"
            )
        return DataError(f"{where}: {ahead[index]} missing after {after}", hint=FILL_HINT)


def _column(file: TableFile, frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    import pandas as pd

    cells = frame[name]
    numbers = cells
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype):
        bad = cells.notna().to_numpy()
    else:
        if not pd.api.types.is_numeric_dtype(cells.dtype):
            numbers = pd.to_numeric(cells, errors="coerce")
        bad = (numbers.isna() & cells.notna()).to_numpy()
    if bad.any():
        index = int(np.argmax(bad))
        value = str(cells.iloc[index])[:60]
        raise DataError(
            f"{row_name(file, frame, index)}, column {name!r} is {value!r}, expected a number",
            hint="repair the cell, or choose the numeric columns with --variates",
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _text(stamp: np.datetime64) -> str:
    """``2016-07-01 00:00:00``, without microseconds that are zero."""
    return str(stamp.astype("datetime64[us]")).replace("T", " ").removesuffix(".000000")
