"""Input and output of a forecast: the last rows of a file in, future timestamps and values out."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..base.errors import DataError, UsageError
from .formats import fingerprint
from .missing import checked_policy
from .sources import SUFFIXES, file_source
from .table import ingest, open_ingested
from .timeline import future_stamps

if TYPE_CHECKING:
    import pandas as pd

    from .dataset import Array


class ForecastInput(NamedTuple):
    """What a forecast starts from.

    Attributes:
        values: ``[D, L]``, the last L rows of the file in its units.
        last_timestamp: time of the last row, None for a file without timestamps.
        frequency: pandas offset alias of the step, or None.
    """

    values: Array
    last_timestamp: np.datetime64 | None
    frequency: str | None


def read_input(
    path: str | Path, variates: Sequence[str], lookback: int, *, missing: str = "error"
) -> ForecastInput:
    """The last ``lookback`` rows of these variates, with the checks of ``load_data``.

    Raises:
        UsageError: the file has no such variate, or there is no such policy.
        DataError: the file cannot be used or has fewer rows.
    """
    source = file_source(Path(path))
    with tempfile.TemporaryDirectory(prefix="tsfmc-input-") as folder:
        ingest(source, fingerprint(source.path), list(variates), checked_policy(missing), Path(folder))
        table = open_ingested(Path(folder))
        rows = len(table.values)
        if rows < lookback:
            raise DataError(
                f"{source.path.name} has {rows} rows, the lookback needs the last {lookback}",
                hint=f"give at least {lookback} rows",
            )
        values = np.array(table.values[rows - lookback :].T)
        last = None if table.timestamps is None else np.datetime64(table.timestamps[-1])
    return ForecastInput(values, last, table.frequency)


def write_forecast(
    path: str | Path | None,
    values: Array,
    variates: Sequence[str],
    last_timestamp: np.datetime64 | None,
    frequency: str | None,
) -> None:
    """Write ``values [D, H]`` as one row per step, complete or not at all.

    The first column is ``timestamp``, the times after ``last_timestamp``, or without a frequency
    ``step``, counting from 1.

    Args:
        path: a CSV or Parquet file, or None for CSV on stdout.

    Raises:
        UsageError: the suffix is of another format, or the folder does not exist.
    """
    frame = _forecast_frame(values, variates, last_timestamp, frequency)
    if path is None:
        frame.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    target = Path(path)
    if not target.name.lower().endswith(SUFFIXES):
        raise UsageError(
            f"output {target.name} is not a CSV or Parquet file",
            hint=f"end it in one of {', '.join(SUFFIXES)}",
        )
    if not target.parent.is_dir():
        raise UsageError(f"output folder {target.parent} does not exist", hint="create it first")
    # The partial file ends like the target, from which pandas infers the compression.
    handle, partial_name = tempfile.mkstemp(dir=target.parent, prefix=".part-", suffix=target.name.lower())
    os.close(handle)
    partial = Path(partial_name)
    try:
        if target.name.lower().endswith((".csv", ".csv.gz")):
            frame.to_csv(partial, index=False, lineterminator="\n")
        else:
            frame.to_parquet(partial, index=False)
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _forecast_frame(
    values: Array, variates: Sequence[str], last_timestamp: np.datetime64 | None, frequency: str | None
) -> pd.DataFrame:
    import pandas as pd

    horizon = values.shape[1]
    frame = pd.DataFrame(values.T, columns=list(variates))
    if last_timestamp is None or frequency is None:
        name, column = "step", np.arange(1, horizon + 1)
    else:
        name, column = "timestamp", future_stamps(last_timestamp, frequency, horizon).to_numpy()
    # A variate may have this name itself; the time column must then have another.
    while name in frame.columns:
        name = f"{name}_"
    frame.insert(0, name, column)
    return frame


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
