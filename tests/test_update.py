"""From no data to an artifact, and from an artifact and new rows to a better one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factory import HORIZON, LOOKBACK, write_series, write_teacher

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import DataError, MissingError, UsageError, VerificationError
from tsfmc.compiler.driver.keeping import waiting
from tsfmc.compiler.driver.summary import summary_lines
from tsfmc.compiler.ir.quantiles import QuantileHead, Spread
from tsfmc.compiler.learning.affine import Setting
from tsfmc.compiler.learning.update import FILE, Header, State, read_state, save_state, state_of
from tsfmc.targets import TARGETS

SPAN = LOOKBACK + HORIZON
QUICK = ("measure.duration_s=0.05", "measure.teacher_forms=['eager']")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, 1,100 rows of which the first 700 are old, and artifacts with and without data."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSFMC_CACHE", str(folder / "cache"))
        frame = pd.read_csv(write_series(folder / "all.csv", rows=1100, variates=2))
        frame[:700].to_csv(folder / "old.csv", index=False)
        frame[700:].to_csv(folder / "new.csv", index=False)
        frame[700:900].to_csv(folder / "new1.csv", index=False)
        frame[900:].to_csv(folder / "new2.csv", index=False)
        teacher = write_teacher(folder / "teacher", variates=2)
        task = {"teacher": teacher, "lookback": LOOKBACK, "horizon": HORIZON, "set": QUICK}
        api.compile(data=folder / "old.csv", out=folder / "out", baseline=False, **task)
        api.compile(data="synthetic", step="h", variates="v0,v1", out=folder / "free", **task)
    return folder


def test_an_artifact_without_data_forecasts_and_claims_nothing(world: Path) -> None:
    model = api.load(world / "free" / "onnx")
    accuracy = model.manifest["accuracy"]
    assert accuracy["test"] == {} and "nothing was measured on real data" in accuracy["unmeasured"]
    assert (
        model.manifest["parity"]["passed"]
        and model.manifest["latency"]["scenarios"]["stream"]["artifact"]["p50_us"] > 0
    )
    assert model.manifest["task"]["frequency"] == "h" and model.variates == ("v0", "v1")
    assert any("nothing was measured on real data" in line for line in summary_lines(model.manifest))
    solved = next(entry for entry in model.manifest["passes"] if entry["name"] == "solve_affine")
    assert solved["metrics"]["lambda"] == "inf"
    # Equivariant to shift and scale, since it never saw any.
    past = pd.read_csv(world / "new.csv")[["v0", "v1"]].to_numpy()[:LOOKBACK].T
    assert np.allclose(model.forecast(3 * past + 7), 3 * model.forecast(past) + 7, rtol=1e-3)


def test_two_updates_equal_one_bit_for_bit(world: Path, tmp_path: Path) -> None:
    for start in ("out", "free"):
        once = api.update(world / start / "onnx", world / "new.csv", tmp_path / start / "once")
        first = api.update(world / start / "onnx", world / "new1.csv", tmp_path / start / "first")
        second = api.update(first.artifact, world / "new2.csv", tmp_path / start / "second")
        for name in ("statistics.safetensors", "onnx/model.onnx"):
            one, two = (tmp_path / start / step / name for step in ("once", "second"))
            assert one.read_bytes() == two.read_bytes(), name
        assert once.manifest["updated"]["rows"] == 400
        assert second.manifest["updated"]["rows"] == 200
        assert second.manifest["updated"]["rows_of_all_updates"] == 400


def test_an_updated_artifact_has_its_own_claims_alone(world: Path, tmp_path: Path) -> None:
    result = api.update(world / "out" / "onnx", world / "new.csv", tmp_path / "o")
    manifest = result.manifest
    assert manifest["accuracy"]["test"] == {}
    assert (
        manifest["parity"]["passed"] and manifest["latency"]["scenarios"]["stream"]["artifact"]["p50_us"] > 0
    )
    assert manifest["updated"]["last_row"].startswith("2024-02-15T19:00:00")
    before = manifest["updated"]["old_artifact_on_new_rows"]
    assert before["windows"] == 400 - HORIZON + 1
    rows, model = pd.read_csv(world / "all.csv")[["v0", "v1"]].to_numpy(), api.load(world / "out" / "onnx")
    scale = np.array(model.manifest["input"]["std"])[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(rows[700 - LOOKBACK :], SPAN, axis=0)
    error = (model.forecast(windows[..., :LOOKBACK]) - windows[..., LOOKBACK:]) / scale
    assert before["mse"] == pytest.approx((error**2).mean(), rel=1e-6)
    assert any("before: MSE" in line for line in summary_lines(manifest))


def test_new_rows_make_an_artifact_without_data_better(world: Path, tmp_path: Path) -> None:
    """Judged on rows that neither has seen; this teacher knows nothing, so there is much to learn."""
    artifact = api.update(world / "free" / "onnx", world / "new1.csv", tmp_path / "o").artifact
    rows = pd.read_csv(world / "new2.csv")[["v0", "v1"]].to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(rows, SPAN, axis=0)
    past, future = windows[..., :LOOKBACK], windows[..., LOOKBACK:]

    def error(path: Path) -> float:
        return float(((api.load(path).forecast(past) - future) ** 2).mean())

    assert error(artifact) < 0.8 * error(world / "free" / "onnx")


def test_rows_that_do_not_fit_are_refused(world: Path, tmp_path: Path) -> None:
    artifact = world / "out" / "onnx"
    with pytest.raises(UsageError, match=r"are in the statistics already"):
        api.update(artifact, world / "old.csv", tmp_path / "o")
    with pytest.raises(UsageError, match=r"a gap after the last row"):
        api.update(artifact, world / "new2.csv", tmp_path / "o")
    frame = pd.read_csv(world / "new.csv")
    frame.drop(columns="v1").to_csv(tmp_path / "narrow.csv", index=False)
    with pytest.raises(UsageError, match=r"unknown variate of narrow\.csv 'v1'"):
        api.update(artifact, tmp_path / "narrow.csv", tmp_path / "o")
    frame[::2].to_csv(tmp_path / "sparse.csv", index=False)
    with pytest.raises(UsageError, match="has step 2h, the statistics have h"):
        api.update(artifact, tmp_path / "sparse.csv", tmp_path / "o")
    frame[: SPAN - 1].to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(UsageError, match=f"{SPAN - 1} rows, the first update needs {SPAN}"):
        api.update(world / "free" / "onnx", tmp_path / "short.csv", tmp_path / "o")
    with pytest.raises(DataError, match="does not exist"):
        api.update(artifact, tmp_path / "nothing.csv", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_statistics_that_are_not_the_artifacts_are_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "out" / "onnx", tmp_path / "alone")
    with pytest.raises(MissingError, match="no statistics beside the artifact"):
        api.update(tmp_path / "alone", world / "new.csv", tmp_path / "o")
    other = api.update(world / "out" / "onnx", world / "new1.csv", tmp_path / "other").artifact
    shutil.copy(other.parent / "statistics.safetensors", tmp_path)
    with pytest.raises(VerificationError, match="not the statistics that"):
        api.update(tmp_path / "alone", world / "new.csv", tmp_path / "o")


def test_an_update_in_place_that_fails_leaves_what_was_there(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world / "out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(TARGETS["onnx"], "tolerance", -1.0)  # nothing is that close: the check fails
        with pytest.raises(VerificationError, match="departs from the model"):
            api.update(out / "onnx", world / "new1.csv", out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    api.update(out / "onnx", world / "new1.csv", out)
    # Killed after the artifact was in place and before its statistics were: they wait beside it.
    (out / FILE).rename(waiting(out / FILE))
    (out / FILE).write_bytes(before[out / FILE])
    second = api.update(out / "onnx", world / "new2.csv", out)
    assert second.manifest["updated"]["rows_of_all_updates"] == 400
    assert not waiting(out / FILE).exists()


def test_a_compile_may_leave_no_statistics(world: Path, tmp_path: Path) -> None:
    task = {"teacher": world / "teacher", "lookback": LOOKBACK, "horizon": HORIZON, "baseline": False}
    api.compile(data=world / "old.csv", out=tmp_path / "o", set=(*QUICK, "statistics=false"), **task)
    assert not (tmp_path / "o" / "statistics.safetensors").exists()
    with pytest.raises(MissingError, match="its compile left no statistics"):
        api.update(tmp_path / "o" / "onnx", world / "new.csv", tmp_path / "p")


def test_a_step_is_for_synthetic_data_alone(world: Path) -> None:
    with pytest.raises(UsageError, match="a file says its own step"):
        api.compile(
            teacher=world / "teacher", data=world / "old.csv", step="h", lookback=LOOKBACK, horizon=HORIZON
        )


def test_an_update_keeps_the_quantiles(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their offsets stay, in units of the window's spread, around the median of the new student."""
    monkeypatch.setenv("TSFMC_CACHE", str(world / "cache"))
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON, "set": QUICK, "baseline": False}
    old = api.compile(
        data=world / "old.csv",
        teacher=world / "teacher",
        quantiles="0.1,0.5,0.9",
        out=tmp_path / "old",
        **sizes,
    )
    assert old.artifacts
    before = api.load(tmp_path / "old" / "onnx")
    result = api.update(tmp_path / "old" / "onnx", world / "new.csv", tmp_path / "new")
    after = api.load(result.artifact)
    assert after.quantile_levels == (0.1, 0.5, 0.9)
    assert "units of each window's spread" in result.manifest["updated"]["quantiles"]
    past = pd.read_csv(world / "new.csv")[["v0", "v1"]].to_numpy()[:LOOKBACK].T
    one, two = before.forecast(past), after.forecast(past)
    assert np.abs(one[..., 1] - two[..., 1]).max() > 1e-3 * np.abs(one).max()
    np.testing.assert_allclose(one - one[..., 1:2], two - two[..., 1:2], atol=1e-4 * np.abs(one).max())
    # An artifact with quantiles beside statistics without any.
    state, _ = read_state(tmp_path / "new" / FILE)
    save_state(replace(state, head=None), tmp_path / "new" / FILE)
    with pytest.raises(VerificationError, match=r"statistics of quantiles \[\], the artifact has \[0\.1"):
        api.update(result.artifact, world / "new2.csv", tmp_path / "newer")


def test_statistics_with_a_head_that_crosses_are_refused(tmp_path: Path) -> None:
    head = QuantileHead(1, 2, (0.1, 0.5, 0.9), Spread("deviation"))
    save_state(state_with(head), tmp_path / FILE)
    with pytest.raises(VerificationError, match="its quantiles cross"):
        read_state(tmp_path / FILE)
    good = QuantileHead.of(torch.tensor([[[-1.0, 0.0, 1.0]] * 2]), head.levels, head.spread)
    save_state(state_with(good), tmp_path / FILE)
    kept = read_state(tmp_path / FILE)[0].head
    assert kept is not None and kept.spread == good.spread and torch.equal(kept.offsets, good.offsets)


def state_with(head: QuantileHead) -> State:
    """Of nothing but zeros, with a head for one variate and two steps."""
    zeros = np.zeros((0, 1))
    header = Header(3, 2, ("a",), "h", None, Setting(), 0, "", {})
    return replace(state_of(header, None, None, zeros, zeros, Setting()), head=head)
