"""finetune with cross_fit: rolling origins may judge a tuned teacher by what it had not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import HORIZON, LOOKBACK, write_series, write_teacher

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.held_out import HeldOutForecasts, stretches
from tsfmc.compiler.learning.labels import teacher_stores, training_labels
from tsfmc.compiler.learning.statistics import TUNED, WindowStatistics
from tsfmc.passes.finetune import STRETCHES, Finetune
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.prune_channels import PruneChannels
from tsfmc.passes.record_teacher import RecordTeacher

OPTIONS = {"epochs": 1, "learning_rates": (3e-3,), "cross_fit": 3}
SPAN = LOOKBACK + HORIZON


def tuned(unit: CompileUnit, folder: Path) -> CompileUnit:
    after = Finetune(**OPTIONS).run(unit, PassContext(3, folder)).unit
    assert after.tuned and isinstance(after.held_out, HeldOutForecasts)
    return after


def held_out(unit: CompileUnit) -> HeldOutForecasts:
    assert isinstance(unit.held_out, HeldOutForecasts)
    return unit.held_out


def forecasts(unit: CompileUnit, first: int, last: int) -> torch.Tensor:
    past, _ = unit.data.windows("train", LOOKBACK, HORIZON).batch(range(first, last))
    assert unit.teacher is not None
    with torch.inference_mode():
        return unit.teacher(past)


def test_every_stretch_is_labelled_by_a_teacher_of_what_lies_before_it(
    unit: CompileUnit, tmp_path: Path
) -> None:
    """Rows of a stretch and after it are replaced by noise: what was said before of the rows stays."""
    windows = len(unit.data.windows("train", LOOKBACK, HORIZON))
    first, second, third = stretches(windows, 3, SPAN)
    after = tuned(unit, tmp_path / "as it is")
    labels = held_out(after).forecasts
    assert labels.shape == (windows, 3, HORIZON)
    # The first stretch by the teacher as it came, the others by none that is at hand afterwards.
    expected = forecasts(unit, first.begin, first.end).numpy()
    np.testing.assert_allclose(labels[first.begin : first.end], expected, rtol=1e-4, atol=1e-5)
    for whole in (unit, after):
        others = forecasts(whole, second.begin, second.end).numpy()
        assert not np.allclose(labels[second.begin : second.end], others, rtol=1e-3, atol=1e-3)

    begin, end = third.begin, unit.data.splits.train - LOOKBACK  # validation looks back on the rest
    values = np.array(unit.data.values)
    values[begin:end] = np.random.default_rng(0).normal(values[begin:end], 5.0)
    changed = tuned(unit.with_(data=replace(unit.data, values=values)), tmp_path / "changed")
    untouched = begin - LOOKBACK + 1  # windows whose past ends before what was changed
    assert untouched > second.begin
    np.testing.assert_array_equal(held_out(changed).forecasts[:untouched], labels[:untouched])
    assert not np.array_equal(held_out(changed).forecasts[begin:], labels[begin:])
    assert not torch.equal(forecasts(changed, 0, 4), forecasts(after, 0, 4)), "the final teacher saw them"


def test_what_is_gathered_is_judged_by_blocks(unit: CompileUnit, tmp_path: Path) -> None:
    """Of the tuned teacher its held-out labels, and of the teacher as it was loaded its own."""
    record = RecordTeacher(states=False, as_loaded=True)
    after = record.run(tuned(unit, tmp_path), PassContext()).unit
    stores = teacher_stores(after)
    assert list(stores) == ["tuned", "teacher"] and stores["tuned"] is after.teacher_store
    said = forecasts(unit, 0, 20).numpy()
    np.testing.assert_allclose(stores["teacher"].forecast("train", range(20)), said, rtol=1e-4, atol=1e-5)
    labels = training_labels(after)
    assert labels["tuned"] is after.held_out
    statistics = GatherStatistics().run(after, PassContext()).unit.statistics
    assert isinstance(statistics, WindowStatistics)
    assert statistics.teachers == ("tuned", "teacher") and statistics.alone == ""
    without = GatherStatistics().run(after.with_(held_out=None), PassContext()).unit.statistics
    assert isinstance(without, WindowStatistics) and without.alone == TUNED
    assert without.key != statistics.key


def test_it_is_kept_and_found_again(unit: CompileUnit, tmp_path: Path) -> None:
    cache, step = PassCache(tmp_path / "cache"), Finetune(**OPTIONS)
    first, second = (
        PassManager([step], cache=cache).run(unit, PassContext(3, tmp_path / "work")) for _ in range(2)
    )
    assert second.record[0].cached and not first.record[0].cached
    assert held_out(first).key == held_out(second).key
    told = second.record[0].metrics["cross_fit"]
    windows = len(unit.data.windows("train", LOOKBACK, HORIZON))
    assert told["tuned_on"] == [part.seen for part in stretches(windows, 3, SPAN)]
    assert told["window_visits"] == sum(told["tuned_on"])


def test_a_killed_run_finds_the_stretches_that_it_finished(unit: CompileUnit, tmp_path: Path) -> None:
    whole = tuned(unit, tmp_path)
    (tmp_path / "stretch-2.safetensors").unlink()
    again = tuned(unit, tmp_path)
    assert held_out(again).key == held_out(whole).key


def test_it_is_done_where_statistics_are_gathered(tmp_path: Path) -> None:
    files = {"teacher": write_teacher(tmp_path / "teacher"), "data": write_series(tmp_path / "series.csv")}
    small = {"lookback": LOOKBACK, "horizon": HORIZON}
    plain = build_passes(api.make_recipe(student="none", **files, **small))
    assert [step.options.cross_fit for step in plain if isinstance(step, Finetune)] == [0]
    pipeline = ["finetune", "record_teacher", "build_student", "gather_statistics", "solve_affine"]
    settings = [
        "passes.finetune.epochs=1", "passes.finetune.learning_rates=[3e-3]",
        "passes.solve_affine.ranks=[3]", "passes.solve_affine.ridges=[10.0]",
    ]  # fmt: skip
    recipe = api.make_recipe(pipeline=pipeline, set=settings, **files, **small)
    unit = api.transform(recipe)
    assert unit.record[0].config["cross_fit"] == STRETCHES
    metrics = unit.record[-1].metrics
    assert {name for row in metrics["mixes"] for name in row["teachers"]} == {"tuned", "teacher"}
    assert not any("overrate" in warning for warning in metrics["warnings"])
    assert len(metrics["selection"][0]["mse"]) == 7, "six blocks and validation"


def test_a_teacher_that_labelled_is_not_changed_again(unit: CompileUnit, tmp_path: Path) -> None:
    """What was tuned on all of training is no start for teachers that have not seen it."""
    after = tuned(unit, tmp_path)
    for step in (Finetune(**OPTIONS), PruneChannels()):
        with pytest.raises(PassError, match="labelled already"):
            step.requires(after)
