"""A fleet's artifact forecasts an item by its id, an unknown one by the fleet's head, and can be cut down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factory import HORIZON as H
from factory import LOOKBACK as L
from factory import write_panel, write_teacher

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import DataError, UsageError, VerificationError
from tsfmc.targets.artifact.device.fleet import Fleet
from tsfmc.targets.artifact.write import seal

QUICK = ("measure.duration_s=0.05", 'pipeline=["build_student","solve_fleet"]')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``meters.csv`` of two kinds of items, and ``items/onnx`` with a head each."""
    where = tmp_path_factory.mktemp("fleet")
    write_panel(where / "meters.csv", items=10, apart=1.0)
    api.compile(
        write_teacher(where / "teacher", 1),
        where / "meters.csv",
        "onnx",
        out=where / "items",
        lookback=L,
        horizon=H,
        holdout_items=0.2,
        baseline=False,
        cache=False,
        set=(*QUICK, 'passes.solve_fleet.heads="items"', "passes.solve_fleet.ranks=[7]"),
    )
    return where


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Path:
    return folder / "items" / "onnx"


def last_windows(folder: Path) -> dict[str, np.ndarray]:
    frame = pd.read_csv(folder / "meters.csv")
    return {name: own.y.to_numpy()[-L:] for name, own in frame.groupby("unique_id")}


def direct(artifact: Path, past: np.ndarray, slot: int) -> np.ndarray:
    """The forecast of a slot's weights, which travel with the artifact."""
    basis, heads = (np.load(artifact / "fleet" / f"{name}.npy") for name in ("basis", "heads"))
    return past @ basis.astype(float) @ heads[slot].astype(float)


def test_an_item_gets_its_head_and_an_unknown_one_the_fleets(folder: Path, artifact: Path) -> None:
    model = api.load(artifact)
    assert model.fleet is not None and len(model.fleet) == 8 and model.fleet.slots == 9
    windows = last_windows(folder)
    known = [name for name in windows if name in model.fleet]
    slots = [model.fleet.known(name)[0] for name in known]
    assert sorted(slots) == list(range(1, 9))
    for name, slot in zip(known, slots, strict=True):
        expected = direct(artifact, windows[name], slot)
        scale = np.abs(windows[name]).max()
        np.testing.assert_allclose(model.forecast(windows[name], name), expected, atol=2e-5 * scale)
    for name in set(windows) - set(known):
        expected = direct(artifact, windows[name], 0)
        np.testing.assert_allclose(model.forecast(windows[name], name), expected, atol=1e-3)
    names = [*known, known[0], "nobody"]
    past = np.stack([windows.get(name, windows[known[1]]) for name in names])
    many = model.forecast(past, names)
    for at, name in enumerate(names):
        np.testing.assert_allclose(many[at], model.forecast(past[at], name), rtol=1e-6, atol=1e-6)
    assert not np.allclose(many[0], model.forecast(past[0], "nobody"))


def test_an_unknown_item_finds_the_head_that_fits_its_rows(folder: Path, artifact: Path) -> None:
    """Two kinds of items: with its history a stranger is forecast as its own kind, without as everybody."""
    model = api.load(artifact)
    assert model.fleet is not None
    frame = pd.read_csv(folder / "meters.csv")
    own = frame[frame.unique_id == next(n for n in ("m1", "m3", "m5") if n in model.fleet)]
    history = 3 * own.y.to_numpy() + 100
    expected = model.forecast(own.y.to_numpy()[-L:], own.unique_id.iloc[0]) * 3 + 100
    long, short = model.forecast(history, "stranger"), model.forecast(history[-L:], "stranger")
    size = np.abs(history - history.mean()).max()
    assert np.abs(long - expected).max() < np.abs(short - expected).max() / 2 < size


def test_the_manifest_says_what_the_fleet_is_worth_to_items_it_never_saw(artifact: Path) -> None:
    fleet = api.inspect(artifact)["fleet"]
    assert (fleet["items"], fleet["slots"]) == (8, 9)
    assert fleet["columns"] == {"id": "unique_id", "time": "ds", "values": ["y"]}
    held = fleet["held_out"]
    assert held["items"] == 2 and held["student"]["windows"] == held["seasonal_naive"]["windows"] > 0
    assert held["student"]["mse"] != api.inspect(artifact)["accuracy"]["test"]["student"]["mse"]


def test_the_accuracy_of_the_manifest_is_that_of_the_items_own_heads(folder: Path, artifact: Path) -> None:
    """From the file, item by item: the test part is the last fifth of the calendar."""
    model, frame = api.load(artifact), pd.read_csv(folder / "meters.csv", parse_dates=["ds"])
    assert model.fleet is not None
    calendar = int((frame.ds.max() - frame.ds.min()) / pd.Timedelta("1h")) + 1
    border = frame.ds.min() + pd.Timedelta(hours=calendar - int(0.2 * calendar))
    squares = []
    for name, own in frame.groupby("unique_id"):
        if name not in model.fleet:
            continue
        _, _, std = model.fleet.known(str(name))
        values, first = own.y.to_numpy(), int((own.ds < border).sum())
        for future in range(first, len(values) - H + 1):
            error = model.forecast(values[future - L : future], str(name)) - values[future : future + H]
            squares.append(float((error**2).mean()) / std**2)
    told = model.manifest["accuracy"]["test"]["student"]
    assert told["windows"] == len(squares)
    assert told["mse"] == pytest.approx(np.mean(squares), rel=1e-4)


def test_commands_read_the_long_format(folder: Path, artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(artifact / "run.py"), "forecast", str(folder / "meters.csv")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = pd.read_csv(pd.io.common.StringIO(ran.stdout))
    assert list(found.columns) == ["unique_id", "ds", "y"] and len(found) == 10 * H
    assert "2 of 10 items are unknown to this artifact and have the head that fits" in ran.stderr
    one = subprocess.run([*command, "--id", "m3"], capture_output=True, text=True, check=True)
    own = pd.read_csv(pd.io.common.StringIO(one.stdout))
    pd.testing.assert_frame_equal(own, found[found.unique_id == "m3"].reset_index(drop=True))
    last = pd.read_csv(folder / "meters.csv").query("unique_id == 'm3'").ds.iloc[-1]
    assert pd.Timestamp(own.ds[0]) - pd.Timestamp(last) == pd.Timedelta("1h")
    bad = subprocess.run([*command, "--id", "m99"], capture_output=True, text=True)
    assert bad.returncode == 2 and "has no row of item 'm99'" in bad.stderr
    parquet, out = tmp_path / "meters.parquet", tmp_path / "out.parquet"
    pd.read_csv(folder / "meters.csv").to_parquet(parquet)
    given = ["forecast", str(artifact), "--data", str(parquet), "--output", str(out)]
    subprocess.run([sys.executable, "-m", "tsfmc", *given], check=True, capture_output=True)
    np.testing.assert_allclose(pd.read_parquet(out).y, found.y, rtol=1e-6)


def test_an_item_can_be_cut_out(folder: Path, artifact: Path, tmp_path: Path) -> None:
    model, windows = api.load(artifact), last_windows(folder)
    assert model.fleet is not None
    item = next(name for name in windows if name in model.fleet)
    path = api.package(artifact, out=tmp_path / "own.tsfmc", id=item)
    assert len(api.verify(path)) == 2
    own = api.load(path)
    assert own.fleet is None and own.variates == (item,)
    assert own.manifest["fleet_member"]["item"] == item
    scale = np.abs(windows[item]).max()
    np.testing.assert_allclose(
        own.forecast(windows[item][None])[0], model.forecast(windows[item], item), atol=2e-5 * scale
    )
    with pytest.raises(UsageError, match="has no item 'm99', it has 8 items"):
        api.package(artifact, out=tmp_path / "other.tsfmc", id="m99")
    with pytest.raises(UsageError, match="is no fleet's"):
        api.package(path, out=tmp_path / "again.tsfmc", id=item)


def test_wrong_questions_are_refused(folder: Path, artifact: Path) -> None:
    model, past = api.load(artifact), last_windows(folder)["m0"]
    with pytest.raises(DataError, match=r"past has shape \[47\], expected finite numbers of shape \[48\]"):
        model.forecast(past[1:], "m0")
    with pytest.raises(DataError, match="expected finite numbers"):
        model.forecast(np.where(np.arange(L) == 3, np.nan, past), "m0")
    with pytest.raises(DataError, match="expected finite numbers"):
        model.forecast(past[None], ["m0", "m1"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids.json", b'["m0", "m0"]', "1 different names"),
        ("ids.json", b'{"m0": 1}', "expected a list of 1 to"),
        ("ids.json", b'[["m0"]]', "expected names of up to"),
        ("ids.json", b"[" + b'"m", ' * 3, "not valid JSON"),
        ("table.npy", np.array([[9.0, 0, 1]] * 8), "expected slots from 0 to 8"),
        ("table.npy", np.array([[-1.0, 0, 1]] * 8), "expected slots from 0 to 8"),
        ("table.npy", np.array([[0.5, 0, 1]] * 8), "expected slots from 0 to 8"),
        ("table.npy", np.array([[1.0, 0, 0]] * 8), "expected deviations above 0"),
        ("table.npy", np.array([[1.0, np.inf, 1]] * 8), "not finite"),
        ("table.npy", np.array([[1.0, 0, 1]] * 7), "8 different names, fleet/table.npy 7 rows"),
        ("table.npy", np.zeros((8, 2)), r"expected float64 \[N, 3\]"),
        ("table.npy", np.zeros((8, 3), dtype="f4"), r"expected float64 \[N, 3\]"),
        ("table.npy", b"\x93NUMPY", "not a plain array"),
    ],
)
def test_a_made_up_table_is_refused(
    artifact: Path, tmp_path: Path, name: str, content: bytes | np.ndarray, message: str
) -> None:
    """Sealed by whoever made it up, so the hashes fit."""
    copy = tmp_path / "onnx"
    shutil.copytree(artifact, copy)
    if isinstance(content, bytes):
        (copy / "fleet" / name).write_bytes(content)
    else:
        np.save(copy / "fleet" / name, content)
    fields = json.loads((copy / "manifest.json").read_text())
    seal(copy, fields)
    with pytest.raises(VerificationError, match=message):
        api.load(copy)


def test_slots_are_filled_in_few_calls() -> None:
    """Windows of different items share a call, those of one slot follow each other."""
    fleet = Fleet.__new__(Fleet)
    fleet.slots = 3
    calls = []

    def run(placed: np.ndarray) -> np.ndarray:
        calls.append(placed.shape)
        return placed[..., :2] * np.array([1, 10, 100])[:, None]

    past = np.arange(5)[:, None] + np.zeros(4)
    found = fleet._in_slots(run, past, np.array([0, 2, 0, 1, 0]))
    assert calls == [(3, 3, 4)]
    np.testing.assert_array_equal(found, [[0, 0], [100, 100], [2, 2], [30, 30], [4, 4]])
