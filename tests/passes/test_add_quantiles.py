"""Quantiles are made of residuals that the student has not seen, and reach every end of an artifact."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import HORIZON, LOOKBACK, make_unit, write_series, write_teacher

import tsfmc
from tsfmc.compiler import api
from tsfmc.compiler.base.errors import BudgetError, PassError, RecipeError
from tsfmc.compiler.driver.budgets import check_budgets, check_judgeable
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.recipe import make_recipe
from tsfmc.compiler.driver.summary import summary_lines
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.affine import setting_of, solve
from tsfmc.compiler.learning.residuals import solved_origins, validation_origins
from tsfmc.compiler.learning.statistics import WindowStatistics
from tsfmc.passes.add_quantiles import AddQuantiles
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.solve_affine import SolveAffine
from tsfmc.targets.packages.layout import write_package
from tsfmc.targets.packages.triton import Triton

LEVELS = (0.1, 0.5, 0.9)


def solved_unit(folder: Path) -> CompileUnit:
    """A unit with a solved student, its statistics and levels, without a teacher's labels."""
    unit = make_unit(folder, rows=1200)
    unit = unit.with_(task=replace(unit.task, quantile_levels=LEVELS), teacher=None)
    for step in (
        BuildStudent(kind="dlinear", config={"variates": 3}),
        GatherStatistics(),
        SolveAffine(search=(), ridge=1.0),
    ):
        unit = step.run(unit, PassContext()).unit
    return unit


def test_residuals_are_of_windows_that_the_fit_ends_before(tmp_path: Path) -> None:
    unit = solved_unit(tmp_path)
    statistics = unit.statistics
    assert isinstance(statistics, WindowStatistics)
    setting = setting_of(unit.setting)
    folds = [(fold.name, fold.fit.count, fold.judged.count) for fold in statistics.folds()]
    origins = list(solved_origins(statistics, setting))
    assert [origin.name for origin in origins] == [name for name, _, _ in folds]
    for origin, (_, fitted, judged) in zip(origins[:-1], folds[:-1], strict=True):
        assert min(origin.chosen) + LOOKBACK >= fitted - 1 + LOOKBACK + HORIZON
        assert len(origin.chosen) <= judged
    # Validation is forecast by the student itself, solved on all of training.
    past, _ = origins[-1].windows.batch([0, 5])
    assert unit.student is not None
    with torch.inference_mode():
        torch.testing.assert_close(origins[-1].model(past), unit.student(past), atol=1e-4, rtol=1e-4)
    assert solve(statistics.all(), setting).form == setting.form


def test_any_forecaster_gets_quantiles_of_its_validation_residuals(tmp_path: Path) -> None:
    unit = make_unit(tmp_path, rows=1200)
    assert unit.teacher is not None
    origins = list(validation_origins(unit.data, unit.teacher, LOOKBACK, HORIZON))
    windows = len(unit.data.windows("val", LOOKBACK, HORIZON))
    chosen = [index for origin in origins for index in origin.chosen]
    assert sorted(set(chosen)) == list(range(windows))
    assert all(origin.model is unit.teacher for origin in origins)


def test_levels_are_those_of_the_task(tmp_path: Path) -> None:
    unit = solved_unit(tmp_path)
    with pytest.raises(PassError, match="the task has"):
        AddQuantiles(levels=(0.2, 0.5, 0.8)).requires(unit)
    step = AddQuantiles(levels=LEVELS)
    step.requires(unit)
    result = step.run(unit, PassContext())
    assert result.unit.head is not None and result.unit.head.levels == LEVELS
    assert result.unit.student is unit.student
    covered = [row["coverage"]["validation"] for row in result.metrics["candidates"] if row["chosen"]]
    assert covered == [pytest.approx(0.8, abs=0.1)]


def test_quantiles_that_nothing_makes_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"0\.5 among them"):
        make_recipe(quantiles="0.1,0.9")
    with pytest.raises(RecipeError, match="expected numbers such as"):
        make_recipe(quantiles="ten,0.5")
    without = make_recipe(quantiles=LEVELS, pipeline=["build_student", "gather_statistics", "solve_affine"])
    with pytest.raises(RecipeError, match="no pass of the pipeline makes quantiles"):
        build_passes(without)
    names = [step.name for step in build_passes(make_recipe())]
    assert "add_quantiles" not in names


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantiles")
    tsfmc.compile(
        teacher=write_teacher(folder / "teacher"),
        data=write_series(folder / "series.csv", 1200),
        lookback=LOOKBACK,
        horizon=HORIZON,
        quantiles="0.1,0.5,0.9",
        out=folder / "out",
        set=["measure.duration_s=0.05", 'measure.teacher_forms=["onnx"]'],
    )
    return folder


def test_an_artifact_gives_its_quantiles_at_every_end(compiled: Path, tmp_path: Path) -> None:
    artifact = compiled / "out" / "onnx"
    model = tsfmc.load(artifact)
    assert model.manifest["task"]["quantile_levels"] == list(LEVELS)
    assert model.manifest["task"]["point"] == "median"
    assert model.selftest()["passed"]
    rows = np.loadtxt(compiled / "series.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3))[-LOOKBACK:]
    forecast = model.forecast(rows.T)
    assert forecast.shape == (3, HORIZON, 3)
    assert (np.diff(forecast, axis=-1) >= 0).all()
    np.testing.assert_array_equal(model.point(rows.T), forecast[..., 1])

    stream = model.stream()
    for row in rows:
        stream.push(row.tolist())
    np.testing.assert_array_equal(stream.forecast(), forecast)

    command = [sys.executable, "run.py", "forecast", str(compiled / "series.csv")]
    printed = subprocess.run(command, cwd=artifact, capture_output=True, text=True, check=True).stdout
    table = list(csv.DictReader(io.StringIO(printed)))
    assert list(table[0])[1:5] == ["v0", "v0-q-10", "v0-q-50", "v0-q-90"]
    np.testing.assert_array_equal([float(row["v2-q-90"]) for row in table], forecast[2, :, 2])
    np.testing.assert_array_equal([float(row["v1"]) for row in table], forecast[1, :, 1])
    command.append("--json")
    printed = subprocess.run(command, cwd=artifact, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["quantiles"]["0.1"]["v0"] == forecast[0, :, 0].tolist()

    import onnxruntime

    write_package(artifact, Triton(), tmp_path / "triton")
    config = (tmp_path / "triton" / "forecaster" / "config.pbtxt").read_text()
    assert f"dims: [ 3, {HORIZON}, 3 ]" in config
    session = onnxruntime.InferenceSession(tmp_path / "triton" / "forecaster" / "1" / "model.onnx")
    (served,) = session.run(None, {"past": rows.T[None].astype(np.float32)})
    np.testing.assert_allclose(served[0], forecast, atol=1e-3)


def test_quantiles_are_judged(compiled: Path) -> None:
    manifest = json.loads((compiled / "out" / "onnx" / "manifest.json").read_text())
    part = manifest["accuracy"]["quantiles"]
    assert {"student", "empirical_residuals", "seasonal_naive", "supervised"} <= set(part["test"])
    assert part["test"]["student"]["coverage"] == pytest.approx(0.8, abs=0.12)
    assert part["comparisons"]["seasonal_naive"]["relative"] < 0
    below = part["test"]["student"]["below"]
    assert below["0.1"] < below["0.5"] < below["0.9"]
    horizon = part["horizon"]
    assert horizon["steps"][0] == 1 and horizon["steps"][-1] == HORIZON
    if len(horizon["steps"]) == HORIZON:
        mean = sum(horizon["coverage"]) / HORIZON
        assert mean == pytest.approx(part["test"]["student"]["coverage"], abs=1e-3)
    text = "\n".join(summary_lines(manifest))
    assert "quantiles P10 to P90" in text and "its residuals' own" in text


def test_compare_shows_quantiles(compiled: Path) -> None:
    """Of the artifact with itself: what the compile found, and no change."""
    artifact = compiled / "out" / "onnx"
    outcome = api.compare([artifact] * 2, data=str(compiled / "series.csv"), latency=False)
    compiled_row = json.loads((artifact / "manifest.json").read_text())["accuracy"]["quantiles"]["test"]
    first, second = (side.quantiles for side in outcome.sides)
    assert first is not None and second is not None and first.loss is None
    assert first.row.wql == pytest.approx(compiled_row["student"]["wql"], rel=1e-5)
    assert first.row.coverage == pytest.approx(compiled_row["student"]["coverage"], abs=1e-3)
    assert second.loss is not None and second.loss.relative == 0
    assert "coverage" in outcome.markdown() and not outcome.regressions()


def test_budgets_of_quantiles(compiled: Path) -> None:
    manifest = json.loads((compiled / "out" / "onnx" / "manifest.json").read_text())
    recipe = make_recipe(quantiles="0.1,0.5,0.9", budget=["min_coverage=99%"])
    with pytest.raises(BudgetError, match=r"min_coverage 99.0%"):
        check_budgets(recipe.budget, {"onnx": manifest})
    recipe = make_recipe(quantiles="0.1,0.5,0.9", budget=["max_wql_increase=-90%"])
    with pytest.raises(BudgetError, match="WQL"):
        check_budgets(recipe.budget, {"onnx": manifest})
    met = make_recipe(quantiles="0.1,0.5,0.9", budget=["min_coverage=20%", "max_wql_increase=500%"])
    check_budgets(met.budget, {"onnx": manifest})
    with pytest.raises(RecipeError, match="no quantiles to judge"):
        check_judgeable(make_recipe(budget=["min_coverage=50%"]))
