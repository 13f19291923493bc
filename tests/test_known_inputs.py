"""Inputs beside the window from end to end: compiled, chosen, lowered, and supplied by a user's tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import DataError, RecipeError, UsageError

LOOKBACK, HORIZON, ROWS = 48, 12, 1200
PIPELINE = ["build_student", "gather_statistics", "solve_affine", "add_inputs", "fold_affine"]
PASSES = {"build_student": {"lambda_kd": 0}, "solve_affine": {"search": ["ridge"]}}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A load that a price moves, noise that says nothing, and a table of the coming day."""
    folder = tmp_path_factory.mktemp("tables")
    rng, hours = np.random.default_rng(0), np.arange(ROWS + HORIZON)
    price = np.repeat(rng.standard_normal(len(hours) // 6 + 1), 6)[: len(hours)]
    load = 3 * np.sin(2 * np.pi * hours / 24) + 2 * price + 0.3 * rng.standard_normal(len(hours))
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024-01-01", periods=len(hours), freq="h"),
            "load": load,
            "price": price,
            "noise": rng.standard_normal(len(hours)),
        }
    )
    frame.iloc[:ROWS].to_csv(folder / "past.csv", index=False)
    frame.iloc[ROWS:].drop(columns="load").to_csv(folder / "ahead.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def artifacts(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    result = api.compile(
        data=tables / "past.csv",
        target=["onnx", "tvm", "c"],
        out=tmp_path_factory.mktemp("out"),
        lookback=LOOKBACK,
        horizon=HORIZON,
        known_columns="price,noise",
        pipeline=PIPELINE,
        passes=PASSES,
        baseline=False,
        set=["measure.duration_s=0.1", "measure.teacher_forms=['eager']"],
        cache=False,
    )
    return result.artifacts


def command(*arguments: object) -> tuple[int, str]:
    """The command line in a process of its own: exit code and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "tsfmc", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_what_matters_is_kept_and_the_table_says_what_each_gave(artifacts: dict[str, Path]) -> None:
    manifest = api.inspect(artifacts["onnx"])
    assert [group["name"] for group in manifest["task"]["inputs"]] == ["price"]
    (tried,) = [entry["metrics"] for entry in manifest["passes"] if entry["name"] == "add_inputs"]
    gains = {tuple(row["inputs"]): row["log_ratio"] for row in tried["inputs"]}
    assert gains["price",] < -0.5 and ("noise",) in gains
    assert manifest["accuracy"]["test"]["student"]["mse"] < 0.3


@pytest.mark.parametrize("kind", ["onnx", "tvm", "c"])
def test_every_target_forecasts_from_two_tables_as_its_run_py_does(
    artifacts: dict[str, Path], tables: Path, tmp_path: Path, kind: str
) -> None:
    past, ahead = tables / "past.csv", tables / "ahead.csv"
    code, text = command(
        "forecast", artifacts[kind], "--input", past, "--ahead", ahead, "--output", tmp_path / "f.csv"
    )
    assert code == 0, text
    done = subprocess.run(
        [sys.executable, "-I", artifacts[kind] / "run.py", "forecast", past, "--ahead", ahead, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    mine, theirs = pd.read_csv(tmp_path / "f.csv")["load"], json.loads(done.stdout)["forecast"]["load"]
    assert np.allclose(mine, theirs, rtol=1e-12)
    plain = api.load(artifacts["onnx"])
    table, coming = pd.read_csv(past), pd.read_csv(ahead)
    price = np.concatenate([table["price"][-LOOKBACK:], coming["price"]])
    direct = plain.forecast(table["load"].to_numpy()[None, -LOOKBACK:], columns={"price": price})
    assert np.allclose(direct[0], mine, atol=1e-4)
    assert api.load(artifacts[kind]).selftest()["passed"]


def test_the_price_of_tomorrow_moves_the_forecast(artifacts: dict[str, Path], tables: Path) -> None:
    model = api.load(artifacts["onnx"])
    table = pd.read_csv(tables / "past.csv")
    past, price = table["load"].to_numpy()[None, -LOOKBACK:], table["price"].to_numpy()[-LOOKBACK:]
    low, high = (
        model.forecast(past, columns={"price": np.concatenate([price, np.full(HORIZON, value)])})
        for value in (0.0, 1.0)
    )
    moved = high - low
    assert (moved > 0.8).all() and abs(moved.mean() - 2.0) < 0.3  # the price's weight in the data


def test_what_is_missing_is_said(artifacts: dict[str, Path], tables: Path, tmp_path: Path) -> None:
    past, ahead = tables / "past.csv", pd.read_csv(tables / "ahead.csv")
    ahead.iloc[:5].to_csv(tmp_path / "short.csv", index=False)
    ahead.drop(columns="price").to_csv(tmp_path / "none.csv", index=False)
    late = ahead.assign(date=pd.to_datetime(ahead["date"]) + pd.Timedelta(hours=3))
    late.to_csv(tmp_path / "late.csv", index=False)
    forecast = ("forecast", artifacts["onnx"], "--input", past)
    for given, words in (
        ((), "'price' must be known over the 12 steps ahead"),
        (("--ahead", tmp_path / "short.csv"), "has 5 rows, expected at least 12 (the horizon)"),
        (("--ahead", tmp_path / "none.csv"), "column 'price' occurs 0 times in the header"),
        (("--ahead", tmp_path / "late.csv"), "expected the 12 steps from 2024-02-20 00:00:00"),
    ):
        code, text = command(*forecast, *given)
        assert code == 2 and words in text, (given, text)
    model = api.load(artifacts["onnx"])
    window = np.zeros((1, LOOKBACK))
    with pytest.raises(DataError, match="the input column 'price' is missing, expected 60 values"):
        model.forecast(window)
    with pytest.raises(DataError, match="expected 60 finite values: the lookback, then the horizon"):
        model.forecast(window, columns={"price": np.zeros(HORIZON)})


def test_what_cannot_be_is_refused(artifacts: dict[str, Path], tables: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inputs beside the window, whose effect an update cannot solve"):
        api.update(artifacts["onnx"], tables / "past.csv", out=tmp_path / "new")
    with pytest.raises(RecipeError, match="this pipeline does not learn from a calendar or from columns"):
        api.plan(api.make_recipe(data=tables / "past.csv", calendar=True, student="itransformer"))
    with pytest.raises(UsageError, match="'load' is named twice"):
        api.compile(data=tables / "past.csv", variates="load", known_columns="load", lookback=48, horizon=12)


def test_a_manifest_with_other_inputs_is_refused(artifacts: dict[str, Path]) -> None:
    from tsfmc.targets.artifact.device.errors import ArtifactError
    from tsfmc.targets.artifact.device.manifest import checked_manifest

    manifest = api.inspect(artifacts["onnx"])
    (group,) = manifest["task"]["inputs"]
    for changed in ({"width": 13}, {"kind": "sorcery"}, {"scale": 0.0}, {"name": "load"}, {"more": 1}):
        task = {**manifest["task"], "inputs": [{**group, **changed}]}
        with pytest.raises(ArtifactError, match=r"task\.inputs"):
            checked_manifest({**manifest, "task": task})


def test_what_has_no_inputs_is_timed_on_the_past_alone(artifacts: dict[str, Path]) -> None:
    found = api.bench(artifacts["c"], against="plain", scenario="stream", forms=["eager"], duration_s=0.2)
    (entry,) = found.measured
    assert api.inspect(artifacts["c"])["target"]["input_shape"] == [1, 1, LOOKBACK + HORIZON]
    assert entry["scenarios"]["stream"]["speedup_interval"]
