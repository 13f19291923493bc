"""``load_data``: a name or a file becomes a ``Dataset``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..base.errors import DataError, UsageError
from ..base.progress import Progress
from .dataset import Array, Dataset
from .dialect import PLAIN, Dialect
from .filling import MAX_FILLED, WARN_FILLED
from .objects import as_file
from .reading import Reading, reading_text
from .reading_options import stated_reading
from .sources import Source, find_source
from .splits import require_windows, resolve_split
from .table import Table, load_table

_STATISTICS_CELLS = 1 << 21


def load_data(
    source: str | Path | object,
    *,
    lookback: int,
    horizon: int,
    variates: str = "all",
    split: str = "ltsf",
    missing: str = "error",
    duplicates: str = "error",
    sort: bool = False,
    zone: str = "",
    csv: str | Dialect = PLAIN,
    max_filled: float = MAX_FILLED,
    known: Sequence[str] = (),
    past: Sequence[str] = (),
    progress: Progress | None = None,
    chunk_rows: int | None = None,
) -> Dataset:
    """Load a data set and check that the task has windows in every part.

    Known names are looked up in ``$TSFMC_DATA``, then in the cache, then downloaded with a pinned
    hash; they are taken exactly as published, also by their path.  Other files must have strictly
    ascending, regular timestamps (or no timestamps at all) and finite numbers.

    Args:
        source: a known name in any case, ``sample``, a file (.csv, .tsv, .parquet, .xlsx), or a table in
            memory: of pandas, Polars or Arrow, see ``objects.py``.
        lookback: L, steps a window looks back.
        horizon: H, steps to forecast.
        variates: ``"all"`` or names separated by commas.
        split: ``"ltsf"``, fractions ``"0.7,0.1,0.2"`` or row counts ``"8640,2880,2880"``.
        missing: ``error``, ``ffill`` or ``interpolate``, for empty cells and missing timestamps.
        duplicates: ``error``, ``mean`` or ``first``, for rows of one time.
        sort: whether rows may come in any order.
        zone: the time zone whose clock the times show, such as ``Europe/Berlin``; empty for UTC.
        csv: how a text file is written, such as ``sep=;,decimal=,``, see ``dialect.py``.
        max_filled: share of a variate's cells that ``missing`` may fill in, and of rows before a variate
            begins; more is refused.
        known, past: columns that are read and not forecast, known ahead and up to now; ``all`` is the others.
        progress: where downloading and reading report to.
        chunk_rows: rows held in memory while reading; by default about 16 MB.

    Raises:
        UsageError: an unknown name, variate, split or policy.
        DataError: the file, or the windows asked of it, cannot be used.
        MissingError: a known name is not here and cannot be downloaded.
    """
    reading = stated_reading(missing=missing, duplicates=duplicates, sort=sort, zone=zone, csv=csv)
    wanted = None if variates == "all" else [name.strip() for name in variates.split(",")]
    if chunk_rows is not None and chunk_rows < 2:
        raise UsageError(f"chunk_rows {chunk_rows} is too small", hint="expected at least 2 rows")
    beside = checked_columns(known, past, wanted)
    found = find_source(as_file(source), progress, reading.dialect)
    if found.known:
        reading = Reading(missing=reading.missing)
    if beside and wanted is None:
        every = load_table(found, None, reading, progress, chunk_rows, max_filled).variates
        wanted = [name for name in every if name not in beside]
    asked = wanted if wanted is None else [*wanted, *beside]
    table = load_table(found, asked, reading, progress, chunk_rows, max_filled)
    names = table.variates[: len(table.variates) - len(beside)]
    if not names:
        raise UsageError(f"{found.name}: every column is an input, none is left to forecast")
    rows = len(table.values)
    _check_known(found, rows)
    splits = resolve_split(split, rows, found.name, found.known.borders if found.known else None)
    require_windows(splits, found.name, lookback, horizon)
    values, columns = table.values[:, : len(names)], table.values[:, len(names) :]
    mean, std = _statistics(values[: splits.train])
    constant = [name for name, scale in zip(names, std, strict=True) if scale == 0]
    return Dataset(
        name=found.name,
        sha256=table.sha256,
        variates=names,
        frequency=table.frequency,
        rows=rows,
        splits=splits,
        mean=mean,
        std=np.where(std == 0, 1.0, std),
        values=values,
        timestamps=table.timestamps,
        filled=table.filled,
        known=tuple(known),
        past=tuple(past),
        beside=columns,
        reading=reading_text(reading),
        notes=(
            *(f"variate {name!r} is constant over the train split; its scale is 1" for name in constant),
            *_filled_notes(table),
        ),
    )


def checked_columns(
    known: Sequence[str], past: Sequence[str], variates: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns that are read beside the variates.

    Raises:
        UsageError: a column has two parts to play.
    """
    beside = (*known, *past)
    for name in beside:
        if beside.count(name) > 1 or name in (variates or ()):
            raise UsageError(
                f"column {name!r} is named twice among variates, known columns and past columns",
                hint="a column is forecast, known ahead, or read up to now",
            )
    return beside


def _filled_notes(table: Table) -> list[str]:
    """Remarks where a policy invented, merged, moved or left out more than a few."""
    filled, rows = table.filled, len(table.values)
    notes = []
    if filled.share > WARN_FILLED:
        notes.append(
            f"{filled.share:.0%} of the cells of variate {filled.variate!r} are filled in: "
            "accuracy on them is not accuracy on measured values"
        )
    for count, what in (
        (filled.merged, "were merged into others of their time: is this one series?"),
        (filled.moved, "were out of order"),
        (sum(filled.trimmed), "were trimmed, where a variate has not begun or all are empty"),
    ):
        share = count / (rows + filled.merged + sum(filled.trimmed))
        if share > WARN_FILLED:
            notes.append(f"{share:.0%} of the rows {what}")
    return notes


def _check_known(source: Source, rows: int) -> None:
    if source.known and rows != source.known.rows:
        raise DataError(
            f"{source.path} has {rows} rows, the published {source.name} has {source.known.rows}",
            hint="fetch it again, or rename it and give its path to use it as a file of your own",
        )


def _statistics(values: Array) -> tuple[Array, Array]:
    """Mean and population standard deviation ``[D]`` in two passes, a chunk of rows at a time."""
    mean = sum((chunk.sum(axis=0) for chunk in _chunks(values)), np.zeros(values.shape[1])) / len(values)
    squares = sum((((chunk - mean) ** 2).sum(axis=0) for chunk in _chunks(values)), np.zeros(values.shape[1]))
    # The mean of equal numbers can miss them by a rounding; a constant variate still has no spread.
    constant = np.logical_and.reduce([(chunk == values[0]).all(axis=0) for chunk in _chunks(values)])
    return mean, np.where(constant, 0.0, np.sqrt(squares / len(values)))


def _chunks(values: Array) -> Iterator[Array]:
    step = max(1, _STATISTICS_CELLS // values.shape[1])
    for begin in range(0, len(values), step):
        yield np.asarray(values[begin : begin + step])
