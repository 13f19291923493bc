"""The published benchmark files and the embedded sample."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import tsfmc.compiler.data as data_package
from tsfmc.compiler.base.errors import DataError, UsageError
from tsfmc.compiler.data import KNOWN, PARTS, known_names, load_data
from tsfmc.compiler.data.sources import KnownData

SAMPLE = Path(data_package.__file__).parent / "sample"

# LTSF: test windows at H = 96, 192, 336, 720, and rows of each part.
PUBLISHED = {
    "ETTh1": ((2785, 2689, 2545, 2161), "8640/2880/2880", 24),
    "ETTh2": ((2785, 2689, 2545, 2161), "8640/2880/2880", 24),
    "ETTm1": ((11425, 11329, 11185, 10801), "34560/11520/11520", 96),
    "weather": ((10444, 10348, 10204, 9820), "36887/5270/10539", 144),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_window_counts_are_the_published_ones(
    name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSFMC_DATA", str(shared / "data"))
    counts, split, season = PUBLISHED[name]
    data = load_data(name.upper(), lookback=512, horizon=720)
    assert data.name == data.overlap_name == name
    assert str(data.splits) == split
    assert data.seasonality == season
    assert tuple(len(data.windows("test", 512, horizon)) for horizon in (96, 192, 336, 720)) == counts


def test_etth1_scaling_and_values_are_those_of_the_file(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSFMC_DATA", str(shared / "data"))
    with gzip.open(shared / "data" / "ETTh1.csv.gz", "rt") as stream:
        raw = np.loadtxt(stream, delimiter=",", skiprows=1, usecols=range(1, 8))
    data = load_data("ETTh1", lookback=512, horizon=96)
    np.testing.assert_array_equal(data.values, raw)
    np.testing.assert_allclose(data.mean, raw[:8640].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std, raw[:8640].std(axis=0), rtol=1e-12)
    assert str(data) == ("ETTh1 sha256=f18de3ad269cef59 rows=17420 variates=7 freq=h split=8640/2880/2880")
    some = load_data("ETTh1", lookback=512, horizon=96, variates="OT, HUFL")
    assert some.variates == ("OT", "HUFL")
    np.testing.assert_array_equal(some.values, raw[:, [6, 0]])


def test_weather_is_kept_as_published(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSFMC_DATA", str(shared / "data"))
    data = load_data("weather", lookback=512, horizon=96)
    assert int((data.values == -9999).sum()) == 81
    by_path = load_data(shared / "data" / "weather.csv.gz", lookback=512, horizon=96)
    assert str(by_path) == str(data), "its repeated timestamp is that of the published file"


def test_a_known_name_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n")
    monkeypatch.setenv("TSFMC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"ETTh1\.csv has sha256 \w{64}, the published ETTh1 has f18de3ad"):
        load_data("etth1", lookback=8, horizon=2)


DAYS = (*range(1, 20), 19, *range(20, 31))
PUBLISHED_ROWS = "date,a\n" + "".join(f"2024-01-{day:02d},{day}\n" for day in DAYS)
"""A published file as they are: one timestamp is repeated."""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(PUBLISHED_ROWS.encode()).hexdigest()
    fake = KnownData("Tiny", "https://example.org/tiny.csv", digest, 31, "D", (11, 8, 8))
    monkeypatch.setitem(KNOWN, "tiny", fake)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("file", ["Tiny.csv", "TINY.csv.gz"])
def test_a_published_file_is_recognised_by_its_content(file: str, tmp_path: Path) -> None:
    content = PUBLISHED_ROWS.encode()
    (tmp_path / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    data = load_data(tmp_path / file, lookback=4, horizon=2)
    assert (data.name, str(data.splits), data.frequency, data.rows) == ("Tiny", "11/8/8", "D", 31)


@pytest.mark.usefixtures("published")
def test_other_bytes_or_another_name_are_a_file_of_the_users_own(tmp_path: Path) -> None:
    edited = PUBLISHED_ROWS.replace("2024-01-19,19\n", "", 1).replace("01-30,30", "01-30,31")
    (tmp_path / "Tiny.csv").write_text(edited)
    data = load_data(tmp_path / "Tiny.csv", lookback=4, horizon=2)
    assert (data.name, str(data.splits), data.rows) == ("Tiny", "21/3/6", 30)
    (tmp_path / "mine.csv").write_text(PUBLISHED_ROWS)
    with pytest.raises(DataError, match=r"mine\.csv: row 21 has the timestamp 2024-01-19 .* like the row"):
        load_data(tmp_path / "mine.csv", lookback=4, horizon=2)


def test_known_table_is_consistent() -> None:
    assert set(known_names()) == {known.name for known in KNOWN.values()} | {"sample"}
    assert len({known.sha256 for known in KNOWN.values()}) == len(KNOWN)
    for known in KNOWN.values():
        assert re.fullmatch("[0-9a-f]{64}", known.sha256)
        assert known.borders is None or sum(known.borders) <= known.rows


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown data set 'ETTh9' \(did you mean 'ETTh2'\? known: .*sample"
    ):
        load_data("ETTh9", lookback=8, horizon=2)


def test_sample_is_small_regular_and_has_its_origin() -> None:
    data = load_data("sample", lookback=512, horizon=96)
    assert (data.rows, len(data.variates), data.frequency, data.seasonality) == (8730, 9, "h", 24)
    assert [len(data.windows(part, 512, 96)) for part in PARTS] == [5504, 778, 1651]
    assert data.notes == ()
    assert sum(file.stat().st_size for file in SAMPLE.iterdir()) < 1_000_000
    origin = (SAMPLE / "ORIGIN.md").read_text()
    assert data.sha256 in origin
    assert data.sha256 == hashlib.sha256((SAMPLE / "sample.csv").read_bytes()).hexdigest()
    assert "CC0" in origin


def test_second_load_reads_the_cache_and_prints_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_data("sample", lookback=64, horizon=8)
    monkeypatch.setattr("tsfmc.compiler.data.table.ingest", None)
    second = load_data("sample", lookback=64, horizon=8)
    assert str(second) == str(first)
    assert "/" not in str(first).replace(str(first.splits), "")
    np.testing.assert_array_equal(second.values, first.values)
