"""The sentences a user acts on: right in sign, in figures, and silent about what cannot be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.verdict import accuracy_part, sentences, signed, training_notes
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, PassRecord
from tsfmc.compiler.learning.compare import Comparison
from tsfmc.compiler.learning.evaluate import Accuracy
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill
from tsfmc.passes.finetune import Finetune


def found(relative: float, low: float | None = None, high: float | None = None) -> Comparison:
    interval = None if low is None or high is None else (low, high)
    return Comparison(relative / 2, relative, interval, interval, 1000, 100, "somehow")


def entry(name: str, config: dict[str, Any] | None = None, **metrics: Any) -> PassRecord:
    return PassRecord(name, config or {}, True, 1.0, metrics)


@pytest.mark.parametrize(
    ("comparison", "weight", "expected"),
    [
        (found(-0.032, -0.05, -0.011), 1.0, "the teacher lowers the error by 3.2 % [1.1, 5.0]"),
        (found(-0.032, -0.05, -0.011), None, "the teacher lowers the error by 3.2 % [1.1, 5.0]"),
        (
            found(0.021, 0.008, 0.034),
            0.5,
            "the teacher raises the error by 2.1 % [0.8, 3.4]; the student without the teacher is better",
        ),
        (
            found(-0.004, -0.012, 0.005),
            2.0,
            "no measurable difference with and without the teacher: error -0.4 % [-1.2, +0.5]",
        ),
        (found(1e-7, -1e-7, 2e-7), 0.0, "the teacher does not help on this data: lambda 0 was chosen"),
        (
            found(0.01, 0.005, 0.02),
            0.0,
            "the teacher does not help on this data: lambda 0 was chosen "
            "(+1.0 % [+0.5, +2.0] against the student without the teacher)",
        ),
        (
            found(-0.032),
            1.0,
            "the teacher lowers the error by 3.2 % (the test split is too short for an interval)",
        ),
    ],
)
def test_what_the_teacher_gave(comparison: Comparison, weight: float | None, expected: str) -> None:
    assert list(sentences({"supervised": comparison}, weight)) == [expected]


@pytest.mark.parametrize(
    ("rival", "comparison", "expected"),
    [
        ("teacher", found(-0.1, -0.2, -0.05), "better than the teacher by 10.0 % [5.0, 20.0]"),
        ("teacher", found(0.1, 0.05, 0.2), "worse than the teacher by 10.0 % [5.0, 20.0]"),
        (
            "teacher",
            found(0.1, -0.05, 0.2),
            "no measurable difference from the teacher: error +10.0 % [-5.0, +20.0]",
        ),
        (
            "seasonal_naive",
            found(-0.5, -0.6, -0.4),
            "better than repeating the last season by 50.0 % [40.0, 60.0]",
        ),
        (
            "seasonal_naive",
            found(0.2, 0.1, 0.3),
            "worse than repeating the last season by 20.0 % [10.0, 30.0]: do not deploy this",
        ),
        (
            "seasonal_naive",
            found(0.2),
            "worse than repeating the last season by 20.0 % "
            "(the test split is too short for an interval): do not deploy this",
        ),
        (
            "seasonal_naive",
            found(0.1, -0.1, 0.3),
            "no measurable difference from repeating the last season: error +10.0 % [-10.0, +30.0]",
        ),
    ],
)
def test_rivals(rival: str, comparison: Comparison, expected: str) -> None:
    assert list(sentences({rival: comparison}, 1.0)) == [expected]


def test_a_zero_has_no_sign() -> None:
    assert signed(-1e-5, (-0.0123, 4e-5)) == "0.0 % [-1.2, 0.0]"


def test_the_order_is_that_of_the_questions() -> None:
    better = found(-0.1, -0.2, -0.05)
    lines = list(sentences({"seasonal_naive": better, "teacher": better, "supervised": better}, 1.0))
    assert [line.split(" by ")[0] for line in lines] == [
        "the teacher lowers the error",
        "better than the teacher",
        "better than repeating the last season",
    ]


def test_training_that_ended_on_its_last_epoch() -> None:
    record = (
        entry("finetune", {"epochs": 3}, best_epoch=3),
        entry("distill", {"epochs": 10}, best_epoch=9),
        entry("distill", {"epochs": 4}, best_epoch=4),
        entry("idle", {"epochs": 0}, best_epoch=0),
        entry("solve", {}, validation_mse=1.0),
    )
    assert list(training_notes(record)) == [
        "finetune: training stopped on its last epoch (3): more epochs may help (passes.finetune.epochs)",
        "distill: training stopped on its last epoch (4): more epochs may help (passes.distill.epochs)",
    ]


def test_the_passes_that_train_say_enough(unit: CompileUnit, tmp_path: Path) -> None:
    """Of a real training, whose only epoch is its last; fine-tuning gives the same two figures."""
    steps = [BuildStudent(kind="dlinear"), Distill(epochs=1)]
    after = PassManager(steps).run(unit.with_(teacher=None), PassContext(workspace=tmp_path))
    assert list(training_notes(after.record)) == [
        "distill: training stopped on its last epoch (1): more epochs may help (passes.distill.epochs)"
    ]
    assert "epochs" in Finetune().config()


def rows(**levels: float) -> dict[str, Accuracy]:
    """Rows of 400 windows whose squared errors are a common noise around a level."""
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 400)
    errors = {name: level * noise for name, level in levels.items()}
    return {name: Accuracy(float(e.mean()), 0.5, 0.5, len(e), e) for name, e in errors.items()}


def test_part_of_a_manifest(unit: CompileUnit) -> None:
    unit = unit.with_(
        record=(entry("solve", {}, selection=[{"lambda": 0.0}, {"lambda": "inf"}], **{"lambda": 0.0}),)
    )
    part = accuracy_part(rows(student=1.1, supervised=1.0, teacher=2.0, seasonal_naive=0.5), unit)
    assert set(part) == {"test", "comparisons", "verdict"}
    assert set(part["comparisons"]) == {"supervised", "teacher", "seasonal_naive"}
    teacher = part["comparisons"]["teacher"]
    assert teacher["relative"] == pytest.approx(-0.45)
    # hourly: a week and the horizon of 12, 2.2 blocks: too few for an interval
    assert teacher["block_windows"] == 180 and teacher["relative_interval"] is None
    assert "no interval" in teacher["method"]
    assert "lambda 0 was chosen (+10.0 %" in part["verdict"][0]
    assert "do not deploy" in part["verdict"][2]
    assert all("window_mse" not in row for row in part["test"].values())


def test_a_fixed_lambda_is_not_called_chosen(unit: CompileUnit) -> None:
    unit = unit.with_(record=(entry("solve", {}, selection=[{"lambda": 0.0}], **{"lambda": 0.0}),))
    part = accuracy_part(rows(student=1.0, supervised=1.0), unit)
    assert "chosen" not in part["verdict"][0]


def test_a_program_that_did_not_run_is_judged_by_its_model_and_says_so(unit: CompileUnit) -> None:
    part = accuracy_part(rows(model=1.0, teacher=2.0), unit)
    assert part["judged"] == "the model before lowering; the program was not run here"
    assert part["comparisons"]["teacher"]["relative"] == pytest.approx(-0.5)


def test_a_refit_is_said(unit: CompileUnit) -> None:
    unit = unit.with_(record=(entry("refit", refit="train+val", windows=1234),))
    part = accuracy_part(rows(student=1.0), unit)
    assert part["judged"].startswith("the student before it was refitted on train+val (1,234 windows)")
