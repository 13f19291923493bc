"""From a CSV or Parquet file to checked, memory-mapped arrays, a chunk of rows at a time.

The result is content-addressed: it depends on the bytes of the file, the chosen variates and the
``missing`` policy, and is read from the cache the second time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
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
from .checks import TimeAxis, read_numbers, read_timestamps
from .dataset import Array, Filled
from .formats import Fingerprint, TableFile, fingerprint, is_csv, open_table
from .limits import data_limits
from .missing import Missing, fill_missing, refuse_invented
from .sources import Source
from .timeline import Positions, Stamps
from .timestamps import TimeColumn, find_time_column

_FORMAT = 2  # goes into the cache key: raise it when the arrays of the same file would differ
RECORD, VALUES, TIMESTAMPS = "table.json", "values.npy", "timestamps.npy"
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
    missing: Missing,
    progress: Progress | None,
    chunk_rows: int | None,
    max_filled: float = 1.0,
) -> Table:
    """Read ``source`` through the cache; ``variates`` None means all columns but the timestamps.

    ``max_filled`` is the share of a variate that ``missing`` may fill in.

    Raises:
        DataError: the file cannot be used; the message names row and column.
        UsageError: an unknown variate.
    """
    content = source.content or fingerprint(source.path)
    if source.known and content.sha256 != source.known.sha256:
        raise DataError(
            f"{source.path} has sha256 {content.sha256}, the published {source.name} "
            f"has {source.known.sha256}",
            hint="fetch it again, or rename it and give its path to use it as a file of your own",
        )
    identity = [
        _FORMAT,
        content.sha256,
        is_csv(source.path),
        variates and list(variates),
        missing,
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
        ingest(source, content, variates, missing, partial, progress, chunk_rows, max_filled)
        publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _believable(open_ingested(folder), max_filled, source)


def _believable(table: Table, max_filled: float, source: Source) -> Table:
    refuse_invented(table.filled.share, max_filled, f"variate {table.filled.variate!r}", source.path.name)
    return table


def ingest(
    source: Source,
    content: Fingerprint,
    variates: Sequence[str] | None,
    missing: Missing,
    folder: Path,
    progress: Progress | None = None,
    chunk_rows: int | None = None,
    max_filled: float = 1.0,
) -> None:
    """Check ``source`` and write its arrays into ``folder``; errors as in ``load_table``."""
    file = open_table(source.path)
    head = next(iter(file.chunks(file.columns, _HEAD_ROWS)), None)
    if head is None or head.empty:
        raise DataError(
            f"{file.name} has a header but no rows", hint="expected rows of numbers below the header"
        )
    time = find_time_column(head, file.name)
    names = _chosen_variates(file, variates, time)
    rows = chunk_rows or max(_HEAD_ROWS, _CHUNK_CELLS // len(file.columns))  # all columns are parsed
    # A published benchmark file is taken as it is, with its repeated and missing timestamps.
    axis = None if source.known or time is None else TimeAxis(file, allow_gaps=missing != "error")
    read = 0
    limits = data_limits()
    with (
        ArrayWriter(folder / VALUES, np.dtype("<f8"), (len(names),)) as values,
        ArrayWriter(folder / TIMESTAMPS, np.dtype("<M8[us]"), ()) as timestamps,
        (progress or Silent()).task(f"read {source.name}", file.rows or content.rows) as task,
    ):
        for frame in file.chunks([*names, *([time.name] if time else [])], rows):
            numbers = read_numbers(file, frame, names, allow_empty=missing != "error")
            read += len(frame)
            if time is None:
                values.append(numbers)
            elif axis is None:
                values.append(numbers)
                timestamps.append(read_timestamps(file, frame, time))
            else:
                places = axis.extend(frame, read_timestamps(file, frame, time))
                # How many rows are still to come is known from above, so a hopeless file ends here.
                absent = axis.rows - read
                share = absent / (absent + max(read, file.rows or content.rows))
                refuse_invented(share, max_filled, "every variate", file.name)
                if axis.rows > limits.rows:
                    raise limits.refuse("rows", f"{file.name} has {axis.rows:,} rows, missing ones included")
                for first in range(values.rows, axis.rows, rows):
                    count = min(rows, axis.rows - first)
                    values.append(_spread(numbers, places - first, count))
                    timestamps.append(axis.stamps(first, count))
            task.advance(len(frame))
    inserted = values.rows - read
    cells = _fill(folder, missing, names, file.name, rows)
    worst = int(np.argmax(cells))
    filled = Filled(
        int(cells.sum()) - inserted * len(names),
        inserted,
        float(cells[worst]) / values.rows,
        names[worst] if cells[worst] else "",
    )
    known_frequency = source.known.frequency if source.known else None
    meta = {
        "sha256": content.sha256,
        "variates": names,
        "frequency": axis.frequency if axis else known_frequency,
        "filled": asdict(filled),
        "rows": values.rows,
        "values": file_hash(folder / VALUES),
        "timestamps": None if time is None else file_hash(folder / TIMESTAMPS),
    }
    (folder / RECORD).write_text(json.dumps(sealed(meta)))


def _spread(numbers: Array, places: Positions, count: int) -> Array:
    """The next ``count`` rows: those of ``numbers [n, D]`` whose ``places`` are there, and empty ones."""
    inside = (places >= 0) & (places < count)
    spread = np.full((count, numbers.shape[1]), np.nan)
    spread[places[inside]] = numbers[inside]
    return spread


def _fill(
    folder: Path, missing: Missing, names: Sequence[str], file: str, rows: int
) -> npt.NDArray[np.int64]:
    """How many cells of each variate ``[D]``."""
    if missing == "error":
        return np.zeros(len(names), dtype=np.int64)
    values = np.load(folder / VALUES, mmap_mode="r+")
    filled = fill_missing(values, missing, names, file, rows)
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
