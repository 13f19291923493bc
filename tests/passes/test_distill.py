"""distill: what the objective says is what is trained, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import Pass, PassContext, RecipeView
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.passes import distill
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill, DistillStep
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


def test_what_there_is_nothing_to_train_with_is_refused(taught: CompileUnit, tmp_path: Path) -> None:
    built = run(taught, tmp_path, build("dlinear"))
    for lacking in (taught, built.with_(objective=taught.objective), taught.with_(objective=built.objective)):
        with pytest.raises(PassError, match="there is no student with an objective"):
            Distill().requires(lacking)
    with pytest.raises(PassError, match="there is no teacher store"):
        Distill().requires(built.with_(teacher_store=None))
    Distill().requires(built)


def test_the_budgets_of_the_student_are_those_of_the_branch() -> None:
    recipe = RecipeView({"kind": "auto", "max_macs": 5}, frozenset())
    assert Distill.follow(recipe) == {"max_macs": 5}


def test_windows_without_a_label_still_train_by_supervision(unit: CompileUnit, tmp_path: Path) -> None:
    """Each batch holds a window, what the teacher says of that window, and whether it says anything."""
    recorded = RecordTeacher(train_windows=7).run(unit, PassContext(workspace=tmp_path)).unit
    student = build("dlinear").run(recorded, PassContext(workspace=tmp_path)).unit
    every = unit.data.windows("train", unit.task.lookback, unit.task.horizon)
    step = DistillStep(student.student, student.objective)  # type: ignore[arg-type]
    fetch = distill._reader(step, student, torch.arange(len(every)))
    at = [round(3 / 6 * (len(every) - 1)), 1]
    past, future, forecast, labelled = fetch(at)
    assert torch.equal(past, every.batch(at)[0]) and labelled.tolist() == [True, False]
    assert unit.teacher is not None
    with torch.inference_mode():
        torch.testing.assert_close(forecast[:1], unit.teacher(past[:1]), rtol=1e-5, atol=1e-6)
    losses = step(past, future, forecast, labelled)
    alone = step(past[:1], future[:1], forecast[:1])
    torch.testing.assert_close(losses["supervised"], (step.student(past) - future).square().mean())
    # Half of the batch has a label: its KD counts half, as the mean over both windows.
    torch.testing.assert_close(losses["kd"], alone["kd"] / 2)
    none = step(past[1:], future[1:], forecast[1:], labelled[1:])
    assert none["kd"].item() == 0 and torch.equal(none["loss"], none["supervised"])


def test_both_rows_see_the_same_windows_in_as_many_steps(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    plain = DistillStep.forward

    def look(step: DistillStep, past: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        seen.append(past)
        return plain(step, past, *rest)

    monkeypatch.setattr(DistillStep, "forward", look)
    recorded = RecordTeacher(train_windows=7).run(unit, PassContext(workspace=tmp_path)).unit
    rows = []
    for name, start in (("distilled", recorded), ("supervised", unit.with_(teacher=None))):
        seen.clear()
        run(start, tmp_path / name, build("dlinear"), Distill(epochs=2))
        rows.append(list(seen))
    assert len(rows[0]) == len(rows[1]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*rows, strict=True))
