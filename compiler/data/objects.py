"""Tables in memory, of pandas, Polars or Arrow: kept as Parquet in the cache under the hash of their content.

So they are read by the one reader of files, a recipe can name them, and the next compile finds them again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..base.content import cache_root, file_hash
from ..base.errors import DataError, UsageError

_GROUP_ROWS = 1 << 16


def as_file(source: str | Path | object) -> str | Path:
    """A name or a path as it is; a table as the Parquet file that it is kept in.

    A pandas index with times becomes the column ``date`` unless it has a name.

    Raises:
        UsageError: it is no table.
        DataError: Arrow cannot take a column.
    """
    return source if isinstance(source, str | Path) else _kept(_arrow(source))


def _arrow(table: object) -> Any:
    """An Arrow table or stream of batches."""
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped]

    try:
        if isinstance(table, pd.DataFrame):
            return pa.Table.from_pandas(_with_index(table), preserve_index=False)
        if isinstance(table, pa.Table | pa.RecordBatchReader):
            return table
        if isinstance(table, pa.RecordBatch):
            return pa.Table.from_batches([table])
        if hasattr(table, "__arrow_c_stream__"):  # Polars, DuckDB, cuDF and others
            return pa.RecordBatchReader.from_stream(table)
        if hasattr(table, "collect"):  # a lazy frame of Polars
            return _arrow(table.collect())
    except (pa.ArrowException, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"a table in memory cannot be taken: {said}", hint="expected columns of numbers"
        ) from error
    raise UsageError(
        f"data of type {type(table).__name__} are no table",
        hint="expected a name, a file, or a table of pandas, Polars or Arrow",
    )


def _with_index(frame: Any) -> Any:
    """The frame with its index as a column where that holds times."""
    import pandas as pd

    if isinstance(frame.index, pd.PeriodIndex):
        frame = frame.set_axis(frame.index.to_timestamp())
    if not isinstance(frame.index, pd.DatetimeIndex):
        return frame
    return frame.reset_index(names=frame.index.name or "date")


def _kept(table: Any) -> Path:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    folder = cache_root() / "data" / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as place:
        part = Path(place) / "table.parquet"
        with pq.ParquetWriter(part, table.schema.remove_metadata()) as writer:
            batches = table.to_batches(_GROUP_ROWS) if hasattr(table, "to_batches") else table
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch.replace_schema_metadata(None), row_group_size=_GROUP_ROWS)
        path = folder / f"table-{file_hash(part)[:16]}.parquet"
        part.replace(path)
    return path
