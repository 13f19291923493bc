"""The compiler's front to the device's rows: CSV by the very same code, and Parquet turned into rows.

What a cell, a row and a step are is said once, in ``device/rows.py`` and what it imports.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ...compiler.base.errors import DataError
from ...compiler.base.sealed import placed
from .device.fleet import Fleet, FleetForecast, items_of, read_items
from .device.output import Forecast, save_rows
from .device.rows import History, Table, missing_policy, read_csv, read_window, rows_needed
from .open import compiler_errors

PARQUET = (".parquet", ".pq")


def read_history(path: Path, manifest: dict[str, Any], missing: str | None = None) -> History:
    """The window at the end of a CSV, packed or not, or of a Parquet file.

    Args:
        missing: error, ffill or interpolate; None for the artifact's own policy.

    Raises:
        DataError: names file, row and column, with the message that ``run.py`` gives.
    """
    with compiler_errors():
        if not is_parquet(path):
            return read_csv(path, manifest, missing)
        task = manifest["task"]
        policy = missing_policy(task, missing)
        return read_window(_parquet_table(path, rows_needed(task, policy)), task, policy)


def save_forecast(forecast: Forecast, path: Path) -> None:
    """Writes a CSV, packed or not, or a Parquet file; complete or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with compiler_errors():
        if is_parquet(path):
            _save_parquet(forecast, path)
        else:
            forecast.save(path)


def read_item_histories(
    path: Path,
    manifest: dict[str, Any],
    fleet: Fleet,
    missing: str | None = None,
    wanted: Sequence[str] = (),
) -> dict[str, History]:
    """The window at the end of each item of a CSV or Parquet file in the long format, by name.

    Raises:
        DataError: names file, row, column and item.
    """
    with compiler_errors():
        if not is_parquet(path):
            return read_items(path, manifest, fleet, missing, wanted)
        table = _parquet_table(path, sys.maxsize)
        return items_of(str(path), table.header, table.rows, manifest, fleet, missing, wanted)


def save_item_forecasts(forecast: FleetForecast, path: Path) -> None:
    """Writes forecasts of items as a CSV, packed or not, or as Parquet; complete or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with compiler_errors():
        if not is_parquet(path):
            save_rows(path, forecast)
            return
    columns = (list(column) for column in zip(*forecast.rows(), strict=True))
    _write_parquet(path, dict(zip(forecast.columns, columns, strict=True)))


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet."""
    return path.name.lower().endswith(PARQUET)


def _parquet_table(path: Path, count: int) -> Table:
    """The last ``count`` rows as text."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    rows: deque[tuple[int, list[str]]] = deque(maxlen=count)
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            header = file.schema_arrow.names
            first = max(0, file.metadata.num_rows - count)
            for batch in file.iter_batches():
                number += len(batch)
                if number <= first:
                    continue
                start = number - len(batch) + 1
                columns = [[_text(cell) for cell in column.to_pylist()] for column in batch.columns]
                rows.extend((start + at, list(cells)) for at, cells in enumerate(zip(*columns, strict=True)))
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:  # the latter of its times
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as Parquet: {reason}") from error
    return Table(str(path), header, rows, word="row")


def _text(cell: Any) -> str:
    """A cell as a CSV would have it."""
    if cell is None:
        return ""
    if isinstance(cell, (date, datetime)):
        return str(cell)
    return repr(cell) if isinstance(cell, float) else str(cell)


def _save_parquet(forecast: Forecast, path: Path) -> None:
    unix = forecast.history.notation is not None and forecast.history.notation.unit is not None
    index = forecast.stamps if unix or forecast.times is None else forecast.times
    columns = [index, *forecast.values]
    _write_parquet(path, dict(zip(forecast.columns, columns, strict=True)))


def _write_parquet(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with placed(path) as partial, partial.open("wb") as stream:
            pq.write_table(pa.table(columns), stream)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
