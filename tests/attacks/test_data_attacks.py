"""Data files that would fill memory or disk, that lie, or that are mostly invented: one line, soon."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factory import write_series

from tsfmc.compiler.base.errors import DataError, TsfmcError, UsageError
from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.limits import VARIABLE, Limits, data_limits

TASK = {"lookback": 6, "horizon": 2}

MEASURE = """
import sys, time
from tsfmc.compiler.base.errors import DataError
from tsfmc.compiler.data import load_data
began = time.monotonic()
try:
    load_data(sys.argv[1], lookback=6, horizon=2)
except DataError as error:
    print(error)
status = open("/proc/self/status").read().split()  # getrusage would begin with the parent's memory
peak = int(status[status.index("VmHWM:") + 1]) * 1024
print(time.monotonic() - began, peak)
"""


def measured(path: Path, **environment: str) -> tuple[str, float, int]:
    """What reading says in a process of its own, with the true limits; seconds, and bytes at the peak."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    message, figures = done.stdout.splitlines()
    seconds, peak = figures.split()
    return message, float(seconds), int(peak)


def bomb(kind: str, path: Path) -> None:
    """A few hundred kilobytes, or some megabytes, that stand for gigabytes."""
    if kind == "packed":
        with gzip.open(path, "wb", compresslevel=9) as file:
            file.write(b"date,a\n")
            for _ in range(300):
                file.write(b"2024-01-01,1\n" * 77_000)
    elif kind == "line":
        path.write_bytes(b"date,a\n2024-01-01," + b"1" * 20_000_000)
    elif kind == "columns":
        path.write_bytes(b"date" + b",a" * 3_000_000 + b"\n" + b"1," * 3_000_000 + b"1\n")
    elif kind == "quotes":
        path.write_bytes(b'date,a\n2024-01-01,"' + b"1\n" * 150_000_000)
    elif kind == "quotes that cancel out":
        path.write_bytes(b'date,a,b\n2024-01-01,"1"0",1\n2024-01-02,2,"' + b"1\n" * 150_000_000)


@pytest.mark.parametrize(
    ("kind", "name", "what", "limit"),
    [
        ("packed", "x.csv.gz", "unpacks to", "ratio"),
        ("line", "x.csv", "line 2 has more than", "line_bytes"),
        ("columns", "x.csv", "x.csv has 3,000,001 columns", "columns"),
        ("quotes", "x.csv", "", "chunk_bytes"),
        ("quotes that cancel out", "x.csv", "", "chunk_bytes"),
    ],
)
def test_bombs_are_refused_within_a_gibibyte(
    kind: str, name: str, what: str, limit: str, tmp_path: Path
) -> None:
    bomb(kind, tmp_path / name)
    message, seconds, peak = measured(tmp_path / name)
    (tmp_path / name).unlink()
    assert what in message and (f"set {VARIABLE}={limit}=" in message or kind.startswith("quotes")), message
    assert peak < 1 << 30 and seconds < 20, (seconds, peak)


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ("columns=3", "x.csv has 4 columns, at most 3 are read"),
        ("rows=100", r"x.csv has more than \d+ rows"),
        ("line_bytes=20", "line 2 has more than"),
        ("unpacked_bytes=1e3", "x.csv has more than"),
        ("chunk_bytes=2e3", "the rows read at a time take"),
    ],
)
def test_limits_can_be_set(limits: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "x.csv", rows=200)
    load_data(tmp_path / "x.csv", **TASK)
    monkeypatch.setenv("TSFMC_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv(VARIABLE, limits)
    with pytest.raises(DataError, match=what) as caught:
        load_data(tmp_path / "x.csv", **TASK)
    name = limits.partition("=")[0]
    assert f"set {VARIABLE}={name}=" in caught.value.hint


@pytest.mark.parametrize("text", ["colums=3", "rows=-1", "rows=inf", "rows=nan", "rows", "rows=x"])
def test_wrong_limits_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=VARIABLE):
        data_limits()


def test_the_widest_public_series_and_constant_ones_fit() -> None:
    assert Limits().columns > 8_600 and data_limits() == Limits()


def test_a_long_file_of_carriage_returns_is_no_long_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "line_bytes=60")
    lines = [f"{stamp},{row}" for row, stamp in enumerate(pd.date_range("2024", periods=90, freq="h"))]
    (tmp_path / "x.csv").write_bytes("\r".join(["date,a", *lines, ""]).encode())
    assert load_data(tmp_path / "x.csv", **TASK).rows == 90


def test_parquet_that_unpacks_to_more_than_it_can_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": np.zeros(20_000_000)})
    pq.write_table(
        table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False, row_group_size=20_000_000
    )
    assert (tmp_path / "x.parquet").stat().st_size < 200_000
    with pytest.raises(DataError, match=r"column 'a' unpacks to [\d,]+ times its size.*ratio="):
        load_data(tmp_path / "x.parquet", **TASK)


def test_parquet_of_strange_types_and_broken_footers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    for column in ([[1, 2]] * 40, [{"b": 1}] * 40, [b"\xff"] * 40, [None] * 40):
        pq.write_table(pa.table({"a": column}), path)
        with pytest.raises(TsfmcError):
            load_data(path, **TASK)
    pq.write_table(pa.table({"a": np.arange(40.0)}), path)
    whole = path.read_bytes()
    for place in range(4, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_data(path, **TASK)
        except TsfmcError as error:
            assert "\n" not in str(error)


# What a policy invents


def with_gaps(path: Path, every: int) -> Path:
    """Hours of which, after the first 400, one in ``every`` is there."""
    stamps = pd.date_range("2024-01-01", periods=1401, freq="h")
    frame = pd.DataFrame({"date": stamps, "a": np.arange(1401.0), "b": np.arange(1401.0)})
    kept = frame.iloc[[*range(400), *range(400, 1401, every)]]
    kept.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("policy", ["ffill", "interpolate"])
def test_half_a_series_is_not_invented_without_a_word(policy: str, tmp_path: Path) -> None:
    path = with_gaps(tmp_path / "x.csv", every=4)
    with pytest.raises(
        DataError, match=r"5[34]% of the cells of .* would be filled in, at most 25% are"
    ) as caught:
        load_data(path, **TASK, missing=policy)
    assert "--max-filled 0.54" in caught.value.hint
    data = load_data(path, **TASK, missing=policy, max_filled=0.54)
    assert data.rows == 1401 and data.filled.rows == 750
    assert any(note.startswith("54% of the cells of variate 'a' are filled in") for note in data.notes)


def test_a_few_cells_are_filled_quietly_and_one_variate_is_judged_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: np.arange(200.0) for name in "abcdefghij"})
    frame.loc[10:12, "a"] = np.nan
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert not load_data(tmp_path / "x.csv", **TASK, missing="ffill").notes
    frame.loc[10:80, "a"] = np.nan
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(DataError, match="36% of the cells of variate 'a'"):
        load_data(tmp_path / "y.csv", **TASK, missing="ffill")


def test_a_gap_of_decades_fills_no_disk(tmp_path: Path) -> None:
    stamps = [
        *pd.date_range("1970-01-01", periods=50, freq="s"),
        *pd.date_range("2100", periods=50, freq="s"),
    ]
    frame = pd.DataFrame({"date": stamps, "a": np.arange(100.0)})
    frame.to_csv(tmp_path / "x.csv", index=False)
    began = time.monotonic()
    with pytest.raises(DataError, match="at most"):
        load_data(tmp_path / "x.csv", **TASK, missing="ffill", max_filled=1.0)
    with pytest.raises(DataError, match="would be filled in"):
        load_data(tmp_path / "x.csv", **TASK, missing="ffill")
    assert time.monotonic() - began < 10


# The ends of the calendar


@pytest.mark.parametrize("start", ["0001-01-01", "0999-12-31", "1677-01-01", "9999-12-28", "2262-04-11"])
@pytest.mark.parametrize("missing", ["error", "ffill"])
def test_years_at_the_ends_of_the_calendar(start: str, missing: str, tmp_path: Path) -> None:
    first = np.datetime64(start, "h")
    lines = [f"{str(first + np.timedelta64(row, 'h')).replace('T', ' ')}:00,{row}" for row in range(90)]
    (tmp_path / "x.csv").write_text("\n".join(["date,a", *lines, ""]))
    try:
        data = load_data(tmp_path / "x.csv", **TASK, missing=missing)
    except TsfmcError as error:
        assert "\n" not in str(error)
    else:
        assert data.rows == 90 and data.frequency == "h" and data.seasonality == 24
        assert data.timestamps is not None and data.timestamps[0] == first
