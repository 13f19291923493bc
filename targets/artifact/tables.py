"""The compiler's front to the device's rows: CSV by the very same code, Parquet and Excel turned into rows.

What a cell, a row and a step are is said once, in ``device/rows.py`` and what it imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ...compiler.base.errors import DataError
from ...compiler.base.sealed import placed
from ...compiler.data.dialect import PLAIN, Dialect
from ...compiler.data.excel import ExcelFile
from ...compiler.data.formats import is_excel
from .device.fleet import Fleet, FleetForecast, items_of, read_items
from .device.output import Forecast, save_rows
from .device.rows import History, Table, last_rows, read_csv, read_window, reading_of, rows_kept
from .open import compiler_errors

PARQUET = (".parquet", ".pq")


def read_history(
    path: Path,
    manifest: dict[str, Any],
    missing: str | None = None,
    rename: Mapping[str, str] | None = None,
    **asked: Any,
) -> History:
    """The window at the end of a CSV, packed or not, of a Parquet file or of a workbook.

    Args:
        missing: error, ffill or interpolate; None for the artifact's own policy.
        rename: name of a column -> the variate that it is.
        asked: see ``reading_of``.

    Raises:
        DataError: names file, row and column, with the message that ``run.py`` gives.
    """
    with compiler_errors():
        if not is_parquet(path) and not is_excel(path):
            return read_csv(path, manifest, missing, rename, **asked)
        task = manifest["task"]
        reading = reading_of(task, {**asked, "missing": missing})
        # A file of columns has numbers and times, not texts in a notation; it may still name its time column.
        plain = reading._replace(dialect=PLAIN._replace(time=reading.dialect.time))
        if is_excel(path):
            header, rows = _excel_rows(path, reading.dialect)
        else:
            header, rows = _parquet_rows(path, None if reading.sort else rows_kept(task, reading))
        table = Table(str(path), header, (), word="row").renamed(rename or {})
        return read_window(last_rows(table, rows, task, plain), task, plain)


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
        header, rows = _parquet_rows(path, None)
        return items_of(str(path), header, rows, manifest, fleet, missing, wanted)


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


def _parquet_rows(path: Path, count: int | None) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and the last ``count`` rows as text (None: all of them) with perhaps some before."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    def refused(error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"{path} cannot be read as Parquet: {reason}")

    broken = (pa.ArrowException, OSError, OverflowError, ValueError)  # the latter of its times

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                first = 0 if count is None else max(0, file.metadata.num_rows - count)
                for batch in file.iter_batches():
                    number += len(batch)
                    if number <= first:
                        continue
                    start = number - len(batch) + 1
                    columns = [[_text(cell) for cell in column.to_pylist()] for column in batch.columns]
                    for at, cells in enumerate(zip(*columns, strict=True)):
                        yield start + at, list(cells)
        except broken as error:
            raise refused(error) from error

    try:
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names), rows()
    except broken as error:
        raise refused(error) from error


def _excel_rows(path: Path, dialect: Dialect) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header and all rows as text, numbered as a workbook does."""
    sheet = ExcelFile(path, dialect)
    width = len(sheet.columns)
    body = ((number, row[:width]) for number, row in enumerate(sheet.records(), 1) if number > 1)
    rows = (
        (number, [*map(_text, row), *[""] * (width - len(row))])
        for number, row in body
        if any(cell is not None for cell in row)
    )
    return list(sheet.columns), rows


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
    columns = [index, *forecast.rows().T]
    _write_parquet(path, dict(zip(forecast.columns, columns, strict=True)))


def _write_parquet(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with placed(path) as partial, partial.open("wb") as stream:
            pq.write_table(pa.table(columns), stream)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
