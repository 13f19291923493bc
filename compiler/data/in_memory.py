"""Tables in memory: what pandas, Polars and Arrow hold becomes a Parquet file of the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..base.content import cache_root, file_hash
from ..base.errors import DataError
from ..base.sealed import unfinished


def file_of(data: Any) -> Any:
    """A file with the rows of a table in memory; everything else, such as a path, as it is.

    Raises:
        DataError: the table cannot be written as Parquet.
    """
    if data is None or isinstance(data, (str, os.PathLike)):
        return data
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    folder = cache_root() / "data" / "tables-in-memory"
    folder.mkdir(parents=True, exist_ok=True)
    partial = unfinished(folder / "table.parquet")
    try:
        index = getattr(data, "index", None)
        if getattr(index, "name", None) is not None:  # of pandas: the time, often
            data = data.reset_index()
        pq.write_table(pa.table(data).replace_schema_metadata(None), partial)
    except (pa.ArrowException, TypeError, ValueError) as error:
        partial.unlink(missing_ok=True)
        raise DataError(
            f"{type(data).__name__}: {' '.join(str(error).split())[:200]}",
            hint="give a file, or a table of pandas, Polars or Arrow with named columns",
        ) from None
    final: Path = folder / f"{file_hash(partial)[:32]}.parquet"
    partial.replace(final)
    return final
