"""The refitted student is the exact minimiser on all rows, and never told of as judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factory import write_series, write_teacher

import tsfmc
from tsfmc.compiler.api import make_recipe, plan
from tsfmc.compiler.base.errors import PassError, RecipeError
from tsfmc.compiler.data.splits import PARTS, Part
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.summary import summary_lines
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, PassRecord
from tsfmc.compiler.learning.affine import Setting, horizon_weights
from tsfmc.compiler.learning.labels import stored_labels
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.refit_affine import RefitAffine, part_sums
from tsfmc.passes.solve_affine import SolveAffine
from tsfmc.passes.weight_horizons import WeightHorizons

RIDGE, WEIGHT, TAU = 5.0, 0.5, 1.0
MAPS = {"shared": {"maps": "shared"}, "per-variate": {"maps": "per-variate"}}


def solved(unit: CompileUnit, **config: Any) -> CompileUnit:
    """A unit whose student is solved at a fixed setting, as a manager would leave it."""
    context = PassContext()
    student = {"normalisation": "instance", "variates": 3, **config}
    unit = BuildStudent(kind="dlinear", config=student, lambda_kd=WEIGHT).run(unit, context).unit
    if unit.teacher_store is not None:
        unit = WeightHorizons(tau=TAU).run(unit, context).unit
    unit = GatherStatistics().run(unit, context).unit
    step = SolveAffine(search=(), ridge=RIDGE)
    result = step.run(unit, context)
    record = PassRecord(step.name, step.config(), True, 0.0, result.metrics)
    return result.unit.with_(record=(record,))


def minimiser(unit: CompileUnit, parts: tuple[Part, ...], *, shared: bool) -> np.ndarray:
    """``[D, H, L]`` by plain least squares on the windows themselves, step by step of the horizon."""
    pasts, targets = [], []
    task, store = unit.task, unit.teacher_store
    assert store is not None
    weight = WEIGHT * horizon_weights(TAU, task.horizon).numpy()
    for part in parts:
        windows = unit.data.windows(part, task.lookback, task.horizon)
        past, future = (tensor.double().numpy() for tensor in windows.batch(range(len(windows))))
        teacher = store.forecast(part, range(len(windows))).double().numpy()
        mean = past.mean(axis=-1, keepdims=True)
        pasts.append(past - mean)
        targets.append((future + weight * teacher) / (1 + weight) - mean)
    x, y = np.concatenate(pasts), np.concatenate(targets)
    windows_in_all = len(x)
    if shared:
        x, y = x.reshape(-1, 1, task.lookback), y.reshape(-1, 1, task.horizon)
    maps = []
    for d in range(x.shape[1]):
        gram = x[:, d].T @ x[:, d]
        # The ridge counts in windows; pooled windows are the same ones, once for each variate.
        scale = RIDGE / windows_in_all * np.trace(gram) / task.lookback
        maps.append(np.linalg.solve(gram + scale * np.eye(task.lookback), x[:, d].T @ y[:, d]).T)
    return np.stack(maps)


def weights(student: Any) -> np.ndarray:
    weight = student.season.weight.detach().double().numpy()
    return weight if weight.ndim == 3 else weight[None]


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize(("until", "parts"), [("train+val", PARTS[:2]), ("all", PARTS)])
def test_it_is_the_minimiser_on_all_rows(
    taught: CompileUnit, maps: str, until: str, parts: tuple[Part, ...]
) -> None:
    unit = solved(taught, **MAPS[maps])
    result = RefitAffine(until=until).run(unit, PassContext())
    expected = minimiser(unit, parts, shared=maps == "shared")
    assert weights(result.unit.student) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert weights(unit.student) != pytest.approx(expected, rel=1e-3, abs=1e-5)
    counts = [len(unit.data.windows(part, unit.task.lookback, unit.task.horizon)) for part in parts]
    assert result.metrics == {"refit": until, "windows": sum(counts), "labelled_windows": sum(counts)}


def test_what_was_judged_is_kept(taught: CompileUnit) -> None:
    unit = solved(taught, maps="low-rank", rank=4)
    after = RefitAffine(until="all").run(unit, PassContext()).unit
    assert after.judged is unit.student and after.judged_model is unit.student
    assert after.model is after.student is not unit.student
    assert after.student is not None and after.student.config == unit.student.config  # type: ignore[union-attr]
    assert "judged" in str(after) and "judged" not in str(unit)


def test_where_there_is_no_label_the_truth_takes_its_share(taught: CompileUnit) -> None:
    setting = Setting("shared", 0, RIDGE, WEIGHT, TAU, (("teacher", 1.0),))
    labelled, has = part_sums(taught, "val", setting, ("truth", "teacher"))
    bare, has_none = part_sums(taught.with_(teacher_store=None), "val", setting, ("truth", "teacher"))
    assert has and not has_none
    assert torch.equal(bare.cross["teacher"], bare.cross["truth"])
    assert not torch.allclose(labelled.cross["teacher"], labelled.cross["truth"])
    assert torch.equal(labelled.gram, bare.gram)


def test_labels_are_found_by_the_row_where_a_window_starts(taught: CompileUnit) -> None:
    """Sums ask for some windows at a time, and count rows from the start of the series."""
    windows = taught.data.windows("val", taught.task.lookback, taught.task.horizon)
    assert taught.teacher_store is not None
    labels = stored_labels(taught.teacher_store, "val", windows.first)
    expected = taught.teacher_store.forecast("val", [3, 4]).numpy()
    assert np.array_equal(labels(windows.first + 3, windows.first + 5), expected)


def test_without_a_teacher(unit: CompileUnit) -> None:
    before = solved(unit.with_(teacher=None), maps="shared")
    result = RefitAffine().run(before, PassContext())
    assert result.metrics["labelled_windows"] == 0 and result.unit.student is not before.student


def test_it_refits_only_what_was_just_solved(taught: CompileUnit) -> None:
    with pytest.raises(PassError, match="right after solve_affine"):
        RefitAffine().requires(taught)
    unit = solved(taught, maps="shared")
    RefitAffine().requires(unit)
    later = PassRecord("distill", {}, True, 0.0)
    with pytest.raises(PassError, match="no setting to solve again"):
        RefitAffine().requires(unit.with_(record=(*unit.record, later)))


def test_it_is_in_the_pipeline_where_the_recipe_asks() -> None:
    names = [step.name for step in build_passes(make_recipe())]
    asked = build_passes(make_recipe(refit="all"))
    assert "refit_affine" not in names
    assert [step.name for step in asked] == [*names[:-1], "refit_affine", names[-1]]
    assert asked[-2].config() == {"until": "all"}
    assert "refit_affine" in [step["name"] for step in plan(make_recipe(refit="train+val"))["steps"]]


def test_a_refit_that_no_pass_does_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"refit: 'all', and no pass of the pipeline"):
        build_passes(make_recipe(refit="all", student="itransformer"))
    with pytest.raises(RecipeError, match="refit"):
        make_recipe(refit="some")


def test_the_rows_are_those_without_a_refit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same accuracy as without, another payload, and the manifest says why."""
    monkeypatch.chdir(tmp_path)
    series, teacher = write_series(tmp_path / "series.csv"), write_teacher(tmp_path / "teacher")
    settings = ["measure.duration_s=0.1", "measure.teacher_forms=['eager']"]
    plain, refitted = (
        tsfmc.compile(
            teacher, series, lookback=48, horizon=12, refit=refit, out=refit, set=settings
        ).manifests["onnx"]
        for refit in ("none", "all")
    )
    for name, expected in plain["accuracy"]["test"].items():
        assert refitted["accuracy"]["test"][name]["mse"] == pytest.approx(expected["mse"], rel=1e-6), name
    assert refitted["files"] != plain["files"] and refitted["parity"]["passed"]
    assert "before it was refitted on all" in refitted["accuracy"]["judged"]
    assert "judged" not in plain["accuracy"]
    assert any("judged" in line and "refitted on all" in line for line in summary_lines(refitted))


def test_states_of_training_alone_do_not_refit_and_do_not_hinder(taught: CompileUnit) -> None:
    """Only training's states are recorded: a basis that they have shaped is refused, another is solved."""
    passes = [
        BuildStudent(kind="dlinear", config={"maps": "low-rank", "rank": 3}),
        AlignTemporal(phi="identity"),
        GatherStatistics(),
    ]
    unit = PassManager(passes).run(taught, PassContext())
    step = RefitAffine()
    shaped = PassManager([SolveAffine(search=())]).run(unit, PassContext())
    with pytest.raises(PassError, match="states have shaped the student"):
        step.requires(shaped)
    assert shaped.setting is not None
    plain = shaped.with_(setting={**shaped.setting, "align": 0.0})
    step.requires(plain)
    assert step.run(plain, PassContext()).metrics["windows"] == 430 + 60
