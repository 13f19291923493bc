"""Tables in memory: pandas, Polars and Arrow through the one door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from required import absent

from tsfmc.compiler.api import make_recipe
from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.objects import as_file

TASK = {"lookback": 6, "horizon": 2}
STAMPS = pd.date_range("2024-01-01", periods=50, freq="h")
FRAME = pd.DataFrame({"date": STAMPS, "a": np.arange(50.0), "b": range(50)})


def tables() -> dict[str, Any]:
    arrow = pa.Table.from_pandas(FRAME, preserve_index=False)
    return {
        "pandas": FRAME,
        "pandas by its index": FRAME.set_index("date"),
        "pandas by an index without a name": FRAME.set_index("date").rename_axis(None),
        "pandas periods": FRAME.set_index(pd.PeriodIndex(FRAME["date"], freq="h")).drop(columns="date"),
        "arrow": arrow,
        "arrow batch": arrow.to_batches()[0],
        "arrow reader": arrow.to_reader(7),
    }


@pytest.mark.parametrize("kind", tables())
def test_each_reads_like_a_file(kind: str) -> None:
    check(tables()[kind])


@pytest.mark.parametrize("lazy", [False, True])
def test_polars_reads_like_a_file(lazy: bool) -> None:
    try:
        import polars as pl
    except ImportError:
        absent("polars")
    frame = pl.from_arrow(tables()["arrow"])
    check(frame.lazy() if lazy else frame)


def check(table: object) -> None:
    data = load_data(table, **TASK)
    assert (data.variates, data.frequency, data.rows) == (("a", "b"), "h", 50)
    np.testing.assert_array_equal(data.values[:, 0], np.arange(50.0))
    assert data.timestamps is not None and data.timestamps[0] == np.datetime64("2024-01-01")


def test_equal_tables_are_one_file_and_others_another() -> None:
    first, again = as_file(FRAME), as_file(FRAME.copy())
    assert first == again and Path(first).is_file()
    assert as_file(FRAME.assign(a=0.0)) != first
    assert not list(Path(first).parent.glob(".partial-*"))


def test_a_recipe_names_the_file() -> None:
    recipe = make_recipe(data=FRAME, lookback=6, horizon=2)
    assert recipe.data == str(as_file(FRAME))


def test_policies_hold_for_them() -> None:
    frame = FRAME.iloc[::-1].drop(index=[7])
    data = load_data(frame, **TASK, sort=True, missing="interpolate")
    assert data.values[:, 1].tolist() == list(range(50))
    assert (data.filled.rows, data.filled.moved) == (1, 48)


@pytest.mark.parametrize("thing", [7, [1, 2], {"a": [1]}, None])
def test_what_is_no_table(thing: object) -> None:
    with pytest.raises(UsageError, match="expected a name, a file, or a table of pandas, Polars or Arrow"):
        load_data(thing, **TASK)
