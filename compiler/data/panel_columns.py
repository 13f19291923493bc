"""Which columns of a file are the id, the time and the values of the long format.

The names that libraries of forecasting write are known:

    Nixtla      unique_id, ds, y                GluonTS, AutoGluon   item_id, timestamp, target
    Darts       item_id or series_id, time      sktime               instances, timepoints
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.errors import DataError, unknown_name
from .cells import TIME_NAMES
from .panel import PanelColumns

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

ID_NAMES = ("unique_id", "item_id", "series_id", "instances", "meter_id", "id")
TIMES = (*TIME_NAMES, "timepoints", "start")
TARGET_NAMES = ("y", "target", "value")
FORMATS = {".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet", ".pq": "parquet"}


def panel_files(source: str) -> tuple[Path, ...]:
    """The files of a panel: a file, those of a folder and its folders, or those that a pattern matches.

    Raises:
        DataError: there is none, or they are not all CSV or all Parquet.
    """
    path = Path(source)
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file() and file_format(each)]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(each) for each in glob.glob(source, recursive=True) if Path(each).is_file()]  # noqa: PTH207
    kinds = {file_format(each) for each in found}
    if not found or None in kinds or len(kinds) > 1:
        what = "no CSV or Parquet file" if len(kinds) < 2 else "CSV and Parquet files beside each other"
        raise DataError(
            f"{source}: {what}", hint=f"give a file, folder or pattern of one of {', '.join(FORMATS)}"
        )
    return tuple(sorted(found))


def file_format(path: Path) -> str | None:
    """``csv``, ``parquet``, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)


def guess_columns(source: str) -> PanelColumns | None:
    """The columns of the long format where the first file has an id column of a known name, else None."""
    try:
        files = panel_files(source)
        header, head = read_head(files[0])
    except DataError:
        return None  # whoever reads it as a wide table says what is wrong
    lower = {name.lower(): name for name in header}
    found = next((lower[name] for name in ID_NAMES if name in lower), None)
    if found is None or (found.lower() == "id" and not _repeats(head, found)):
        return None
    return choose_columns(header, head, source, found)


def choose_columns(
    header: Sequence[str],
    head: pa.Table,
    source: str,
    id_column: str,
    time: str | None = None,
    values: Sequence[str] = (),
) -> PanelColumns:
    """The columns that were asked for, the others by their names, and values by being numbers.

    Raises:
        UsageError: there is no such column.
        DataError: nothing says which column holds the time or the values.
    """
    for name in (id_column, *([time] if time else ()), *values):
        if name not in header:
            raise unknown_name(f"column of {source}", name, list(header))
    lower = {name.lower(): name for name in header if name != id_column}
    if time is None:
        time = next((lower[name] for name in TIMES if name in lower), None)
    if time is None:
        raise DataError(
            f"{source}: no column is named like a time ({', '.join(TIMES)}); the columns are "
            f"{', '.join(header[:12])}",
            hint="say which one with --time-column",
        )
    if not values:
        free = [name for name in header if name not in (id_column, time)]
        named = [name for name in free if name.lower() in TARGET_NAMES]
        values = named[:1] or [name for name in free if _is_number(head, name)]
    if not values:
        raise DataError(
            f"{source}: no column of numbers besides {id_column} and {time}",
            hint="say which ones with --value-columns",
        )
    return PanelColumns(id_column, time, tuple(values))


def read_head(path: Path) -> tuple[list[str], pa.Table]:
    """Header and first rows of a file.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds  # type: ignore[import-untyped]

    try:
        head = ds.dataset(str(path), format=file_format(path)).head(1000)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return list(head.column_names), head


def _repeats(head: pa.Table, name: str) -> bool:
    """Whether a value occurs twice: the number of a row does not."""
    return len(head[name].unique()) < len(head)


def _is_number(head: pa.Table, name: str) -> bool:
    kind = head.schema.field(name).type.to_pandas_dtype()
    return bool(np.issubdtype(np.dtype(kind), np.number))
