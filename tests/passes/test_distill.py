"""distill: what the objective says is what is trained, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import Pass, PassContext
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.compiler.learning.training import TrainingResult
from tsfmc.passes import distill
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill
from tsfmc.passes.record_teacher import RecordTeacher
from tsfmc.passes.weight_horizons import WeightHorizons

STUDENTS: dict[str, dict[str, Any]] = {
    "dlinear": {"embedding": 16},
    "itransformer": {"width": 16, "heads": 2, "ffn": 32},
}


def run(unit: CompileUnit, folder: Path, *passes: Pass) -> CompileUnit:
    return PassManager(passes).run(unit, PassContext(seed=3, workspace=folder))


def build(kind: str, **options: Any) -> BuildStudent:
    return BuildStudent(kind=kind, config=STUDENTS[kind], **options)


@pytest.mark.parametrize("kind", STUDENTS)
def test_all_lambdas_zero_is_plain_training_bit_for_bit(
    taught: CompileUnit, tmp_path: Path, kind: str
) -> None:
    zero = run(
        taught,
        tmp_path / "zero",
        build(kind, lambda_kd=0.0),
        WeightHorizons(tau=2.0),
        AlignTemporal(lambda_fta=0.0),
        Distill(epochs=2),
    )
    alone = taught.with_(teacher=None, teacher_store=None)
    plain = run(alone, tmp_path / "plain", build(kind), Distill(epochs=2))
    assert fingerprint(zero.model) == fingerprint(plain.model)


@pytest.mark.parametrize("kind", STUDENTS)
def test_every_mechanism_changes_the_student(taught: CompileUnit, tmp_path: Path, kind: str) -> None:
    """The ablations are pipelines without a pass, and they all give different students."""
    train = Distill(epochs=1)
    pipelines: dict[str, tuple[Pass, ...]] = {
        "supervised": (build(kind, lambda_kd=0.0), train),
        "uniform": (build(kind), train),
        "weighted": (build(kind), WeightHorizons(), train),
        "aligned": (build(kind), AlignTemporal(), train),
        "full": (build(kind), WeightHorizons(), AlignTemporal(), train),
    }
    weights = {
        name: fingerprint(run(taught, tmp_path / name, *passes).model) for name, passes in pipelines.items()
    }
    assert len(set(weights.values())) == len(pipelines)


def test_a_killed_run_goes_on_to_the_same_result(taught: CompileUnit, tmp_path: Path) -> None:
    whole = run(taught, tmp_path / "whole", build("itransformer"), Distill(epochs=3, patience=9))
    # Two epochs leave a checkpoint behind, as a run does that is killed in its third.
    run(taught, tmp_path / "killed", build("itransformer"), Distill(epochs=2, patience=9))
    resumed = run(taught, tmp_path / "killed", build("itransformer"), Distill(epochs=3, patience=9))
    assert fingerprint(whole.model) == fingerprint(resumed.model)
    assert whole.record[-1].metrics["validation"] == resumed.record[-1].metrics["validation"]


def test_best_epoch_is_restored_by_value(taught: CompileUnit, tmp_path: Path) -> None:
    unit = run(
        taught, tmp_path, build("dlinear"), Distill(epochs=6, learning_rate=0.05, averaging=0, patience=9)
    )
    metrics = unit.record[-1].metrics
    assert metrics["validation_mse"] == min(metrics["validation"][1:])
    windows = taught.data.windows("val", 48, 12)
    past, future = windows.batch(range(len(windows)))
    with torch.no_grad():
        error = float((unit.model(past) - future).square().mean())
    assert error == pytest.approx(metrics["validation_mse"], rel=1e-5)


def test_the_objective_is_empty_afterwards(taught: CompileUnit, tmp_path: Path) -> None:
    unit = run(taught, tmp_path, build("dlinear"), AlignTemporal(), Distill(epochs=1))
    assert unit.objective.terms == ()


def test_a_store_of_some_windows_is_paired_with_them(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch holds a window and what the teacher says of that window, not of its neighbour."""
    recorded = RecordTeacher(train_windows=7).run(unit, PassContext(workspace=tmp_path)).unit
    student = build("dlinear").run(recorded, PassContext(workspace=tmp_path)).unit
    seen: dict[str, Any] = {}

    def look(step: Any, *, windows: int, fetch: Any, **_: Any) -> TrainingResult:
        seen.update(count=windows, batch=fetch([3]))
        return TrainingResult((0.0,), (), 0)

    monkeypatch.setattr(distill, "train", look)
    Distill().run(student, PassContext(workspace=tmp_path))
    past, _, forecast = seen["batch"]
    every = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
    assert seen["count"] == 7 and torch.equal(past, every.batch([round(3 / 6 * (len(every) - 1))])[0])
    assert unit.teacher is not None
    with torch.inference_mode():
        torch.testing.assert_close(forecast, unit.teacher(past), rtol=1e-5, atol=1e-6)
