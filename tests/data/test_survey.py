"""Surveys: what a data set is, and what a data engineer would act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsfmc.compiler.base.errors import DataError, UsageError
from tsfmc.compiler.data.seasons import calendar_seasons, other_cycle
from tsfmc.compiler.data.shifts import level_shifts
from tsfmc.compiler.data.survey import Survey, survey

SHARED = Path(__file__).parents[3] / "shared" / "data"
ROWS = 24 * 120


def series(**columns: np.ndarray) -> pd.DataFrame:
    """Hours with a day's cycle in ``load``, and other columns."""
    rng = np.random.default_rng(3)
    load = 10 + np.sin(2 * np.pi * np.arange(ROWS) / 24) + 0.3 * rng.normal(size=ROWS)
    stamps = pd.date_range("2023-01-01", periods=ROWS, freq="h")
    return pd.DataFrame({"date": stamps, "load": load, "noise": rng.normal(size=ROWS), **columns})


def looked_at(frame: pd.DataFrame, folder: Path) -> Survey:
    frame.to_csv(folder / "x.csv", index=False)
    return survey(folder / "x.csv")


def test_what_it_is(tmp_path: Path) -> None:
    found = looked_at(series(), tmp_path)
    assert (found.rows, found.step, found.first, found.last) == (
        ROWS,
        "h",
        "2023-01-01 00:00:00",
        "2023-04-30 23:00:00",
    )
    load, noise = found.variates
    strengths = {season.name: season.strength for season in load.seasons}
    assert strengths["day"] == pytest.approx(0.5 / (0.5 + 0.09), abs=0.03)
    assert strengths["week"] < 0.05
    assert all(season.strength < 0.05 for season in noise.seasons)
    assert load.seasons[0].autocorrelation > 0.75 > 0.2 > abs(noise.seasons[0].autocorrelation)
    assert found.findings == () and found.options == {}
    json.dumps(found.to_json())


def test_moments_are_those_of_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsfmc.compiler.data.survey._CHUNK_CELLS", 500)
    frame = series()
    found = looked_at(frame, tmp_path)
    for fact in found.variates:
        column = frame[fact.name]
        expected = (column.mean(), column.std(ddof=0), column.min(), column.max())
        assert (fact.mean, fact.std, fact.low, fact.high) == pytest.approx(expected, rel=1e-9)


BREAK: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str, str]] = {
    "constant": (
        lambda frame: frame.assign(off=1.5),
        "constant: 'off'",
        "leave out with --variates load,noise",
    ),
    "twice": (
        lambda frame: frame.assign(copy=frame["load"]),
        "the same twice: 'copy' is 'load'",
        "leave out with --variates load,noise",
    ),
    "stuck": (
        lambda frame: frame.assign(load=frame["load"].mask(frame.index.isin(range(700, 1000)), 9.25)),
        "'load' stays at 9.25 for 300 rows from 2023-01-30 04:00:00",
        "look whether the sensor was off",
    ),
    "a code for missing": (
        lambda frame: frame.assign(load=frame["load"].mask(frame.index % 500 == 0, -9999.0)),
        "'load' is -9999 in 6 rows, far from the rest: a code?",
        "empty those cells",
    ),
    "a level shift": (
        lambda frame: frame.assign(load=frame["load"] + 6.0 * (frame.index >= 24 * 70)),
        "'load' shifts by +1.9 standard deviations at 2023-03-12 00:00:00",
        "train on what came after it",
    ),
    "no time": (
        lambda frame: frame.drop(columns="date"),
        "no column with the time was found",
        "--csv time=NAME",
    ),
    "a gap": (
        lambda frame: frame.drop(index=range(300, 310)),
        "x.csv: row 302 has the timestamp 2023-01-13 22:00:00: 10 missing after 2023-01-13 11:00:00",
        "--missing interpolate",
    ),
    "repeated rows": (
        lambda frame: pd.concat([frame.iloc[:100], frame.iloc[99:]]),
        "x.csv: row 102 has the timestamp 2023-01-05 03:00:00 like the row before it",
        "--duplicates mean",
    ),
    "out of order": (
        lambda frame: frame.iloc[::-1],
        "x.csv: row 3 has the timestamp 2023-04-30 22:00:00 after 2023-04-30 23:00:00",
        "--sort",
    ),
    "a late start": (
        lambda frame: frame.assign(load=frame["load"].mask(frame.index < 100)),
        "trimmed 100 rows at the start, before 'load' begins",
        "",
    ),
    "a cycle of its own": (
        lambda frame: frame.assign(
            load=frame["load"] + 2 * np.sin(frame.index / 37 * 2 * np.pi),
            noise=frame["noise"] + 2 * np.sin(frame.index / 37 * 2 * np.pi),
        ),
        "a cycle of 36.9 steps, no calendar's",
        "",
    ),
    "irregular": (
        lambda frame: frame.assign(date=frame["date"] + pd.to_timedelta(7 * (frame.index == 5), unit="min")),
        "x.csv: row 7 has the timestamp 2023-01-01 05:07:00, which does not follow",
        "resample the file",
    ),
}


@pytest.mark.parametrize("case", BREAK)
def test_what_is_wrong_and_what_to_do(case: str, tmp_path: Path) -> None:
    change, what, do = BREAK[case]
    found = looked_at(change(series()), tmp_path)
    finding = next((each for each in found.findings if what in each.what), None)
    assert finding is not None, [each.what for each in found.findings]
    assert do in finding.do
    assert found.readable == (case != "irregular")


def test_a_shift_is_told_from_drift_and_from_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=200)
    assert level_shifts(noise, 24, float(noise.std())) == []
    drift = np.cumsum(0.1 + 0.1 * rng.normal(size=200))
    assert level_shifts(drift, 24, float(drift.std())) == []
    step = 0.2 * noise + 3.0 * (np.arange(200) >= 120)
    (shift,) = level_shifts(step, 24, float(step.std()))
    assert shift.row == 120 * 24 and shift.size == pytest.approx(3.0 / step.std(), rel=0.1)


def test_a_week_is_told_from_its_days() -> None:
    hours = np.arange(24 * 7 * 20)
    day = np.sin(2 * np.pi * hours / 24)
    weekend = np.where(hours // 24 % 7 >= 5, 2.0, 0.0)
    periods = {"day": 24.0, "week": 168.0}
    only_days, _ = calendar_seasons(day, periods)
    assert [round(season.strength, 2) for season in only_days] == [1.0]  # nothing is left for a week
    both, rest = calendar_seasons(day + weekend, periods)
    assert both[1].name == "week" and both[1].strength > 0.95
    assert np.abs(rest - rest.mean()).max() < 0.05
    assert other_cycle([rest + 0.1 * np.sin(hours / 37 * 2 * np.pi)], [24.0, 168.0]) is not None


def test_data_that_are_not_there() -> None:
    with pytest.raises(DataError, match=r"none.csv does not exist"):
        survey("none.csv")
    with pytest.raises(UsageError, match="unknown data set 'ETTh9'"):
        survey("ETTh9")


EXPECTED = {
    "ETTh1": ("h", 17420, {"'LULL' shifts by"}),
    "ETTh2": ("h", 17420, {"'MUFL' stays at 88.298 for 1,025 rows from 2017-04-19 19:00:00"}),
    "ETTm1": ("15min", 69680, {"'LULL' shifts by"}),
    "weather": (
        "10min",
        52696,
        {"'OT' is -9999 in 50 rows", "published with 1 repeated and 9 missing timestamps"},
    ),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
@pytest.mark.parametrize("name", EXPECTED)
def test_published_data_sets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSFMC_DATA", str(SHARED))
    step, rows, said = EXPECTED[name]
    found = survey(name)
    assert (found.step, found.rows, found.known, found.options) == (step, rows, True, {})
    for what in said:
        assert any(what in finding.what for finding in found.findings)
    day = [season.strength for fact in found.variates for season in fact.seasons if season.name == "day"]
    assert max(day) > 0.5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
def test_a_published_data_set_as_a_european_export(tmp_path: Path) -> None:
    frame = pd.read_csv(SHARED / "ETTh1.csv.gz", parse_dates=["date"]).iloc[:3000]
    stamps = frame["date"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    frame = frame.assign(date=stamps.dt.strftime("%d/%m/%Y %H:%M")).drop(index=[500, 501])
    frame = frame.rename(columns={"OT": "\u00d6l"})
    frame.to_csv(tmp_path / "x.csv", sep=";", decimal=",", index=False, encoding="latin-1")
    found = survey(tmp_path / "x.csv")
    assert found.options == {
        "csv": "sep=;,decimal=,,dates=dd/mm/yyyy,encoding=latin-1",
        "missing": "interpolate",
        "zone": "Europe/Berlin",
    }
    assert (found.rows, found.filled.rows, found.first) == (3000, 2, "2016-07-01 00:00:00")
