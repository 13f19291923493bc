"""finetune: the grid, the best state by value, a killed run; and pruning before it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_teachers import tiny_teacher

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.recipe import resolve
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.compiler.learning.cost import validation_mse
from tsfmc.passes import PASSES
from tsfmc.passes.drop_dead_weights import DropDeadWeights
from tsfmc.passes.finetune import Finetune, FinetuneStep, freeze_unused
from tsfmc.passes.prune_channels import PruneChannels


def tune(unit: CompileUnit, folder: Path, **options: Any) -> CompileUnit:
    return PassManager([Finetune(**options)]).run(unit, PassContext(seed=3, workspace=folder))


def teacher_of(unit: CompileUnit) -> Teacher:
    assert unit.teacher is not None
    return unit.teacher


def test_the_grid_is_judged_on_validation(unit: CompileUnit, tmp_path: Path) -> None:
    before = fingerprint(teacher_of(unit))
    after = tune(unit, tmp_path, epochs=3, learning_rates=(1e-5, 3e-3))
    metrics = after.record[0].metrics
    assert metrics["learning_rate"] == 3e-3 and metrics["validation"] < metrics["validation_before"]
    assert metrics["validation"] == min(min(row["validation"]) for row in metrics["grid"])
    assert validation_mse(teacher_of(after), after) == pytest.approx(metrics["validation"], rel=1e-6)
    assert fingerprint(teacher_of(unit)) == before
    assert after.original_teacher is unit.teacher and not teacher_of(after).training


def test_the_best_epoch_is_restored_not_the_last(unit: CompileUnit, tmp_path: Path) -> None:
    """A rate that overshoots: later epochs are worse, and are not what comes back."""
    after = tune(unit, tmp_path, epochs=6, learning_rates=(0.02,), patience=6)
    metrics = after.record[0].metrics
    losses = metrics["grid"][0]["validation"]
    assert metrics["best_epoch"] == losses.index(min(losses)) != len(losses) - 1
    assert validation_mse(teacher_of(after), after) == pytest.approx(min(losses), rel=1e-6)


def test_the_untrained_teacher_is_a_candidate(unit: CompileUnit, tmp_path: Path) -> None:
    after = tune(unit, tmp_path, epochs=1, learning_rates=(30.0,))
    assert after.teacher is unit.teacher and not after.record[0].modified
    assert after.record[0].metrics["best_epoch"] == 0


def test_no_epochs_is_the_identity(unit: CompileUnit, tmp_path: Path) -> None:
    assert tune(unit, tmp_path, epochs=0).teacher is unit.teacher


class Killed(Exception):
    pass


class Kill(Silent):
    """Stops the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left < 0:
            raise Killed

    @contextmanager
    def task(self, title: str, total: int) -> Any:
        yield self


@pytest.mark.parametrize("steps", [20, 45])
def test_a_killed_run_goes_on(unit: CompileUnit, tmp_path: Path, steps: int) -> None:
    step = Finetune(epochs=2, learning_rates=(1e-3, 3e-3))
    whole = step.run(unit, PassContext(3, tmp_path / "whole"))
    with pytest.raises(Killed):
        step.run(unit, PassContext(3, tmp_path / "killed", Kill(steps)))
    resumed = step.run(unit, PassContext(3, tmp_path / "killed"))
    assert resumed.metrics == whole.metrics
    assert fingerprint(teacher_of(resumed.unit)) == fingerprint(teacher_of(whole.unit))


def test_weights_are_trained_in_float32(unit: CompileUnit, tmp_path: Path) -> None:
    half = unit.with_(teacher=teacher_of(unit).bfloat16())
    step = Finetune(epochs=1, learning_rates=(3e-3,))
    after = step.run(half, PassContext(3, tmp_path)).unit
    assert {parameter.dtype for parameter in teacher_of(after).parameters()} == {torch.float32}


def test_prune_then_finetune_recovers(unit: CompileUnit, tmp_path: Path) -> None:
    """On a trained teacher: pruning costs accuracy, fine-tuning gives it back, the size stays small."""
    trained = tune(unit, tmp_path / "trained", epochs=8, learning_rates=(3e-3,), patience=8)
    passes = [
        DropDeadWeights(),
        PruneChannels(rho=2.0, epochs=1, tolerance=1e9, round_to=1, floor=1),
        Finetune(epochs=4, learning_rates=(1e-3, 3e-3)),
    ]
    after = PassManager(passes).run(trained, PassContext(seed=3, workspace=tmp_path / "pruned"))
    pruned, tuned = after.record[-2].metrics, after.record[-1].metrics
    assert pruned["validation"] > pruned["validation_before"]
    assert tuned["validation"] < pruned["validation"]
    assert parameter_count(teacher_of(after)) == pruned["parameters"] < pruned["parameters_before"]
    assert after.model is after.teacher and after.original_teacher is unit.teacher


@pytest.mark.parametrize(
    ("family", "unused"), [("time-moe", "lm_heads.3"), ("chronos-bolt", "SelfAttention.q")]
)
def test_weights_without_effect_are_not_trained(family: str, unused: str) -> None:
    teacher = tiny_teacher(family)
    past = torch.randn(1, teacher.variates, teacher.lookback)
    freeze_unused(FinetuneStep(teacher), (past, torch.zeros(1, teacher.variates, teacher.horizon)))
    frozen = [name for name, parameter in teacher.named_parameters() if not parameter.requires_grad]
    assert any(unused in name for name in frozen)
    assert all(name.startswith(("lm_heads.", "decoder.block.")) for name in frozen)


def test_the_preset_without_student_lists_the_passes() -> None:
    recipe = resolve(settings=["student.kind=none"])
    assert recipe.pipeline == ("drop_dead_weights", "prune_channels", "finetune", "add_quantiles")
    assert all(name in PASSES for name in recipe.pipeline) and not recipe.baseline


def test_refusals(unit: CompileUnit, taught: CompileUnit, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no teacher to fine-tune"):
        tune(unit.with_(teacher=None), tmp_path)
    with pytest.raises(PassError, match="already recorded"):
        tune(taught, tmp_path)


def test_options_without_a_meaning_are_refused() -> None:
    none = {"epochs": 0, "train_windows": 0, "validation_windows": 0, "weight_decay": 0.0}
    assert Finetune(**none).config() == {**Finetune().config(), **none}
    wrong = dict.fromkeys(none, -1) | {"learning_rates": (), "batch_size": 0, "patience": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            Finetune(**{name: value})
