"""Files that cannot be used: one line that says file, row, column, what was expected and what to do."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import DataError, TsfmcError, UsageError
from tsfmc.compiler.data import load_data

HEADER = "date,a,b"


def hours(count: int = 40, cell: Callable[[int], str] = str) -> list[str]:
    return [f"2020-01-{1 + i // 24:02d} {i % 24:02d}:00:00,{i},{cell(i)}" for i in range(count)]


def text(lines: list[str], header: str = HEADER) -> bytes:
    return "\n".join([header, *lines, ""]).encode()


def with_row(row: str) -> bytes:
    """A good file whose sixth data row, row 7 of the file, is ``row``."""
    lines = hours()
    lines[5] = row
    return text(lines)


BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.csv", b"", r"x\.csv is empty"),
    "only header": ("x.csv", b"date,a\n", "x.csv has a header but no rows"),
    "text cell": (
        "x.csv",
        with_row("2020-01-01 05:00:00,5,oops"),
        "row 7, column 'b' is 'oops', expected a num",
    ),
    "text column": ("x.csv", text(hours(cell=lambda _: "x")), "row 2, column 'b' is 'x'.* with --variates"),
    "true and false": ("x.csv", text(hours(cell=lambda _: "True")), "row 2, column 'b' is 'True'"),
    "empty cell": (
        "x.csv",
        with_row("2020-01-01 05:00:00,5,"),
        "row 7, column 'b' is empty or NaN.*--missing ffill",
    ),
    "nan": ("x.csv", with_row("2020-01-01 05:00:00,nan,1"), "row 7, column 'a' is empty or NaN"),
    "infinite": ("x.csv", with_row("2020-01-01 05:00:00,inf,1"), "row 7, column 'a' is infinite"),
    "bad time": ("x.csv", with_row("soon,5,5"), "row 7, column 'date' is 'soon', expected a timestamp"),
    "no time": ("x.csv", with_row(",5,5"), "row 7, column 'date' is empty, expected a timestamp"),
    "repeated": (
        "x.csv",
        with_row("2020-01-01 04:00:00,5,5"),
        "row 7 .* 2020-01-01 04:00:00 like the row before",
    ),
    "unsorted": (
        "x.csv",
        with_row("2020-01-01 02:00:00,5,5"),
        "row 7 .* after 2020-01-01 04:00:00, expected asc",
    ),
    "irregular": ("x.csv", with_row("2020-01-01 05:07:00,5,5"), "row 7 .* does not follow .* at the step h"),
    "gap": (
        "x.csv",
        text(hours()[:5] + hours()[8:]),
        r"row 7 .* 08:00:00: 3 missing after .*--missing ffill",
    ),
    "no step": ("x.csv", text(["2020-01-01,1,1"]), "the train split has 0 rows"),
    "numbers as time": (
        "x.csv",
        text([f"{i},1,1" for i in range(40)]),
        "column 'date' holds '0', expected timest",
    ),
    "only time": ("x.csv", text([line[:19] for line in hours()], "date"), "no column besides its timestamps"),
    "same name": ("x.csv", text(hours(), "date,a,a"), "column name 'a' appears twice"),
    "no name": ("x.csv", text(hours(), "date,a,"), "column 3 has no name"),
    "no header": (
        "x.csv",
        text(hours()[1:], hours()[0]),
        "row 1 has the value '2020-01-01 00:00:00', expected col",
    ),
    "no header, numbers": ("x.csv", b"1.5,2\n2.5,3\n", "row 1 has the value '1.5', expected column names"),
    "surplus field": ("x.csv", with_row("2020-01-01 05:00:00,5,5,5"), "Expected 3 fields in line 7, saw 4"),
    "missing field": ("x.csv", with_row("2020-01-01 05:00:00,5"), "row 7, column 'b' is empty"),
    "surplus column": ("x.csv", text(hours(), "date,a"), "row 2 has 3 fields, the header has 2"),
    "semicolons": ("x.csv", text(hours()).replace(b",", b";"), "separated by semicolons, expected commas"),
    "tabs": ("x.csv", text(hours()).replace(b",", b"\t"), "separated by tabs, expected commas"),
    "latin-1": ("x.csv", text(hours(), "date,a,\xb0").decode().encode("latin-1"), "not a CSV file in UTF-8"),
    "utf-16": ("x.csv", text(hours()).decode().encode("utf-16"), "not a CSV file in UTF-8"),
    "binary": ("x.csv", bytes(range(256)) * 9, "not a CSV file in UTF-8"),
    "html": ("x.csv", b"<html>\n<body>no</body>\n</html>\n", "row 2, column '<html>' is '<body>no</body>'"),
    "not gzip": ("x.csv.gz", text(hours()), "not a whole gzip file"),
    "cut gzip": ("x.csv.gz", gzip.compress(text(hours()))[:-12], "not a whole gzip file"),
    "flipped gzip": ("x.csv.gz", gzip.compress(text(hours()))[:-8] + bytes(8), "not a whole gzip file: CRC"),
    "not parquet": ("x.parquet", b"PAR1....", "x.parquet is not a Parquet file"),
    "other suffix": (
        "x.ods",
        b"PK",
        r"x.ods is not a CSV, Parquet or Excel file \(expected one of .csv, .csv",
    ),
    "not a workbook": ("x.xlsx", b"PK", "x.xlsx is not an Excel workbook: File is not a zip file"),
    "short": (
        "x.csv",
        text(hours(9)),
        "the train split has 6 rows, one window of lookback 6 and horizon 2 needs 8",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(tmp_path / name, lookback=6, horizon=2)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert not list(cache_root().rglob(".partial-*"))


GOOD = {
    "as it should be": text(hours()),
    "byte order mark": b"\xef\xbb\xbf" + text(hours()),
    "windows lines": text(hours()).replace(b"\n", b"\r\n"),
    "blank lines at the end": text(hours()) + b"\n\n",
    "blanks around names": text(hours(), " date , a , b "),
    "unnamed index": text(hours(), ",a,b"),
    "other name for time": text(hours(), "Timestamp,a,b"),
    "time found by content": text(hours(), "when,a,b"),
    "iso with T": text([line.replace(" ", "T", 1) for line in hours()]),
    "slashes": text([f"2020/1/{1 + i // 24} {i % 24}:00,{i},{i}" for i in range(40)]),
    "dots": text([f"{1 + i // 24:02d}.02.2020 {i % 24:02d}:00,{i},{i}" for i in range(40)]),
    "utc offset": text([line.replace(",", "+00:00,", 1) for line in hours()]),
    "time in the last column": text(
        [",".join([*line.split(",")[1:], line[:19]]) for line in hours()], "a,b,date"
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_files_of_many_kinds(case: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(GOOD[case])
    data = load_data(tmp_path / "x.csv", lookback=6, horizon=2)
    assert data.variates == ("a", "b")
    assert data.frequency == "h"
    assert data.values.tolist() == [[i, i] for i in range(40)]
    assert data.timestamps is not None
    assert str(data.timestamps[39]).endswith("-02T15:00:00.000000")


def test_only_the_chosen_variates_must_be_good(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text(hours(cell=lambda _: "x")))
    assert load_data(tmp_path / "x.csv", lookback=6, horizon=2, variates="a").variates == ("a",)


def test_a_file_without_timestamps_has_no_frequency(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text([f"{i},{i}" for i in range(40)], "a,b"))
    data = load_data(tmp_path / "x.csv", lookback=6, horizon=2)
    assert (data.frequency, data.timestamps, data.seasonality) == (None, None, 1)


def test_a_constant_variate_is_noted_and_scaled_by_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text(hours(cell=lambda _: "0.1")))
    data = load_data(tmp_path / "x.csv", lookback=6, horizon=2)
    assert data.notes == ("variate 'b' is constant over the train split; its scale is 1",)
    assert data.std[1] == 1
    past, _ = data.windows("test", 6, 2).batch([0])
    assert past[0, 1].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variates": "a,c"}, r"unknown variate of x.csv 'c' \(.*known: a, b"),
        ({"variates": "a,date"}, "unknown variate of x.csv 'date'"),
        ({"variates": "a,a"}, "empty or repeated"),
        ({"variates": ""}, "unknown variate of x.csv ''"),
        ({"split": "a,b"}, "split 'a,b' is not understood"),
        ({"split": "0.7,0.3"}, "is not understood"),
        ({"split": "0.7,0.2,0.2"}, "is not understood"),
        ({"split": "nan,0.1,0.1"}, "is not understood"),
        ({"split": "inf,1,1"}, "is not understood"),
        ({"split": "-1,1,1"}, "is not understood"),
        ({"split": "30,10,10"}, "x has 40 rows, the split 30/10/10 needs 50"),
        ({"missing": "drop"}, "unknown missing policy 'drop'.*known: error, ffill, interpolate"),
        ({"lookback": 0}, "lookback 0 is not positive"),
        ({"horizon": -3}, "horizon -3 is not positive"),
        ({"chunk_rows": 1}, "chunk_rows 1 is too small"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text(hours()))
    with pytest.raises(UsageError, match=message) as caught:
        load_data(tmp_path / "x.csv", **{"lookback": 6, "horizon": 2, **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["none.csv", "no/such/x.parquet", "."])
def test_a_path_that_is_no_file(path: str, tmp_path: Path) -> None:
    with pytest.raises(TsfmcError, match=r"does not exist|is not a file"):
        load_data(tmp_path / path, lookback=6, horizon=2)


def parquet(path: Path, **columns: object) -> Path:
    stamps = pd.date_range("2020-01-01", periods=40, freq="h")
    pd.DataFrame({"when": stamps, "a": range(40), "b": range(40), **columns}).to_parquet(
        path, row_group_size=7
    )
    return path


def test_parquet_equals_csv(tmp_path: Path) -> None:
    data = load_data(parquet(tmp_path / "x.parquet"), lookback=6, horizon=2, chunk_rows=9)
    assert (data.variates, data.frequency, data.rows) == (("a", "b"), "h", 40)
    assert data.values.tolist() == [[i, i] for i in range(40)]
    frame = pd.DataFrame({"a": range(40)}, index=pd.date_range("2020-01-01", periods=40, freq="D", tz="UTC"))
    frame.to_parquet(tmp_path / "indexed.pq")
    assert load_data(tmp_path / "indexed.pq", lookback=6, horizon=2).frequency == "D"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([None, *range(39)], "row 1, column 'b' is empty or NaN"),
        ([*range(20), float("-inf"), *range(19)], "row 21, column 'b' is infinite"),
        (["x"] * 40, "row 1, column 'b' is 'x'"),
        ([False] * 40, "row 1, column 'b' is 'False'"),
        (pd.date_range("2020-01-01", periods=40), "row 1, column 'b' is '2020-01-01 00:00:00'"),
        ([[1, 2]] * 40, "row 1, column 'b' is '.*1.*2.*'"),
    ],
)
def test_bad_parquet_cells(column: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_data(parquet(tmp_path / "x.parquet", b=column), lookback=6, horizon=2)


def test_parquet_without_rows_or_cut(tmp_path: Path) -> None:
    pd.DataFrame({"a": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none.parquet has no rows"):
        load_data(tmp_path / "none.parquet", lookback=6, horizon=2)
    whole = parquet(tmp_path / "x.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.parquet is not a Parquet file"):
        load_data(tmp_path / "cut.parquet", lookback=6, horizon=2)
    start = whole.index(b"\x15", 4)
    (tmp_path / "broken.parquet").write_bytes(whole[:start] + bytes(200) + whole[start + 200 :])
    with pytest.raises(DataError, match=r"broken.parquet is a broken Parquet file"):
        load_data(tmp_path / "broken.parquet", lookback=6, horizon=2)
