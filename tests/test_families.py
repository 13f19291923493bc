"""The whole compile with a tiny random checkpoint of every own family: student, and the teacher itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from factory import write_series
from tiny_teachers import HAVE_DEAD_WEIGHTS, TINY, tiny_teacher

import tsfmc
from tsfmc.compiler.frontends import load_teacher, save_teacher
from tsfmc.compiler.ir.forecaster import parameter_count

QUICK = ["measure.duration_s=0.2"]


@pytest.mark.parametrize("student", ["itransformer", "none"])
@pytest.mark.parametrize("family", TINY)
def test_compile(tmp_path: Path, family: str, student: str) -> None:
    _, lookback, horizon = TINY[family]
    save_teacher(tiny_teacher(family), tmp_path / "teacher")
    trained = ["student.width=16", "student.heads=2", "student.ffn=32", "passes.distill.epochs=1"]
    size = trained if student == "itransformer" else []
    # The teacher itself: the cheap exact pass only; pruning and fine-tuning have tests of their own.
    alone = ['pipeline=["drop_dead_weights", "record_teacher"]'] if student == "none" else []
    forms = ["measure.teacher_forms=['eager']"] if student == "none" else []
    result = tsfmc.compile(
        teacher=tmp_path / "teacher",
        data=write_series(tmp_path / "series.csv", rows=400, variates=2),
        target="onnx",
        student=student,
        lookback=lookback,
        horizon=horizon,
        baseline=False,
        out=tmp_path / "out",
        set=[*QUICK, *size, *alone, *forms],
    )
    manifest = result.manifests["onnx"]
    assert manifest["level"] == "executed" and manifest["parity"]["passed"]
    assert manifest["teacher"]["family"] == family
    for record in manifest["latency"]["scenarios"].values():
        assert record["speedup"] > 0 and "skipped" not in record, "every family has an ONNX form"
        assert [row["name"] for row in record["teachers"]] == ["eager", *["onnx"] * (student != "none")]
    assert {"student", "teacher", "seasonal_naive"} <= set(manifest["accuracy"]["test"])
    if student == "none":
        # The artifact is the teacher: equal accuracy, as far as float32 goes.
        rows = manifest["accuracy"]["test"]
        assert rows["student"]["mse"] == pytest.approx(rows["teacher"]["mse"], rel=1e-4)
        # What a pass has changed is left as a checkpoint too.
        assert (result.teacher is not None) == (family in HAVE_DEAD_WEIGHTS)
        if result.teacher is not None:
            left = load_teacher(result.teacher)
            assert parameter_count(left) == manifest["student"]["parameters"]
    past = tsfmc.load(result.artifacts["onnx"]).example_windows(2)
    assert tsfmc.load(result.artifacts["onnx"]).forecast(past).shape == (2, 2, horizon)
