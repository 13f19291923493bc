"""gather_statistics: the sums of the unit's windows and of its teacher's recorded forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from series import windows_of

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import Pass, PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning import pieces, statistics
from tsfmc.compiler.learning.statistics import Sums, WindowStatistics, window_sums
from tsfmc.passes import gather_statistics
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.drop_dead_weights import DropDeadWeights
from tsfmc.passes.finetune import Finetune
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.record_teacher import RecordTeacher
from tsfmc.passes.solve_affine import SolveAffine


def gather(unit: CompileUnit, **options: object) -> WindowStatistics:
    step = GatherStatistics(**options)
    step.requires(unit)
    found = step.run(unit, PassContext()).unit.statistics
    assert isinstance(found, WindowStatistics)
    return found


def assert_same(one: Sums, other: Sums, name: str) -> None:
    assert one.count == other.count
    torch.testing.assert_close(one.gram, other.gram, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.cross[name], other.cross[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.square[name], other.square[name], rtol=1e-6, atol=1e-6)


def test_sums_of_truth_and_teacher(taught: CompileUnit) -> None:
    """Against the teacher itself, run here on the windows."""
    result = GatherStatistics().run(taught, PassContext())
    statistics = result.unit.statistics
    assert isinstance(statistics, WindowStatistics) and result.modified
    past, future = windows_of(taught.data, "train", 48, 12)
    assert result.metrics == {"windows": len(past), "targets": "truth, teacher"}
    assert taught.teacher is not None
    with torch.inference_mode():
        forecast = taught.teacher(past.float()).double()
    assert_same(statistics.all(), window_sums(past, future), "truth")
    assert_same(statistics.all(), window_sums(past, forecast, "teacher"), "teacher")


def test_without_a_teacher_there_is_the_truth_alone(unit: CompileUnit) -> None:
    found = gather(unit)
    assert found.targets == ("truth",) and found.all().cross.keys() == {"truth"}


def test_the_average_variates_sums_are_those_of_each_averaged(
    taught: CompileUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of two and one of the three variates; validation and every fold, the teacher's sums as well."""
    monkeypatch.setattr(statistics, "VARIATES_AT_ONCE", 2)
    monkeypatch.setattr(pieces, "PIECE_WINDOWS", 50)
    each, average = gather(taught, variates="each"), gather(taught, variates="average")
    assert average.average and not each.average and average.key != each.key
    for one, other in zip(each.folds(), average.folds(), strict=True):
        assert other.fit.gram.shape[0] == 1
        for name in ("truth", "teacher"):
            assert_same(one.fit.averaged(), other.fit, name)
        assert_same(one.judged.averaged(), other.judged, "truth")


def test_many_variates_are_averaged(taught: CompileUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gather(taught).average
    monkeypatch.setattr(gather_statistics, "MOST_BYTES", 8 * 3 * 48 * 60 - 1)
    assert gather(taught).average
    assert not gather(taught, variates="each").average


def test_blocks(taught: CompileUnit) -> None:
    assert len(list(gather(taught).folds())) == 7
    assert len(list(gather(taught, blocks=4).folds())) == 3
    with pytest.raises(ValueError, match="greater than or equal to 3"):
        GatherStatistics(blocks=2)


def test_the_key_is_of_what_the_sums_depend_on(unit: CompileUnit, taught: CompileUnit) -> None:
    assert gather(taught).key == gather(taught).key
    other = replace(taught.data, sha256="1" * 64, values=np.asarray(taught.data.values) + 1)
    changed = (
        gather(unit),
        gather(taught.with_(data=other)),
        gather(unit.with_(task=replace(unit.task, lookback=47))),
        gather(unit.with_(task=replace(unit.task, horizon=11))),
        gather(taught, blocks=4),  # other folds, and so another choice
    )
    keys = {gather(taught).key, *(statistics.key for statistics in changed)}
    assert len(keys) == 1 + len(changed) and "" not in keys


def test_labels_of_some_windows_are_refused(unit: CompileUnit) -> None:
    some = RecordTeacher(train_windows=50).run(unit, PassContext()).unit
    with pytest.raises(PassError, match=r"labels cover 50 of 430 training windows.*train_windows = 0"):
        GatherStatistics().requires(some)


def test_a_tuned_teacher_is_judged_by_validation_alone(unit: CompileUnit, tmp_path: Path) -> None:
    """It has seen the blocks; found in the cache it still has, and smaller without tuning it has not."""
    context = PassContext(seed=3, workspace=tmp_path)

    def pipeline(*before: Pass) -> CompileUnit:
        passes = [*before, RecordTeacher(), BuildStudent(kind="dlinear"), GatherStatistics(), SolveAffine()]
        return PassManager(passes, cache=PassCache(tmp_path / "cache")).run(unit, context)

    for found_in_cache in (False, True):
        tuned = pipeline(Finetune(epochs=1, learning_rates=(3e-3,)))
        assert tuned.record[0].modified and tuned.record[0].cached == found_in_cache
        assert isinstance(tuned.statistics, WindowStatistics)
        assert [fold.name for fold in tuned.statistics.folds()] == ["validation"]
        (warning,) = tuned.record[-1].metrics["warnings"]
        assert "teacher was tuned on the training windows" in warning and "validation split alone" in warning
        # Judged all the same: the candidates are there.
        assert tuned.record[-1].metrics["candidates"] > 1
    untuned = pipeline(DropDeadWeights())
    assert isinstance(untuned.statistics, WindowStatistics) and len(list(untuned.statistics.folds())) == 7
    assert untuned.record[-1].metrics["warnings"] == []


def test_without_labels_no_teacher_can_be_overrated(unit: CompileUnit, taught: CompileUnit) -> None:
    assert len(list(gather(unit.with_(tuned=True)).folds())) == 7
    assert gather(taught.with_(tuned=True)).key != gather(taught).key


def test_states_have_sums_where_the_objective_aims_at_them(taught: CompileUnit) -> None:
    unit = BuildStudent(kind="dlinear", config={"maps": "low-rank"}).run(taught, PassContext()).unit
    aligned, bent = (AlignTemporal(phi=phi).run(unit, PassContext()).unit for phi in ("identity", "gelu"))
    assert gather(aligned).targets == ("truth", "teacher", "states")
    assert gather(bent).targets == gather(unit).targets == ("truth", "teacher")
    assert gather(bent).key == gather(unit).key != gather(aligned).key
    assert gather(aligned).all().cross["states"].shape[:2] == (3, 48)
