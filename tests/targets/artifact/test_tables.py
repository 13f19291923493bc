"""Parquet before ``tsfmc forecast``: turned into rows, then the same rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsfmc.compiler.base.errors import DataError
from tsfmc.targets.artifact.device.output import Forecast
from tsfmc.targets.artifact.tables import read_history, save_forecast

VALUES = np.random.default_rng(0).normal(size=(20, 2))


def manifest(frequency: str | None = "h", lookback: int = 12) -> dict[str, Any]:
    return {"task": {"lookback": lookback, "horizon": 5, "variates": ["b", "a"], "frequency": frequency}}


def write(path: Path, times: Any, **changes: Any) -> Path:
    frame = pd.DataFrame({"date": times, "a": VALUES[:, 0], "b": VALUES[:, 1], "text": "x", **changes})
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2021-12-30", periods=20, freq="h"),
        pd.date_range("2021-12-30", periods=20, freq="h", tz="Europe/Berlin"),
        1_640_822_400 + 3600 * np.arange(20),
    ],
    ids=["naive", "zoned", "unix"],
)
def test_parquet_and_csv_are_read_alike(times: Any, tmp_path: Path) -> None:
    parquet = read_history(write(tmp_path / "past.parquet", times), manifest())
    text = read_history(write(tmp_path / "past.csv", times), manifest())
    np.testing.assert_array_equal(parquet.values, VALUES[-12:, ::-1].T)
    np.testing.assert_array_equal(parquet.values, text.values)
    assert (parquet.last, parquet.time_column) == (text.last, "date")


def test_the_rules_are_those_of_rows(tmp_path: Path) -> None:
    hours = pd.date_range("2021-12-30", periods=20, freq="h")
    path = write(tmp_path / "past.parquet", pd.date_range("2021-12-30", periods=20, freq="2h"))
    with pytest.raises(DataError, match=r"past\.parquet: most rows are 7200 s apart"):
        read_history(path, manifest())
    holes = np.where(np.arange(20) == 14, np.nan, VALUES[:, 0])
    path = write(tmp_path / "past.parquet", hours, a=holes)
    with pytest.raises(DataError, match=r"past\.parquet row 15, column 'a': expected a number, got ''"):
        read_history(path, manifest())
    history = read_history(path, manifest(), "ffill")
    assert history.filled_cells == 1 and history.values[1, 6] == VALUES[13, 0]
    with pytest.raises(DataError, match="has 20 rows, expected at least 21"):
        read_history(write(tmp_path / "past.parquet", hours), manifest(lookback=21))
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"past\.parquet cannot be read as Parquet") as caught:
        read_history(path, manifest())
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"none\.pq cannot be read as Parquet"):
        read_history(tmp_path / "none.pq", manifest())


@pytest.mark.parametrize("frequency", ["h", None])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_forecast_continues_the_rows_and_is_read_back(
    suffix: str, frequency: str | None, tmp_path: Path
) -> None:
    times = pd.date_range("2021-12-30", periods=20, freq="h")
    history = read_history(write(tmp_path / "past.csv", times), manifest(frequency))
    values = np.random.default_rng(1).normal(size=(2, 5))
    out = tmp_path / "out" / f"next{suffix}"
    out.parent.mkdir()
    save_forecast(Forecast(history, values, manifest(frequency)["task"]), out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    again = read_history(out, manifest(frequency, lookback=5))
    np.testing.assert_array_equal(again.values, values)
    assert str(again.last) == ("2021-12-31 00:00:00" if frequency else "None")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_an_output_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "past.csv", pd.date_range("2020", periods=20)), manifest(None))
    with pytest.raises(DataError, match=rf"no/{name} cannot be written: No such file or directory"):
        save_forecast(Forecast(history, np.ones((2, 5)), manifest(None)["task"]), tmp_path / "no" / name)
