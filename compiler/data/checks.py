"""The checks on rows: cells are finite numbers, timestamps ascend in regular steps.

Every refusal names the file, the row as the user counts it (the header of a CSV is row 1) and the
column, says what was expected, and what to do: where an option reads the file, that option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError
from .blocks import Block, stamps_of
from .filling import FILL_HINT
from .formats import plain_texts
from .guessing import guess_numbers, propose
from .remedies import RepairableError, options_text
from .timeline import Positions, Stamps, Timeline, infer_timeline
from .timestamps import guess_dates
from .zones import clock_change, stamp_text

if TYPE_CHECKING:
    import pandas as pd

    from .dataset import Array
    from .formats import TableFile
    from .timestamps import TimeColumn


_FILL = {"missing": "interpolate"}


def row_name(file: TableFile, frame: pd.DataFrame, index: int) -> str:
    """``file: row 12`` for row ``index`` of a chunk."""
    return f"{file.name}: row {int(frame.index[index]) + file.first_row}"


def read_numbers(
    file: TableFile, frame: pd.DataFrame, variates: Sequence[str], *, allow_empty: bool, chosen: bool = False
) -> Array:
    """The cells of a chunk ``[rows, D]``, NaN for an empty one where that is allowed.

    ``chosen`` says that a user named these variates, and need not be told to.

    Raises:
        DataError: a cell is text, infinite, or empty.
    """
    numbers = np.empty((len(frame), len(variates)))
    for place, name in enumerate(variates):
        numbers[:, place] = _column(file, frame, name, () if chosen else variates)
    refused = np.isinf(numbers) if allow_empty else ~np.isfinite(numbers)
    if refused.any():
        index, place = (int(found) for found in np.argwhere(refused)[0])
        where = f"{row_name(file, frame, index)}, column {variates[place]!r}"
        if np.isinf(numbers[index, place]):
            raise DataError(f"{where} is infinite, expected a number", hint="repair the file")
        raise RepairableError(f"{where} is empty or NaN, expected a number", hint=FILL_HINT, remedy=_FILL)
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
        expected = file.dialect.dates or "the format of the rows before"
        where = f"{row_name(file, frame, index)}, column {time.name!r}"
        what = f"{where} is {found}, expected a timestamp in {expected}"
        if dates := guess_dates([str(cell) for cell in cells.dropna()], file.dialect):
            raise propose(what, dates)
        raise DataError(what, hint="write all timestamps in one format, best ISO 8601")
    return stamps


class TimeAxis:
    """Follows the timestamps of a file chunk by chunk and gives each row its place on a regular axis.

    Args:
        file: its name, for messages.
        allow_gaps: whether timestamps may be missing between two rows.
    """

    def __init__(self, file: str, *, allow_gaps: bool) -> None:
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

    def extend(self, block: Block) -> Positions:
        """Places of the rows of a block on the axis, whose ``rows`` grow by all places that it adds.

        Raises:
            DataError: a timestamp is repeated, out of order, off the regular step, or missing.
        """
        stamps = stamps_of(block)
        begins = self._last is None
        previous = np.concatenate(
            [stamps[:1] if begins else np.array([self._last], stamps.dtype), stamps[:-1]]
        )
        self._refuse_disorder(block, previous, first=1 if begins else 0)
        if begins:
            self.timeline = infer_timeline(stamps)
        self._last = stamps[-1]
        first = self.rows
        if self.timeline is None:
            if first + len(stamps) > 1:
                raise DataError(
                    f"{self._file}: the timestamps follow no regular step",
                    hint="resample the file to a regular step",
                )
            self.rows = 1
            return np.zeros(1, dtype=np.int64)
        places = self.timeline.positions(stamps)
        expected = np.concatenate([[first], places[:-1] + 1])
        refused = places < expected if self._allow_gaps else places != expected
        if refused.any():
            raise self._irregular(block, previous, int(np.argmax(refused)), places - expected)
        self.rows = int(places[-1]) + 1
        return places

    def _refuse_disorder(self, block: Block, previous: Stamps, first: int) -> None:
        stamps = stamps_of(block)
        steps = (stamps - previous).astype(np.int64)
        disorder = np.flatnonzero(steps[first:] <= 0) + first
        if not disorder.size:
            return
        index = int(disorder[0])
        where = f"{self._row(block, index)} has the timestamp {stamp_text(stamps[index])}"
        change = clock_change(previous[index], stamps[index])
        if steps[index] == 0:
            what = f"{where} like the row before it"
            otherwise = "keep one row per timestamp, or add --duplicates mean or --duplicates first"
            raise _at_a_change(what, change, otherwise, {"duplicates": "mean"})
        what = f"{where} after {stamp_text(previous[index])}, expected ascending order"
        raise _at_a_change(what, change, "sort the file by time, or add --sort", {"sort": True})

    def _irregular(
        self, block: Block, previous: Stamps, index: int, ahead: npt.NDArray[np.int64]
    ) -> DataError:
        stamps = stamps_of(block)
        where = f"{self._row(block, index)} has the timestamp {stamp_text(stamps[index])}"
        after = f"{stamp_text(previous[index])} at the step {self.frequency}"
        if ahead[index] < 0:
            return DataError(
                f"{where}, which does not follow {after}", hint="resample the file to a regular step"
            )
        change = clock_change(previous[index], stamps[index])
        return _at_a_change(f"{where}: {ahead[index]} missing after {after}", change, FILL_HINT, _FILL)

    def _row(self, block: Block, index: int) -> str:
        return f"{self._file}: row {int(block.rows[index])}"


def _at_a_change(
    what: str, change: tuple[str, str] | None, otherwise: str, remedy: Mapping[str, str | bool]
) -> RepairableError:
    """The error for a row that a change of the clock may explain."""
    if change is None:
        return RepairableError(what, hint=otherwise, remedy=remedy)
    zone, how = change
    return RepairableError(
        what,
        hint=f"this is an hour that the clock of {zone} {how}: for local time add "
        f"{options_text({'zone': zone})}, or the name of your zone; otherwise {otherwise}",
        remedy={"zone": zone},
    )


def _column(
    file: TableFile, frame: pd.DataFrame, name: str, variates: Sequence[str]
) -> npt.NDArray[np.float64]:
    """``variates`` are those that a user may choose from, none where that was done."""
    import pandas as pd

    cells = frame[name]
    numbers = cells
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype):
        bad = cells.notna().to_numpy()
    else:
        if not pd.api.types.is_numeric_dtype(cells.dtype):
            numbers = pd.to_numeric(plain_texts(cells, file.dialect), errors="coerce")
        bad = (numbers.isna() & cells.notna()).to_numpy()
    if bad.any():
        index = int(np.argmax(bad))
        value = str(cells.iloc[index])[:60]
        what = f"{row_name(file, frame, index)}, column {name!r} is {value!r}, expected a number"
        if found := guess_numbers(list(cells.dropna()), file.dialect):
            raise propose(what, found)
        others = "" if numbers.notna().any() else _numeric_names(file, frame, variates)
        if others:
            remedy = {"variates": others}
            hint = f"repair the cell, or choose the numeric columns with {options_text(remedy)}"
            raise RepairableError(what, hint=hint, remedy=remedy)
        raise DataError(
            what, hint="repair the cell" + (", or choose other columns with --variates" if variates else "")
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _numeric_names(file: TableFile, frame: pd.DataFrame, variates: Sequence[str]) -> str:
    """The variates that are numbers, as ``--variates`` takes them; empty for none, or a name with a comma."""
    import pandas as pd

    names = []
    for name in variates:
        known = frame[name].dropna()
        if pd.api.types.is_datetime64_any_dtype(known.dtype) or pd.api.types.is_bool_dtype(known.dtype):
            continue
        if not len(known) or pd.to_numeric(plain_texts(known, file.dialect), errors="coerce").notna().all():
            names.append(name)
    return "" if any("," in name for name in names) else ",".join(names)


def read_blocks(
    file: TableFile,
    names: Sequence[str],
    time: TimeColumn | None,
    rows: int,
    *,
    allow_empty: bool,
    chosen: bool,
) -> Iterator[Block]:
    """The rows of a file, in its order.

    Raises:
        DataError: a cell is no number or no time.
    """
    for frame in file.chunks([*names, *([time.name] if time else [])], rows):
        yield Block(
            frame.index.to_numpy(dtype=np.int64) + file.first_row,
            None if time is None else read_timestamps(file, frame, time),
            read_numbers(file, frame, names, allow_empty=allow_empty, chosen=chosen),
        )
