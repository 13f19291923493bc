"""From the long format to one memory-mapped column of all series, in two passes over the files.

    1.  count the rows of each id
    2.  write each row to the place of its item, in whatever order rows come
    3.  item by item: sort by time, put on the common axis, trim empty ends, fill gaps by the policy

Memory is that of a batch of rows, of one item and of the ids, however long the files are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..base.content import cache_root, content_key, file_hash
from ..base.errors import DataError, VerificationError
from ..base.progress import Progress, Silent
from ..base.sealed import load_tensors, publish, save_tensors, warn_damaged
from .array_file import ArrayWriter, release
from .cells import EMPTY
from .filling import FILL_HINT, fill_run
from .limits import data_limits
from .missing import Missing
from .panel import PanelColumns, Places
from .panel_columns import file_format
from .timeline import Stamps, Timeline, infer_timeline
from .timestamps import TimeColumn, find_time_column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped]

_FORMAT = 1  # goes into the cache key: raise it when the arrays of the same files would differ
VALUES, ITEMS = "values.npy", "items.safetensors"
BATCH_ROWS = 1 << 18
ITEMS_AT_ONCE = 256
"""After which pages are given back."""


@dataclass(frozen=True)
class StoredPanel:
    """What was read.

    Attributes:
        sha256: over the files.
        values: ``[sum T_i, 1]``, memory-mapped.
        ids: ``[N]``.
        begins, ends, starts: ``[N]``, see ``Panel``.
        cells, gaps: ``[N]`` empty cells and missing rows that were filled in.
        timeline: the common axis.
    """

    sha256: str
    values: npt.NDArray[np.float64]
    ids: tuple[str, ...]
    begins: Places
    ends: Places
    starts: Places
    cells: Places
    gaps: Places
    timeline: Timeline


def read_panel(
    files: Sequence[Path], columns: PanelColumns, name: str, missing: Missing, progress: Progress | None
) -> StoredPanel:
    """Reads files in the long format, through the cache.

    Raises:
        DataError: naming file, item and time.
    """
    digests = [file_hash(path) for path in files]
    key = content_key(_FORMAT, digests, asdict(columns), missing)
    folder = cache_root() / "data" / "panels" / key[:32]
    if folder.exists():
        try:
            return _open(folder, key)
        except VerificationError as error:
            warn_damaged(error.what)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        _ingest(_LongFiles(files, columns, name), missing, partial, key, progress or Silent())
        publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _open(folder, key)


def _open(folder: Path, key: str) -> StoredPanel:
    import torch

    tensors, facts = load_tensors(folder / ITEMS, what="items of a panel", error=VerificationError)
    if facts.get("key") != key or file_hash(folder / VALUES) != facts["values"]:
        raise VerificationError(f"{folder}: it was changed since it was written")
    table: Places = torch.as_tensor(tensors["items"]).numpy()
    begins, ends, starts, cells, gaps = (np.ascontiguousarray(column) for column in table.T)
    axis = Timeline(facts["frequency"], facts["kind"], facts["step"], np.datetime64(facts["origin"], "us"))
    values = np.load(folder / VALUES, mmap_mode="r")
    return StoredPanel(key, values, tuple(facts["ids"]), begins, ends, starts, cells, gaps, axis)


class _LongFiles:
    """The rows of the files, a batch at a time."""

    def __init__(self, files: Sequence[Path], columns: PanelColumns, name: str) -> None:
        self.files, self.columns, self.name = files, columns, name
        self._time: TimeColumn | None = None

    def batches(self, *wanted: str) -> Iterator[pa.RecordBatch]:
        """Batches of some columns: id and time of a CSV as text, values as float64."""
        import pyarrow as pa
        import pyarrow.csv as csv  # type: ignore[import-untyped]
        import pyarrow.dataset as ds  # type: ignore[import-untyped]

        kind: Any = file_format(self.files[0])
        if kind == "csv":
            types = {name: pa.float64() for name in self.columns.values}
            types |= {self.columns.id: pa.string(), self.columns.time: pa.string()}
            convert = csv.ConvertOptions(
                column_types=types, null_values=sorted(EMPTY), strings_can_be_null=True
            )
            kind = ds.CsvFileFormat(convert_options=convert)
        try:
            dataset = ds.dataset([str(path) for path in self.files], format=kind)
            yield from dataset.to_batches(
                columns=list(wanted), batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1,
                use_threads=False,
            )  # fmt: skip
        except (pa.ArrowException, OSError, ValueError) as error:
            said = " ".join(str(error).split())
            said = said[max(0, said.find("conversion error")) :][:240]
            raise DataError(
                f"{self.name} cannot be read: {said}", hint="expected numbers in the value columns"
            ) from error

    def ids(self, batch: pa.RecordBatch) -> pa.Array:
        """The ids of a batch as text.

        Raises:
            DataError: one is empty.
        """
        import pyarrow as pa

        column = batch.column(batch.schema.get_field_index(self.columns.id))
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            raise DataError(f"{self.name}: column {self.columns.id!r} has an empty cell, expected an id")
        return column.cast(pa.string())

    def stamps(self, batch: pa.RecordBatch) -> Stamps:
        """The times of a batch.

        Raises:
            DataError: a cell is no time.
        """
        import pandas as pd

        cells = batch.column(batch.schema.get_field_index(self.columns.time)).to_pandas()
        cells = _as_numbers(pd.Series(cells, name=self.columns.time))
        if self._time is None:
            self._time = find_time_column(cells.iloc[:100].to_frame(), self.name)
        if self._time is None:
            raise DataError(
                f"{self.name}: column {self.columns.time!r} holds {str(cells.iloc[0])[:60]!r}, "
                "expected timestamps such as 2016-07-01 00:00:00",
                hint="name the column that holds the time with --time-column",
            )
        stamps = self._time.parse(cells)
        bad = np.isnat(stamps)
        if bad.any():
            cell = str(cells.iloc[int(np.argmax(bad))])[:60]
            raise DataError(
                f"{self.name}: column {self.columns.time!r} holds {cell!r}, expected a time in the format of "
                "the rows before",
                hint="write all times in one format, best ISO 8601",
            )
        return stamps


def _as_numbers(cells: pd.Series) -> pd.Series:
    """Text of digits alone is Unix time."""
    import pandas as pd

    first = cells.iloc[0]
    return pd.to_numeric(cells, errors="coerce") if isinstance(first, str) and first.isdecimal() else cells


def _ingest(source: _LongFiles, missing: Missing, folder: Path, key: str, progress: Progress) -> None:
    import torch

    counts = _count(source)
    names = sorted(counts)
    total = sum(counts.values())
    if not total:
        raise DataError(f"{source.name} has no rows", hint="expected rows of id, time and value")
    limits = data_limits()
    if total > limits.rows:
        raise limits.refuse("rows", f"{source.name} has {total:,} rows")
    offsets = np.concatenate([[0], np.cumsum([counts[name] for name in names])])
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".rows-") as rows:
        stamps, cells = _sort_into_items(source, Path(rows), names, offsets, progress)
        axis = _find_axis(source, stamps, offsets)
        items = _write_items(source, folder, names, offsets, stamps, cells, axis, missing, progress)
        del stamps, cells
    facts = {
        "key": key,
        "values": file_hash(folder / VALUES),
        "ids": [name for name, _ in items],
        "frequency": axis.frequency,
        "kind": axis.kind,
        "step": axis.step,
        "origin": str(axis.origin),
    }
    save_tensors(folder / ITEMS, {"items": torch.tensor([row for _, row in items])}, facts)


def _count(source: _LongFiles) -> dict[str, int]:
    """Rows of each id."""
    counts: dict[str, int] = {}
    for batch in source.batches(source.columns.id):
        for entry in source.ids(batch).value_counts():
            name = str(entry["values"])
            counts[name] = counts.get(name, 0) + int(entry["counts"].as_py())
    return counts


def _sort_into_items(
    source: _LongFiles, folder: Path, names: Sequence[str], offsets: Places, progress: Progress
) -> tuple[Any, Any]:
    """Times ``[R]`` and values ``[R, V]``, memory-mapped, the rows of each item together."""
    import pandas as pd

    total, columns = int(offsets[-1]), source.columns
    stamps = np.lib.format.open_memmap(folder / "stamps.npy", "w+", np.dtype("<M8[us]"), (total,))
    shape = (total, len(columns.values))
    cells = np.lib.format.open_memmap(folder / "cells.npy", "w+", np.dtype("<f8"), shape)
    index, place = pd.Index(names), offsets[:-1].copy()
    with progress.task(f"read {source.name}", total) as task:
        for batch in source.batches(columns.id, columns.time, *columns.values):
            if not len(batch):
                continue
            items = index.get_indexer(pd.Index(source.ids(batch).to_pandas()))
            order = np.argsort(items, kind="stable")
            grouped = items[order]
            found, first, count = np.unique(grouped, return_index=True, return_counts=True)
            rows = place[grouped] + np.arange(len(grouped)) - np.repeat(first, count)
            place[found] += count
            stamps[rows] = source.stamps(batch)[order]
            for at, name in enumerate(columns.values):
                column = batch.column(batch.schema.get_field_index(name)).to_numpy(zero_copy_only=False)
                cells[rows, at] = column.astype(np.float64)[order]
            release(stamps)
            release(cells)
            task.advance(len(batch))
    return stamps, cells


def _find_axis(source: _LongFiles, stamps: Any, offsets: Places) -> Timeline:
    """The axis of the longest item, from the first time of all."""
    longest = int(np.argmax(np.diff(offsets)))
    own = np.unique(np.asarray(stamps[offsets[longest] : offsets[longest + 1]]))
    axis = infer_timeline(own[:1000])
    if axis is None:
        raise DataError(
            f"{source.name}: the times of an item follow no regular step, from {own[0]} on",
            hint="resample the rows to a regular step",
        )
    first = min(np.asarray(stamps[a:b]).min() for a, b in pairwise(offsets))
    return Timeline(axis.frequency, axis.kind, axis.step, first)


def _write_items(
    source: _LongFiles,
    folder: Path,
    names: Sequence[str],
    offsets: Places,
    stamps: Any,
    cells: Any,
    axis: Timeline,
    missing: Missing,
    progress: Progress,
) -> list[tuple[str, list[int]]]:
    """Writes the values; id and (begin, end, start, filled cells, missing rows) of each series."""
    found: list[tuple[str, list[int]]] = []
    columns = source.columns.values
    with (
        ArrayWriter(folder / VALUES, np.dtype("<f8"), (1,)) as out,
        progress.task(f"check {source.name}", len(names)) as task,
    ):
        for at, name in enumerate(names):
            rows = slice(int(offsets[at]), int(offsets[at + 1]))
            times = np.asarray(stamps[rows])
            order = np.argsort(times, kind="stable")
            places = _places(source, name, times[order], axis)
            own = np.asarray(cells[rows])[order]
            for column, header in enumerate(columns):
                series = name if len(columns) == 1 else f"{name}/{header}"
                run, start, gaps = _regular(source, series, own[:, column], places, axis, missing)
                if run is None:
                    continue
                empty = int(np.isnan(run).sum())
                if empty:
                    fill_run(run, missing)
                begin = out.rows
                out.append(run[:, None])
                found.append((series, [begin, out.rows, start, empty - gaps, gaps]))
            if not at % ITEMS_AT_ONCE:
                release(stamps)
                release(cells)
            task.advance(1)
    if not found:
        raise DataError(f"{source.name}: no item has a value", hint="expected numbers in the value columns")
    return found


def _places(source: _LongFiles, name: str, times: Stamps, axis: Timeline) -> Places:
    places = axis.positions(times)
    if (places < 0).any():
        bad = times[int(np.argmax(places < 0))]
        raise DataError(
            f"{source.name}: item {name!r} has a row at {_clock(bad)}, which is not on the common axis "
            f"of step {axis.frequency} from {_clock(axis.origin)}",
            hint="resample the rows of all items to one step",
        )
    again = np.flatnonzero(np.diff(places) == 0)
    if len(again):
        raise DataError(
            f"{source.name}: item {name!r} has two rows at {_clock(times[again[0]])}",
            hint="keep one row of each item and time",
        )
    return places


def _regular(
    source: _LongFiles, name: str, values: Any, places: Places, axis: Timeline, missing: Missing
) -> tuple[Any, int, int]:
    """One series on the axis, its empty ends trimmed, its start, and how many rows are missing inside."""
    if np.isinf(values).any():
        raise DataError(f"{source.name}: item {name!r} has an infinite value", hint="repair the file")
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return None, 0, 0
    values, places = values[known[0] : known[-1] + 1], places[known[0] : known[-1] + 1]
    start = int(places[0])
    run = np.full(int(places[-1]) - start + 1, np.nan)
    run[places - start] = values
    if missing == "error" and np.isnan(run).any():
        bad = axis.stamps(start + int(np.argmax(np.isnan(run))), 1)[0]
        raise DataError(f"{source.name}: item {name!r} has no value at {_clock(bad)}", hint=FILL_HINT)
    return run, start, len(run) - len(values)


def _clock(stamp: np.datetime64) -> str:
    return str(stamp.astype("datetime64[s]")).replace("T", " ")
