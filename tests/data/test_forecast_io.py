"""Input and output of ``forecast``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import DataError, UsageError
from tsfmc.compiler.data import read_input, write_forecast


@pytest.fixture
def past(tmp_path: Path) -> Path:
    stamps = pd.date_range("2021-12-30", periods=50, freq="h")
    frame = pd.DataFrame({"date": stamps, "a": np.arange(50.0), "b": np.arange(50.0) ** 2, "text": "x"})
    frame.to_csv(tmp_path / "past.csv", index=False)
    frame.to_parquet(tmp_path / "past.parquet")
    return tmp_path / "past.csv"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_last_rows_in_the_order_asked_for(past: Path, suffix: str) -> None:
    values, last, frequency = read_input(past.with_suffix(suffix), ["b", "a"], 12)
    assert values.shape == (2, 12)
    assert values.dtype == np.float64
    assert values[1].tolist() == list(range(38, 50))
    assert values[0].tolist() == [i * i for i in range(38, 50)]
    assert (str(last), frequency) == ("2022-01-01T01:00:00.000000", "h")
    assert not (cache_root() / "data").exists()


def test_input_is_checked_like_data(past: Path) -> None:
    with pytest.raises(DataError, match=r"past.csv has 50 rows, the lookback needs the last 51"):
        read_input(past, ["a"], 51)
    with pytest.raises(UsageError, match=r"unknown variate of past.csv 'c'"):
        read_input(past, ["a", "c"], 5)
    with pytest.raises(DataError, match=r"column 'text' is 'x'"):
        read_input(past, ["a", "text"], 5)
    with pytest.raises(DataError, match=r"none.csv does not exist"):
        read_input(past.with_name("none.csv"), ["a"], 5)
    past.write_text(past.read_text().replace("\n2021-12-30 03:00:00,3.0", "\n2021-12-30 03:00:00,"))
    with pytest.raises(DataError, match=r"row 5, column 'a' is empty or NaN"):
        read_input(past, ["a"], 5)
    assert read_input(past, ["a"], 48, missing="interpolate").values[0, :3].tolist() == [2, 3, 4]
    past.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"not a CSV file in UTF-8"):
        read_input(past, ["a"], 5)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_forecast_continues_the_time_and_can_be_read_back(past: Path, tmp_path: Path, suffix: str) -> None:
    _, last, frequency = read_input(past, ["a", "b"], 12)
    forecast = np.random.default_rng(0).normal(size=(2, 5))
    target = tmp_path / "out" / f"next{suffix}"
    target.parent.mkdir()
    write_forecast(target, forecast, ["a", "b"], last, frequency)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    again, end, step = read_input(target, ["a", "b"], 5)
    np.testing.assert_array_equal(again, forecast)
    assert (str(end), step) == ("2022-01-01T06:00:00.000000", "h")


def test_month_ends_continue_as_month_ends(capsys: pytest.CaptureFixture[str]) -> None:
    write_forecast(None, np.array([[1.5, 2.5]]), ["a"], np.datetime64("2024-01-31", "us"), "ME")
    assert capsys.readouterr().out == "timestamp,a\n2024-02-29,1.5\n2024-03-31,2.5\n"


def test_without_a_frequency_steps_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    write_forecast(None, np.array([[1.0, 2.0]]), ["step"], None, None)
    assert capsys.readouterr().out == "step_,step\n1,1.0\n2,2.0\n"


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"output x.json is not a CSV or Parquet file"):
        write_forecast(tmp_path / "x.json", np.ones((1, 1)), ["a"], None, None)
    with pytest.raises(UsageError, match=r"output folder .* does not exist"):
        write_forecast(tmp_path / "no" / "x.csv", np.ones((1, 1)), ["a"], None, None)
    assert list(tmp_path.iterdir()) == []
