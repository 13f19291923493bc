"""bench: everything that runs here in one run, the rest under its emulator, and what is printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import MEAN, SHAPE, STD, VARIATES, make_artifact, make_model, make_windows, raw, reference

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import MissingError, UsageError, VerificationError
from tsfmc.compiler.driver import bench_formats
from tsfmc.compiler.driver.bench import Bench
from tsfmc.targets import TARGETS
from tsfmc.targets.artifact.write import seal, write_artifact

FAST: dict[str, Any] = {"duration_s": 0.0, "scenario": "stream"}
BUILT = {"name": "build_student", "config": {"kind": "dlinear", "config": {"normalisation": "instance"}}}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``out/onnx``, ``out/other`` of the same task, and ``out/tvm`` for an ARM processor."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    make_artifact(folder / "onnx", passes=[BUILT])
    make_artifact(folder / "other")
    cross_compiled(folder / "tvm")
    return folder


def cross_compiled(final: Path) -> None:
    target, model, windows = TARGETS["tvm"], make_model(), make_windows()

    def build(directory: Path) -> dict[str, Any]:
        options = target.Options(device="raspberry-pi-4")
        payload = target.lower_model(model, SHAPE, directory, options=options, calibration=windows)
        return {
            "target": {"kind": "tvm", "entry": payload.entry, **payload.details},
            "task": {"lookback": SHAPE.lookback, "horizon": SHAPE.horizon, "variates": list(VARIATES)},
            "input": {"mean": MEAN, "std": STD},
            "level": payload.level,
        }

    vectors = raw(windows[:3]), raw(reference(model, windows[:3]))
    write_artifact(final, build, engine_source=target.engine_source(), selftest=vectors)


@pytest.fixture(scope="module")
def whole(out: Path) -> Bench:
    return api.bench(out / "onnx", out / "tvm", against=str(out / "other"), duration_s=0.0)


def test_all_in_one_run_and_in_the_order_given(whole: Bench) -> None:
    here, elsewhere = whole.entries
    assert (here["name"], elsewhere["name"]) == ("out/onnx", "out/tvm")
    assert list(here["scenarios"]) == ["stream", "interval"] and here["host"]["cores"]
    for record in here["scenarios"].values():
        assert record["rival"]["name"] == "out/other" and record["speedup"] > 0
        assert "interleaved" in record["method"] and "rolled from those of the self-test" in record["method"]


def test_another_processors_program_is_checked_and_counted_and_never_timed(whole: Bench) -> None:
    elsewhere = whole.entries[1]
    assert "scenarios" not in elsewhere and elsewhere["level"] == "emulated"
    found = elsewhere["emulated"]
    assert found["runner"] == "qemu-aarch64-static" and found["selftest"]["passed"]
    # 3 variates x 32 x 8 products, four in an instruction, and what moves the numbers.
    assert 500 < found["instructions"] < 50_000
    assert not [name for name in json.dumps(elsewhere).split('"') if name.endswith("_us")]


def test_an_emulated_program_that_computes_something_else_is_an_error(out: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(out / "tvm", tmp_path / "tvm")
    wrong = np.load(tmp_path / "tvm/selftest/forecast.npy") + STD[:, None]
    np.save(tmp_path / "tvm/selftest/forecast.npy", wrong)
    manifest = api.inspect(out / "tvm")
    seal(tmp_path / "tvm", manifest)
    with pytest.raises(VerificationError, match="under qemu-aarch64-static the self-test differs"):
        api.bench(tmp_path / "tvm", **FAST)


def test_nothing_that_runs_or_is_emulated_here(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)  # neither compiler nor emulator
    with pytest.raises(MissingError, match="compiled for aarch64"):
        api.bench(out / "tvm", **FAST)
    assert "emulated" not in api.bench(out / "onnx", out / "tvm", **FAST).entries[1]


def test_the_plain_student_is_the_one_that_was_built(out: Path) -> None:
    (entry,) = api.bench(out / "onnx", against="plain", forms=("eager",), **FAST).entries
    record = entry["scenarios"]["stream"]
    assert record["plain"]["name"] == "eager" and record["speedup"] > 0 and "teacher" not in record
    with pytest.raises(UsageError, match="no pass that built a student"):
        api.bench(out / "other", against="plain", **FAST)


def test_refusals(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        api.bench(out / "onnx", out / "onnx", **FAST)
    with pytest.raises(UsageError, match="against itself"):
        api.bench(out / "onnx", against=str(out / "onnx"), **FAST)
    with pytest.raises(MissingError, match="there is no artifact"):
        api.bench(tmp_path / "none", **FAST)
    with pytest.raises(UsageError, match="unknown form 'eagre'"):
        api.bench(out / "onnx", against="teacher", forms=("eagre",), **FAST)
    with pytest.raises(UsageError, match="unknown scenario"):
        api.bench(out / "onnx", scenario="steam")
    make_artifact(
        tmp_path / "art",
        task={"lookback": 32, "horizon": 8, "variates": ["a", "b", "c"], "frequency": "h"},
    )
    with pytest.raises(UsageError, match=r"different tasks \(variates\)"):
        api.bench(out / "onnx", tmp_path / "art", **FAST)
    with pytest.raises(UsageError, match="does not name its teacher"):
        api.bench(out / "onnx", against="teacher", **FAST)


def test_a_teacher_that_travels_needs_no_weights(tmp_path: Path) -> None:
    from tsfmc.targets.forms import Model

    manifest = make_artifact(tmp_path / "art")
    file = Model(make_model(), make_windows()).onnx_file()
    TARGETS["onnx"].add_teacher(tmp_path / "art", file, make_windows())
    seal(tmp_path / "art", manifest)
    (entry,) = api.bench(tmp_path / "art", against="teacher", **FAST).entries
    record = entry["scenarios"]["stream"]
    assert [row["name"] for row in record["teachers"]] == ["onnx"]
    assert record["skipped"][0]["name"] == "eager" and "no weights" in record["skipped"][0]["reason"]


def test_entries_for_continuous_benchmarks(whole: Bench) -> None:
    entries = json.loads(json.dumps(bench_formats.github_action_benchmark(whole)))
    assert {"name", "unit", "value", "range", "extra"} == set.intersection(*(set(entry) for entry in entries))
    found = {entry["name"]: entry for entry in entries}
    record = whole.entries[0]["scenarios"]["stream"]
    assert found["out/onnx stream artifact p90"]["value"] == record["artifact"]["p90_us"]
    ratio = found["out/onnx stream artifact / out/other"]
    assert ratio["unit"] == "ratio" and ratio["value"] == pytest.approx(1 / record["speedup"])
    assert ratio["extra"] == record["method"]
    assert found["out/tvm instructions"]["unit"] == "instructions"


def test_a_table_has_a_line_for_every_candidate(whole: Bench) -> None:
    rows = bench_formats.table_rows(whole)
    assert all(len(row) == len(bench_formats.COLUMNS) for row in rows)
    assert [row[:3] for row in rows[:2]] == [
        ("out/onnx", "stream", "artifact"),
        ("out/onnx", "stream", "out/other"),
    ]
    assert rows[-1][0] == "out/tvm" and "correct" in rows[-1][1] and "no times" in rows[-1][1]
    lines = bench_formats.markdown(whole).splitlines()
    assert lines[0].startswith("| artifact | scenario |") and len(lines) == 2 + len(rows) + 1 + 2
    assert lines[-1].startswith("- stream: single-stream, batch 1")
