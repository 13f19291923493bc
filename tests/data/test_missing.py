"""Time axes and the policy for what is missing, against pandas; memory while reading."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import DataError
from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.formats import fingerprint
from tsfmc.compiler.data.reading import Reading
from tsfmc.compiler.data.sources import file_source
from tsfmc.compiler.data.table import Table, ingest, open_ingested
from tsfmc.compiler.data.timeline import future_stamps, infer_timeline, step_seconds, steps_per_season

FREQUENCIES = [
    "s",
    "5min",
    "15min",
    "h",
    "6h",
    "D",
    "7D",
    "W-SUN",
    "B",
    "MS",
    "ME",
    "QS-OCT",
    "YS-JAN",
    "2MS",
]


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("start", ["2020-01-01", "2019-11-30 06:30"])
def test_a_regular_axis_is_found_and_continued(frequency: str, start: str) -> None:
    index = pd.date_range(start, periods=40, freq=frequency)
    stamps = index.to_numpy(dtype="datetime64[us]")
    timeline = infer_timeline(stamps)
    assert timeline is not None
    assert timeline.positions(stamps).tolist() == list(range(40))
    np.testing.assert_array_equal(timeline.stamps(0, 40), stamps)
    np.testing.assert_array_equal(timeline.stamps(17, 3), stamps[17:20])
    assert future_stamps(stamps[29], timeline.frequency, 10).tolist() == index[30:].tolist()


@pytest.mark.parametrize("frequency", ["15min", "h", "D", "B", "MS", "ME"])
def test_a_missing_timestamp_is_seen_on_every_axis(frequency: str) -> None:
    stamps = pd.date_range("2020-01-01", periods=40, freq=frequency).to_numpy(dtype="datetime64[us]")
    timeline = infer_timeline(np.delete(stamps, [5, 6, 20]))
    assert timeline is not None
    assert timeline.frequency == frequency
    assert timeline.positions(stamps).tolist() == list(range(40))


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        *{"h": 24, "15min": 96, "10min": 144, "6h": 4, "7h": 1, "D": 7, "3D": 1, "7D": 52}.items(),
        *{"W-TUE": 52, "B": 5, "MS": 12, "ME": 12, "2MS": 6, "QE-DEC": 4, "YS-JAN": 1, None: 1}.items(),
    ],
)
def test_seasonality(frequency: str | None, season: int) -> None:
    assert steps_per_season(frequency) == season


@pytest.mark.parametrize(
    ("frequency", "seconds"),
    [
        *{"h": 3600, "15min": 900, "D": 86400, "7D": 604800, "W-TUE": 604800, "100ms": 0.1}.items(),
        *{"1500ms": 1.5, "B": None, "MS": None, "QE-DEC": None, None: None}.items(),
    ],
)
def test_seconds_of_a_step(frequency: str | None, seconds: float | None) -> None:
    assert step_seconds(frequency) == seconds


def read(frame: pd.DataFrame, missing: str, chunk_rows: int) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        frame.to_csv(path, index=False)
        ingest(
            file_source(path), fingerprint(path), None, Reading(missing), Path(folder), chunk_rows=chunk_rows
        )  # type: ignore[arg-type]
        table = open_ingested(Path(folder))
        return Table(
            table.sha256,
            table.variates,
            table.frequency,
            table.filled,
            np.array(table.values),
            None if table.timestamps is None else np.array(table.timestamps),
        )


@settings(max_examples=60, deadline=None)
@given(
    # A last row that is all empty is trimmed instead.
    empty=st.sets(st.tuples(st.integers(1, 29), st.integers(0, 1)), max_size=30).filter(
        lambda cells: not {(29, 0), (29, 1)} <= cells
    ),
    gone=st.sets(st.integers(4, 28), max_size=8),
    chunk_rows=st.integers(4, 40),
    missing=st.sampled_from(["ffill", "interpolate"]),
)
def test_filling_equals_pandas_whatever_the_chunks(
    empty: set[tuple[int, int]], gone: set[int], chunk_rows: int, missing: str
) -> None:
    values = np.random.default_rng(1).normal(size=(30, 2))
    for row, column in empty:
        values[row, column] = np.nan
    stamps = pd.date_range("2020-01-01", periods=30, freq="h")
    frame = pd.DataFrame(values, columns=["a", "b"], index=stamps)
    kept = frame.drop(index=stamps[sorted(gone)])
    table = read(kept.reset_index(names="date"), missing, chunk_rows)
    regular = kept.reindex(stamps)
    expected = regular.ffill() if missing == "ffill" else regular.interpolate("linear")
    np.testing.assert_allclose(table.values, expected.to_numpy(), rtol=1e-13, atol=1e-13)
    assert table.timestamps is not None
    np.testing.assert_array_equal(table.timestamps, stamps.to_numpy(dtype="datetime64[us]"))
    assert table.filled.rows == len(gone)
    assert table.filled.cells == int(kept.isna().sum().sum())


def test_filling_never_invents_a_start() -> None:
    frame = pd.DataFrame({"a": [np.nan, 1.0, 2.0], "b": [1.0, 2.0, 3.0]})
    table = read(frame, "interpolate", 10)
    assert table.values.tolist() == [[1.0, 2.0], [2.0, 3.0]]
    assert (table.filled.trimmed, table.filled.begun_by, table.filled.cells) == ((1, 0), "a", 0)
    with pytest.raises(DataError, match="variate 'a' has no value in any row"):
        read(frame.assign(a=np.nan), "interpolate", 10)


@pytest.mark.parametrize("chunk_rows", [3, 5, 40])
def test_rows_are_trimmed_to_where_all_have_begun(chunk_rows: int) -> None:
    values = np.arange(40.0).reshape(20, 2)
    values[:4, 0] = values[:7, 1] = values[18:] = values[10, 0] = np.nan
    stamps = pd.date_range("2020-01-01", periods=20, freq="h")
    frame = pd.DataFrame(values, columns=["a", "b"]).assign(date=stamps).drop(index=[5, 12])
    table = read(frame, "ffill", chunk_rows)
    assert table.timestamps is not None
    assert table.timestamps[[0, -1]].tolist() == stamps[[7, 17]].tolist()
    filled = table.filled
    assert (filled.trimmed, filled.begun_by, filled.cells, filled.rows) == ((7, 2), "b", 1, 1)


def test_what_was_filled_is_printed(tmp_path: Path) -> None:
    stamps = pd.date_range("2020-01-01", periods=50, freq="h")
    frame = pd.DataFrame({"date": stamps, "a": np.arange(50.0)})
    frame.loc[20, "a"] = np.nan
    frame.drop(index=[30, 31]).to_csv(tmp_path / "x.csv", index=False)
    data = load_data(tmp_path / "x.csv", lookback=4, horizon=2, missing="interpolate")
    np.testing.assert_allclose(data.values[:, 0], np.arange(50))
    assert str(data).endswith(
        "rows=50 variates=1 freq=h split=35/5/10 filled=1 cells, 2 rows read=missing=interpolate"
    )


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller blocks than in use, so that a small file fills them too.
    monkeypatch.setattr("tsfmc.compiler.data.load._STATISTICS_CELLS", 8 * 500)
    monkeypatch.setattr("tsfmc.compiler.data.formats._BLOCK_BYTES", 10_000)
    path = tmp_path / "x.csv"
    block = "\n".join(",".join([f"{i}.25"] * 8) for i in range(500)) + "\n"

    def peak_bytes(rows: int) -> int:
        path.write_text("a,b,c,d,e,f,g,h\n" + block * (rows // 500))
        tracemalloc.start()
        data = load_data(path, lookback=8, horizon=2, chunk_rows=500)
        data.windows("train", 8, 2).batch(range(32))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert data.rows == rows
        return peak

    peak_bytes(1_000)  # imports come first
    # pandas reads text in blocks of 256 kB, which the small file fills as well.
    small, large = peak_bytes(15_000), peak_bytes(60_000)
    assert large < small + 100_000, "45,000 more rows of 8 numbers are 2.9 MB"


def test_a_whole_file_of_the_wrong_order_is_refused_across_chunks(tmp_path: Path) -> None:
    stamps = pd.date_range("2020-01-01", periods=40, freq="h").tolist()
    stamps[20] = stamps[19]
    pd.DataFrame({"date": stamps, "a": range(40)}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match="row 22 has the timestamp 2020-01-01 19:00:00 like the row before"):
        load_data(tmp_path / "x.csv", lookback=4, horizon=2, chunk_rows=20)
