"""From a file to checked, memory-mapped arrays, a chunk of rows at a time.

    read -> local time to UTC -> put in order -> merge rows of one time -> regular axis -> fill -> trim

The result is content-addressed: it depends on the bytes of the file, the chosen variates and how it is read,
and is read from the cache the second time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from ..base.content import cache_root, file_hash
from ..base.errors import DataError, UsageError, VerificationError, unknown_name
from ..base.progress import Progress, Silent
from ..base.reading import open_regular, validated
from ..base.sealed import mapped, publish, read_sealed, sealed, warn_damaged
from .array_file import ArrayWriter
from .blocks import Block, Merge, Order, batched, stamps_of
from .checks import TimeAxis, read_blocks
from .dataset import Array, Filled
from .formats import Fingerprint, Renamed, TableFile, fingerprint, is_csv, open_table, separator
from .limits import data_limits
from .missing import checked_policy, fill_missing, known_span, refuse_invented, refuse_trimmed
from .reading import AS_IT_IS, Reading
from .remedies import RepairableError
from .sources import Source
from .timeline import Positions, Stamps
from .timestamps import TimeColumn, find_time_column
from .zones import to_utc

_FORMAT = 3  # goes into the cache key: raise it when the arrays of the same file would differ
RECORD, VALUES, TIMESTAMPS = "table.json", "values.npy", "timestamps.npy"
_PRESENT = "present.npy"
_HEAD_ROWS = 100
_CHUNK_CELLS = 1 << 21


@dataclass(frozen=True)
class Table:
    """A checked file: ``values [T, D]`` and ``timestamps [T]`` (or None), both memory-mapped."""

    sha256: str
    variates: tuple[str, ...]
    frequency: str | None
    filled: Filled
    values: Array
    timestamps: Stamps | None


class TableRecord(BaseModel, extra="forbid"):
    """``table.json``.

    Attributes:
        sha256: of the source's content.
        rows: T.
        values, timestamps: sha256 of the files; no timestamps where the source has none.
    """

    sha256: str
    variates: tuple[str, ...]
    frequency: str | None
    filled: Filled
    rows: int
    values: str
    timestamps: str | None


def load_table(
    source: Source,
    variates: Sequence[str] | None,
    reading: Reading = AS_IT_IS,
    progress: Progress | None = None,
    chunk_rows: int | None = None,
    max_filled: float = 1.0,
) -> Table:
    """Read ``source`` through the cache; ``variates`` None means all columns but the timestamps.

    ``max_filled`` is the share of a variate that may be filled in, and of the rows that may be trimmed.

    Raises:
        DataError: the file cannot be used; the message names row and column.
        UsageError: an unknown variate.
    """
    content = source.content or fingerprint(source.path, reading.dialect)
    if source.known and content.sha256 != source.known.sha256:
        raise DataError(
            f"{source.path} has sha256 {content.sha256}, the published {source.name} "
            f"has {source.known.sha256}",
            hint="fetch it again, or rename it and give its path to use it as a file of your own",
        )
    identity = [
        _FORMAT,
        content.sha256,
        [is_csv(source.path), is_csv(source.path) and separator(source.path, reading.dialect)],
        variates and list(variates),
        reading,
        source.known and source.known.frequency,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    folder = cache_root() / "data" / "tables" / key
    if folder.exists():
        try:
            return _believable(open_ingested(folder), max_filled, source)
        except VerificationError as error:
            warn_damaged(error.what)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        ingest(source, content, variates, reading, partial, progress, chunk_rows, max_filled)
        publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _believable(open_ingested(folder), max_filled, source)


def _believable(table: Table, max_filled: float, source: Source) -> Table:
    filled = table.filled
    refuse_invented(filled.share, max_filled, f"variate {filled.variate!r}", source.path.name)
    refuse_trimmed(filled, len(table.values), max_filled, source.path.name)
    return table


def ingest(
    source: Source,
    content: Fingerprint,
    variates: Sequence[str] | None,
    reading: Reading,
    folder: Path,
    progress: Progress | None = None,
    chunk_rows: int | None = None,
    max_filled: float = 1.0,
    rename: Mapping[str, str] | None = None,
) -> None:
    """Check ``source`` and write its arrays into ``folder``; errors as in ``load_table``.

    ``rename``: name of a column in the file -> the name that it goes by here.
    """
    file = open_table(source.path, reading.dialect)
    if rename:
        file = Renamed(file, rename)
    head = next(iter(file.chunks(file.columns, _HEAD_ROWS)), None)
    if head is None or head.empty:
        raise DataError(
            f"{file.name} has a header but no rows", hint="expected rows of numbers below the header"
        )
    time = find_time_column(head, file.name, reading.dialect)
    names = _chosen_variates(file, variates, time)
    rows = chunk_rows or max(_HEAD_ROWS, _CHUNK_CELLS // len(file.columns))  # all columns are parsed
    if source.known:  # a published benchmark file is taken as it is, with its repeated and missing timestamps
        reading = Reading(missing=reading.missing)
    _refuse_idle(reading, time, file.name)
    allow_empty = reading.missing != "error"
    axis = None if source.known or time is None else TimeAxis(file.name, allow_gaps=allow_empty)
    limits = data_limits()
    blocks = read_blocks(file, names, time, rows, allow_empty=allow_empty, chosen=variates is not None)
    order, merge = Order(folder, len(names), rows), Merge(reading.duplicates, file.name)
    kept = 0
    with (
        ArrayWriter(folder / VALUES, np.dtype("<f8"), (len(names),)) as values,
        ArrayWriter(folder / TIMESTAMPS, np.dtype("<M8[us]"), ()) as timestamps,
        ArrayWriter(folder / _PRESENT, np.dtype("?"), ()) as present,
        (progress or Silent()).task(f"read {source.name}", file.rows or content.rows) as task,
    ):
        for block in _in_order(blocks, reading, file.name, order, merge, rows):
            kept += len(block)
            if axis is None:
                values.append(block.values)
                if time is not None:
                    timestamps.append(stamps_of(block))
            else:
                places = axis.extend(block)
                # How many rows are still to come is known from above, so a hopeless file ends here.
                absent = axis.rows - kept
                share = absent / (absent + max(kept, file.rows or content.rows))
                refuse_invented(share, max_filled, "every variate", file.name)
                if axis.rows > limits.rows:
                    raise limits.refuse("rows", f"{file.name} has {axis.rows:,} rows, missing ones included")
                for first in range(values.rows, axis.rows, rows):
                    count = min(rows, axis.rows - first)
                    values.append(_spread(block.values, places - first, count))
                    present.append(_there(places - first, count))
                    timestamps.append(axis.stamps(first, count))
            task.advance(len(block))
    begin, end, begun_by = _known_span(folder, reading, names, file.name, rows)
    _keep_rows(folder, begin, end, rows, timed=time is not None)
    inserted = _absent(folder, begin, end)
    cells = _fill(folder, reading, names, file.name, rows)
    worst = int(np.argmax(cells))
    filled = Filled(
        cells=int(cells.sum()) - inserted * len(names),
        rows=inserted,
        share=float(cells[worst]) / (end - begin),
        variate=names[worst] if cells[worst] else "",
        merged=merge.merged,
        moved=order.moved,
        trimmed=(begin, values.rows - end),
        begun_by=begun_by,
    )
    known_frequency = source.known.frequency if source.known else None
    meta = {
        "sha256": content.sha256,
        "variates": names,
        "frequency": axis.frequency if axis else known_frequency,
        "filled": asdict(filled),
        "rows": end - begin,
        "values": file_hash(folder / VALUES),
        "timestamps": None if time is None else file_hash(folder / TIMESTAMPS),
    }
    (folder / RECORD).write_text(json.dumps(sealed(meta)))


def _refuse_idle(reading: Reading, time: TimeColumn | None, file: str) -> None:
    """A policy for times that has nothing to act on is a misunderstanding."""
    if time is None:
        for name in ("zone", "sort", "duplicates"):
            if getattr(reading, name) != getattr(AS_IT_IS, name):
                raise UsageError(
                    f"--{name} with {file}, which has no column with the time",
                    hint="name the column with --csv time=NAME, or leave the option out",
                )
    elif reading.zone and not time.local:
        raise RepairableError(
            f"{file}: the times in column {time.name!r} say their offset from UTC themselves",
            hint="leave --zone out",
            remedy={"zone": ""},
        )


def _in_order(
    blocks: Iterator[Block], reading: Reading, file: str, order: Order, merge: Merge, rows: int
) -> Iterator[Block]:
    """The rows as the stated policies make of them; untouched where none is stated."""
    if reading.zone:
        blocks = to_utc(blocks, reading.zone, file)
    if reading.sort:
        blocks = batched(order.sorted(blocks), rows)
    return batched(merge.distinct(blocks), rows) if reading.duplicates != "error" else blocks


def _there(places: Positions, count: int) -> npt.NDArray[np.bool_]:
    """Which of the next ``count`` rows are in the file."""
    there = np.zeros(count, dtype=bool)
    there[places[(places >= 0) & (places < count)]] = True
    return there


def _spread(numbers: Array, places: Positions, count: int) -> Array:
    """The next ``count`` rows: those of ``numbers [n, D]`` whose ``places`` are there, and empty ones."""
    inside = (places >= 0) & (places < count)
    spread = np.full((count, numbers.shape[1]), np.nan)
    spread[places[inside]] = numbers[inside]
    return spread


def _known_span(
    folder: Path, reading: Reading, names: Sequence[str], file: str, rows: int
) -> tuple[int, int, str]:
    """See ``known_span``; all rows where nothing may be empty."""
    values = np.load(folder / VALUES, mmap_mode="r")
    return (0, len(values), "") if reading.missing == "error" else known_span(values, names, file, rows)


def _keep_rows(folder: Path, begin: int, end: int, rows: int, *, timed: bool) -> None:
    """Leaves the rows ``begin ... end - 1`` of the arrays, copied a chunk at a time."""
    for name in (VALUES, *([TIMESTAMPS] if timed else [])):
        whole = np.load(folder / name, mmap_mode="r")
        if (begin, end) == (0, len(whole)):
            continue
        part = folder / f"{name}.part"
        with ArrayWriter(part, whole.dtype, whole.shape[1:]) as kept:
            for first in range(begin, end, rows):
                kept.append(whole[first : min(first + rows, end)])
        part.replace(folder / name)


def _absent(folder: Path, begin: int, end: int) -> int:
    """How many of these rows were put in for missing timestamps."""
    path = folder / _PRESENT
    present = np.load(path, mmap_mode="r")[begin:end]
    absent = int(len(present) - np.count_nonzero(present))
    path.unlink()
    return absent


def _fill(
    folder: Path, reading: Reading, names: Sequence[str], file: str, rows: int
) -> npt.NDArray[np.int64]:
    """How many cells of each variate ``[D]``."""
    if reading.missing == "error":
        return np.zeros(len(names), dtype=np.int64)
    values = np.load(folder / VALUES, mmap_mode="r+")
    filled = fill_missing(values, checked_policy(reading.missing), names, file, rows)
    values.flush()
    return filled


def open_ingested(folder: Path) -> Table:
    """Open what ``ingest`` wrote.

    Raises:
        VerificationError: something is missing, truncated or changed.
    """
    path, what = folder / RECORD, "record of a table"
    record = read_sealed(path, what=what, error=VerificationError)
    meta = validated(record, TableRecord, what=f"{path}: {what}", error=VerificationError)
    values = _believed(folder / VALUES, meta.values, (meta.rows, len(meta.variates)), "<f8")
    stamps = None
    if meta.timestamps is not None:
        stamps = _believed(folder / TIMESTAMPS, meta.timestamps, (meta.rows,), "<M8[us]")
    return Table(meta.sha256, meta.variates, meta.frequency, meta.filled, values, stamps)


def _believed(path: Path, sha256: str, shape: tuple[int, ...], dtype: str) -> Any:
    """The array of a file, once the file was found to be what was written."""
    try:
        with open_regular(path) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return mapped(file, shape, dtype, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        raise VerificationError(f"{path}: cannot be read: {error}") from None
    raise VerificationError(f"{path}: it was changed since it was written")


def _chosen_variates(file: TableFile, wanted: Sequence[str] | None, time: TimeColumn | None) -> list[str]:
    existing = [column for column in file.columns if time is None or column != time.name]
    if not existing:
        raise DataError(
            f"{file.name} has no column besides its timestamps", hint="expected at least one variate"
        )
    if wanted is None:
        return existing
    for name in wanted:
        if name not in existing:
            raise unknown_name(f"variate of {file.name}", name, existing)
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError(
            f"variates {','.join(wanted)!r} are empty or repeated", hint="name each variate once"
        )
    return list(wanted)
