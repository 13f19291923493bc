"""The long format: what is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsfmc.compiler.base.errors import DataError, UsageError
from tsfmc.compiler.data import Panel, load_panel
from tsfmc.compiler.data.panel_columns import guess_columns

L, H = 8, 4
FIRST = np.datetime64("2024-01-01T00", "h")


def series(start: int, rows: int, level: float = 0.0) -> pd.DataFrame:
    """Rows whose value is the hour of the panel, times ten, and a level."""
    hours = start + np.arange(rows)
    return pd.DataFrame({"ds": (FIRST + hours).astype("M8[us]"), "y": 10.0 * hours + level})


def table(**items: pd.DataFrame) -> pd.DataFrame:
    parts = [frame.assign(unique_id=name) for name, frame in items.items()]
    return pd.concat(parts, ignore_index=True)[["unique_id", "ds", "y"]]


def load(path: Path | str, **options: object) -> Panel:
    return load_panel(path, lookback=L, horizon=H, **{"id_column": "unique_id", **options})  # type: ignore[arg-type]


@pytest.fixture
def meters() -> pd.DataFrame:
    return table(b=series(3, 97, 1000.0), a=series(0, 100))


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "folder", "glob", "shuffled"])
def test_every_form_gives_the_same_series(meters: pd.DataFrame, tmp_path: Path, form: str) -> None:
    source: Path | str = tmp_path / f"meters.{form}"
    if form == "parquet":
        meters.to_parquet(source)
    elif form in ("folder", "glob"):
        folder = tmp_path / "folder"
        for half in (0, 1):
            (folder / f"h={half}").mkdir(parents=True)
            meters[half::2].to_parquet(folder / f"h={half}" / "part.parquet")
        source = folder if form == "folder" else f"{folder}/*/*.parquet"
    elif form == "shuffled":
        source = tmp_path / "meters.csv"
        meters.sample(frac=1, random_state=3).to_csv(source, index=False)
    else:
        meters.to_csv(source, index=False)
    panel = load(source)
    assert panel.ids == ("a", "b") and panel.frequency == "h"
    assert panel.starts.tolist() == [0, 3]
    own = [panel.values[a:b, 0] for a, b in zip(panel.begins, panel.ends, strict=True)]
    np.testing.assert_array_equal(own[0], 10.0 * np.arange(100))
    np.testing.assert_array_equal(own[1], 10.0 * np.arange(3, 100) + 1000)


def test_splits_are_stretches_of_the_calendar(meters: pd.DataFrame, tmp_path: Path) -> None:
    meters.to_csv(tmp_path / "meters.csv", index=False)
    panel = load(tmp_path / "meters.csv")
    assert str(panel.splits) == "70/10/20"
    counts = {part: len(panel.windows(part, L, H)) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    # a: 70 - 12 + 1 windows; b starts three hours later.  Later parts look back, so all have the same.
    assert counts == {"train": 59 + 56, "val": 2 * 7, "test": 2 * 17}


def test_windows_are_scaled_by_the_training_rows_of_their_item(meters: pd.DataFrame, tmp_path: Path) -> None:
    meters.to_csv(tmp_path / "meters.csv", index=False)
    panel = load(tmp_path / "meters.csv")
    windows = panel.windows("val", L, H)
    past, future = windows.batch([0, 7])
    assert past.shape == (2, 1, L) and future.shape == (2, 1, H)
    for at, (first, level) in enumerate(((0, 0.0), (3, 1000.0))):
        own = 10.0 * np.arange(first, 70) + level
        mean, std = own.mean(), own.std()
        hours = np.arange(70 - L, 70 + H)
        expected = (10.0 * hours + level - mean) / std
        np.testing.assert_allclose(np.concatenate([past[at, 0], future[at, 0]]), expected, rtol=1e-5)
    assert windows.items([0, 6, 7, 13]).tolist() == [0, 0, 1, 1]


def test_gaps_are_refused_or_filled_item_by_item(meters: pd.DataFrame, tmp_path: Path) -> None:
    broken = meters.drop(index=[10, 11])  # of b, hours 13 and 14
    broken.loc[broken.index[30], "y"] = np.nan
    broken.loc[0, "y"] = np.nan  # b begins empty: it begins later
    broken.to_csv(tmp_path / "gaps.csv", index=False)
    with pytest.raises(DataError, match=r"item 'b' has no value at 2024-01-01 13:00:00"):
        load(tmp_path / "gaps.csv")
    panel = load(tmp_path / "gaps.csv", missing="interpolate")
    assert panel.starts.tolist() == [0, 4]
    own = panel.values[panel.begins[1] : panel.ends[1], 0]
    np.testing.assert_allclose(own, 10.0 * np.arange(4, 100) + 1000)
    assert (panel.filled.cells, panel.filled.rows) == (1, 2)


def test_items_that_cannot_be_learnt_from_are_left_out_and_counted(
    meters: pd.DataFrame, tmp_path: Path
) -> None:
    late = pd.concat([meters, table(late=series(80, 20), short=series(0, 5))], ignore_index=True)
    late.to_csv(tmp_path / "late.csv", index=False)
    panel = load(tmp_path / "late.csv")
    assert panel.ids == ("a", "b")
    assert panel.notes == ("2 of 4 items left out, shorter than 8 + 4 training rows: late, short",)


def test_held_out_items_are_in_no_window(tmp_path: Path) -> None:
    table(**{f"m{n}": series(0, 100, 7.0 * n) for n in range(10)}).to_csv(tmp_path / "ten.csv", index=False)
    panel = load(tmp_path / "ten.csv", holdout_items=0.3)
    assert panel.held is not None and len(panel.held.ids) == 3
    assert set(panel.ids).isdisjoint(panel.held.ids) and len(panel.ids) == 7
    assert len(panel.windows("train", L, H)) == 7 * 59
    again = load(tmp_path / "ten.csv", holdout_items=0.3)
    assert again.held is not None and again.held.ids == panel.held.ids
    other = load(tmp_path / "ten.csv", holdout_items=0.3, seed=1)
    assert other.held is not None and other.held.ids != panel.held.ids


def test_what_is_broken_is_said_in_one_line(meters: pd.DataFrame, tmp_path: Path) -> None:
    cases = {
        "twice": (pd.concat([meters, meters[:1]]), "item 'b' has two rows at 2024-01-01 03:00:00"),
        "off": (
            pd.concat([meters, table(c=series(0, 50).assign(ds=lambda f: f.ds + pd.Timedelta("30min")))]),
            "item 'c' has a row at 2024-01-01 00:30:00, which is not on the common axis of step h",
        ),
        "text": (meters.astype({"y": object}).replace({"y": {50.0: "many"}}), "invalid value 'many'"),
        "no_time": (meters.rename(columns={"ds": "wann"}), "no column is named like a time"),
        "no_value": (meters.drop(columns="y"), "no column of numbers besides unique_id and ds"),
    }
    for name, (frame, message) in cases.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(DataError, match=message):
            load(tmp_path / f"{name}.csv")
    with pytest.raises(UsageError, match=r"column of .* 'meter'"):
        load(tmp_path / "twice.csv", id_column="meter")
    with pytest.raises(DataError, match="no CSV or Parquet file"):
        load(f"{tmp_path}/nothing-*.csv")


def test_the_columns_of_the_known_libraries_are_guessed(meters: pd.DataFrame, tmp_path: Path) -> None:
    for names in (
        ("unique_id", "ds", "y"),
        ("item_id", "timestamp", "target"),
        ("series_id", "time", "load"),
    ):
        path = tmp_path / f"{names[0]}.csv"
        meters.set_axis(list(names), axis=1).to_csv(path, index=False)
        found = guess_columns(str(path))
        assert found is not None and (found.id, found.time, found.values) == (names[0], names[1], (names[2],))
    wide = tmp_path / "wide.csv"
    meters.drop(columns="unique_id").to_csv(wide, index=False)
    assert guess_columns(str(wide)) is None


def test_each_value_column_is_a_series(meters: pd.DataFrame, tmp_path: Path) -> None:
    meters.assign(q=-meters.y).to_csv(tmp_path / "two.csv", index=False)
    panel = load(tmp_path / "two.csv", value_columns=["y", "q"])
    assert panel.ids == ("a/y", "a/q", "b/y", "b/q")
    np.testing.assert_array_equal(
        panel.values[: panel.ends[0]], -panel.values[panel.begins[1] : panel.ends[1]]
    )
