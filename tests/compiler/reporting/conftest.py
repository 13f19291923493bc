"""Artifacts of one series: a good student and a worse one, with what was kept of their evaluations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from factory import HORIZON, LOOKBACK, write_series, write_teacher

from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.data import load_data
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import run_steps, target_steps
from tsfmc.compiler.driver.recipe import make_recipe
from tsfmc.compiler.frontends import open_teacher
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, Task
from tsfmc.compiler.students.affine import AffineMap
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.fold_affine import FoldAffine
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.record_teacher import RecordTeacher
from tsfmc.passes.solve_affine import SolveAffine

HOSTILE = "</script><img src=x onerror=alert(1)>"
"""The name of a variate, in every artifact of these tests."""
ROWS = 4000  # long enough for an interval


@pytest.fixture(scope="session")
def hostile() -> str:
    return HOSTILE


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``out/good/onnx`` and ``out/worse/onnx``, and ``series.csv`` beside ``out``."""
    folder = tmp_path_factory.mktemp("reporting")
    series = write_series(folder / "series.csv", ROWS)
    frame = pd.read_csv(series).rename(columns={"v0": HOSTILE})
    frame.to_csv(series, index=False)
    data = load_data(series, lookback=LOOKBACK, horizon=HORIZON)
    teacher, info = open_teacher(
        write_teacher(folder / "teacher"), lookback=LOOKBACK, horizon=HORIZON, variates=len(data.variates)
    )
    unit = CompileUnit(
        Task(LOOKBACK, HORIZON, data.variates, data.frequency), data, teacher=teacher, teacher_info=info
    )
    passes = [
        RecordTeacher(),
        BuildStudent(kind="dlinear"),
        GatherStatistics(),
        SolveAffine(search=("lambda",), lambdas=(0.0, 1.0)),
        FoldAffine(),
    ]
    good = PassManager(passes).run(unit, PassContext(workspace=folder))
    _finish(good, folder / "out/good")
    worse = AffineMap(LOOKBACK, HORIZON, bias=False).eval()
    with torch.no_grad():
        worse.matrix[-1] = 1.0  # the last value for ever
    _finish(good.with_(student=worse), folder / "out/worse")
    return folder


def _finish(unit: CompileUnit, out: Path) -> None:
    quick = ["measure.duration_s=0.05", "measure.min_queries=64", "statistics=false"]
    recipe = make_recipe(target=("onnx",), lookback=LOOKBACK, horizon=HORIZON, set=quick)
    run_steps(recipe, target_steps(recipe, out), unit=unit, cache=False, progress=Silent())
