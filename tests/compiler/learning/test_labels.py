"""Names of teachers, and what a student that is trained reads of a mix."""

from __future__ import annotations

from dataclasses import asdict

import torch

from tsfmc.compiler.ir.companions import Companion, companion_names
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.affine import Setting
from tsfmc.compiler.learning.held_out import HeldOutForecasts
from tsfmc.compiler.learning.labels import teacher_stores, training_forecast, training_labels


def beside(taught: CompileUnit, name: str) -> CompileUnit:
    """With a companion of the same outputs."""
    assert taught.teacher_info is not None
    other = Companion(name, taught.teacher_info, store=taught.teacher_store)
    return taught.with_(companions=(other,))


def test_no_two_names_are_alike(taught: CompileUnit) -> None:
    assert taught.teacher_info is not None
    info = taught.teacher_info
    assert companion_names([info, info, info], [info.name]) == [f"{info.name} ({n})" for n in (2, 3, 4)]


def test_the_first_one_is_the_tuned_one_where_it_stands_beside_itself(taught: CompileUnit) -> None:
    assert list(teacher_stores(taught)) == ["teacher"]
    assert list(teacher_stores(beside(taught, "other"))) == ["teacher", "other"]
    assert list(teacher_stores(beside(taught, "teacher"))) == ["tuned", "teacher"]
    assert teacher_stores(taught.with_(teacher_store=None)) == {}


def test_what_a_trained_student_reads(taught: CompileUnit) -> None:
    """The mix of the setting, held-out labels for the first teacher; without a setting the first alone."""
    assert taught.teacher_store is not None
    rows = [5, 0, 7]
    said = taught.teacher_store.forecast("train", rows)
    assert torch.equal(training_forecast(taught)(rows), said)
    count = taught.teacher_store.counts["train"]
    unseen = HeldOutForecasts(torch.arange(count * 36.0).reshape(count, 3, 12).numpy())
    unit = beside(taught, "other").with_(held_out=unseen)
    first = torch.from_numpy(unseen.forecasts[rows])
    assert torch.equal(training_forecast(unit)(rows), first)
    setting = Setting(distill=1.0, teachers=(("teacher", 0.75), ("other", 0.25)))
    mixed = training_forecast(unit.with_(setting=asdict(setting)))(rows)
    torch.testing.assert_close(mixed, 0.75 * first + 0.25 * said)
    assert training_labels(unit)["teacher"] is unseen


def test_a_unit_tells_of_all_its_teachers(taught: CompileUnit) -> None:
    text = str(beside(taught, "other"))
    assert "  beside    other: stored outputs" in text and "beside" not in str(taught)
