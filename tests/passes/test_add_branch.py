"""add_branch and what distill makes of it: judged by rolling origins, never worse than the affine start."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tsfmc.compiler.api import make_recipe
from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.timing import TargetClock
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.compiler.learning.affine import Setting, solve
from tsfmc.compiler.learning.branch_origin import Judge, Origin
from tsfmc.compiler.students.affine import AffineMap, AffineMaps, LowRankMap
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.compiler.students.residual import FoldedResidual, Residual
from tsfmc.passes.add_branch import AddBranch, reopened
from tsfmc.passes.distill import Distill, DistillStep
from tsfmc.passes.gather_statistics import GatherStatistics

AFFINE = (AffineMap, AffineMaps, LowRankMap)
SMALL = ("student.width=16", "student.embedding=6", "passes.distill.epochs=2")


def compiled(unit: CompileUnit, folder: Path, kind: str, *settings: str, seed: int = 0) -> CompileUnit:
    """The unit after the preset's pipeline."""
    recipe = make_recipe(student=kind, set=[*SMALL, *settings])
    passes = build_passes(recipe)
    return PassManager(passes, cache=PassCache(folder)).run(
        unit, PassContext(seed, folder, clock=TargetClock(recipe))
    )


def metrics(unit: CompileUnit) -> Any:
    return next(entry.metrics for entry in unit.record if entry.name == "distill")


def solved(unit: CompileUnit, folder: Path) -> CompileUnit:
    """After solve_affine and add_branch."""
    passes = build_passes(make_recipe(student="residual", set=SMALL))
    names = [step.name for step in passes]
    return PassManager(passes[: names.index("add_branch") + 1]).run(unit, PassContext(0, folder))


def test_the_objective_is_what_the_affine_student_is_the_minimum_of(taught: CompileUnit) -> None:
    """Almost without a ridge, the reopened objective has no gradient at the solution."""
    setting = Setting("shared", 0, 1e-9, 0.5, 1.0, (("teacher", 1.0),))
    unit = GatherStatistics().run(taught, PassContext()).unit
    arrays = solve(unit.statistics.all(), setting).arrays()  # type: ignore[union-attr]
    student = DLinear.from_affine("shared", arrays, lookback=48, horizon=12, variates=3).double()
    weight = torch.nn.Parameter(student.trend.weight.detach().clone())  # type: ignore[union-attr,arg-type]

    class Map(torch.nn.Module):
        def forward(self, past: torch.Tensor) -> torch.Tensor:
            past = past.double()
            mean = past.mean(-1, keepdim=True)
            return (past - mean) @ weight.T + mean

    step = DistillStep(Map(), reopened(setting, 12))  # type: ignore[arg-type]
    windows = taught.data.windows("train", 48, 12)
    every = range(len(windows))
    past, future = windows.batch(every)
    assert taught.teacher_store is not None
    forecast = taught.teacher_store.forecast("train", every)
    losses = step(past, future.double(), forecast.double())
    (gradient,) = torch.autograd.grad(losses["loss"], weight)
    assert float(gradient.abs().max()) < 1e-5
    other = DistillStep(Map(), reopened(replace(setting, distill=1.0), 12))  # type: ignore[arg-type]
    (moved,) = torch.autograd.grad(other(past, future.double(), forecast.double())["loss"], weight)
    assert float(moved.abs().max()) > 1e-3


def test_terms_of_the_reopened_objective() -> None:
    taught = Setting(distill=2.0, tau=1.0, teachers=(("teacher", 1.0),))
    assert [(w, t.name, t.tau) for w, t in reopened(taught, 4)] == [
        (1.0, "supervised", 0.0),
        (2.0, "kd", 1.0),
    ]
    assert [t.name for _, t in reopened(Setting(), 4)] == ["supervised"]
    alone = replace(taught, distill=math.inf)
    assert [(w, t.name) for w, t in reopened(alone, 4)] == [(1.0, "kd")]


def test_the_function_is_unchanged(unit: CompileUnit, tmp_path: Path) -> None:
    after = solved(unit, tmp_path)
    assert isinstance(after.student, Residual) and after.objective.active()
    past, _ = unit.data.windows("val", 48, 12).batch(range(20))
    with torch.no_grad():
        start = after.student.affine_start()
        torch.testing.assert_close(after.student(past), start(past), rtol=1e-4, atol=1e-5)


def test_what_ships_is_the_judged_state_and_depends_on_the_seed_alone(
    unit: CompileUnit, tmp_path: Path
) -> None:
    one = compiled(unit, tmp_path / "a", "residual")
    assert isinstance(one.student, FoldedResidual) and metrics(one)["shipped"] == "branch"
    assert fingerprint(one.model) == fingerprint(compiled(unit, tmp_path / "b", "residual").model)
    assert fingerprint(one.model) != fingerprint(compiled(unit, tmp_path / "c", "residual", seed=1).model)
    # The last ratio is validation's: that of the shipped student over the affine one.
    affine = compiled(unit, tmp_path / "d", "residual", "passes.distill.max_macs=1")
    assert isinstance(affine.student, AFFINE)
    windows = unit.data.windows("val", 48, 12)
    past, future = windows.batch(range(len(windows)))
    with torch.no_grad():
        errors = [float((u.model(past) - future).double().square().mean()) for u in (one, affine)]
    assert math.log(errors[0] / errors[1]) == pytest.approx(metrics(one)["verdict"]["ratios"][-1], abs=1e-4)


def test_a_branch_that_learns_nothing_good_leaves_the_affine_student(
    unit: CompileUnit, tmp_path: Path
) -> None:
    after = compiled(unit, tmp_path, "residual", "passes.distill.learning_rate=30.0")
    assert isinstance(after.student, AFFINE) and metrics(after)["shipped"] == "affine"
    assert metrics(after)["verdict"]["epochs"] == 0
    assert "on no average of the folds" in metrics(after)["in_words"]


def test_within_a_margin_of_the_folds_the_smaller_one_ships(unit: CompileUnit, tmp_path: Path) -> None:
    verdict = metrics(compiled(unit, tmp_path, "auto"))["verdict"]
    bar = -verdict["log_ratio"] / verdict["standard_error"]
    assert bar > 1
    strict = compiled(unit, tmp_path, "auto", f"passes.distill.margin={bar * 1.01}")
    assert isinstance(strict.student, AFFINE) and "cannot tell" in metrics(strict)["in_words"]
    loose = compiled(unit, tmp_path, "auto", f"passes.distill.margin={bar * 0.99}")
    assert isinstance(loose.student, FoldedResidual)


@pytest.mark.parametrize(("limit", "name"), [("max_macs", "macs"), ("max_bytes", "size_bytes")])
def test_a_budget_keeps_the_affine_student_and_says_what_more_would_bring(
    unit: CompileUnit, tmp_path: Path, limit: str, name: str
) -> None:
    free = metrics(compiled(unit, tmp_path, "auto"))
    need = free[name]["branch"]
    kept = compiled(unit, tmp_path, "auto", f"student.{limit}={need}")
    assert isinstance(kept.student, FoldedResidual)
    after = compiled(unit, tmp_path, "auto", f"student.{limit}={need - 1}")
    assert isinstance(after.student, AFFINE)
    line = metrics(after)["in_words"]
    assert f"student.{limit} = {need - 1:,}" in line and "lowers the error by" in line
    times = free["macs"]["branch"] / free["macs"]["affine"]
    assert f"{times:.1f}x the multiply-adds" in line


def test_a_latency_budget_is_judged_by_timing_both_students_here(unit: CompileUnit, tmp_path: Path) -> None:
    after = compiled(unit, tmp_path, "auto", "student.max_latency_us=0.01")
    assert isinstance(after.student, AFFINE)
    found = metrics(after)["latency"]
    assert found["median_us"].keys() == {"affine", "branch"} and "target onnx" in found["method"]
    line = metrics(after)["in_words"]
    assert "us exceed student.max_latency_us = 0.01" in line and "us in the place of" in line
    loose = compiled(unit, tmp_path, "auto", "student.max_latency_us=1e9", "student.max_latency_times=1e9")
    assert isinstance(loose.student, FoldedResidual)
    tight = compiled(unit, tmp_path, "auto", "student.max_latency_times=0.001")
    assert isinstance(tight.student, AFFINE) and "max_latency_times = 0.001" in metrics(tight)["in_words"]


def test_beyond_the_cost_of_rolling_origins_validation_judges_with_a_warning(
    unit: CompileUnit, tmp_path: Path
) -> None:
    found = metrics(compiled(unit, tmp_path, "residual", "passes.distill.judge_macs=1"))
    assert found["folds"] == ["validation"] and "would take too long" in found["warnings"][0]


def test_no_block_is_judged_by_what_was_trained_on_it(
    unit: CompileUnit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every future in a fold's training ends before the first future that is judged."""
    last: dict[str, int] = {}
    plain = Judge.measure

    def look(self: Judge, origin: Origin, student: Residual) -> float:
        last[origin.name] = origin.judged[0] - origin.windows
        return plain(self, origin, student)

    monkeypatch.setattr(Judge, "measure", look)
    compiled(unit, tmp_path, "residual")
    # Training windows 0 .. n-1 end at row n - 1 + L + H; the judged future begins at row begin + L.
    blocks = [gap for name, gap in last.items() if name != "validation"]
    assert blocks and all(gap == unit.task.horizon - 1 for gap in blocks)


def test_fta_trains_the_branch_too(unit: CompileUnit, tmp_path: Path) -> None:
    pipeline = '["record_teacher","build_student","weight_horizons","gather_statistics","solve_affine",'
    pipeline += '"add_branch","align_temporal","distill","fold_affine"]'
    after = compiled(unit, tmp_path, "residual", f"pipeline={pipeline}")
    assert all("fta" in epoch for epoch in metrics(after)["training"])


def test_the_supervised_row_has_a_branch_of_its_own(unit: CompileUnit, tmp_path: Path) -> None:
    passes = build_passes(make_recipe(student="residual", set=SMALL))
    alone = [step for step in passes if not step.needs_teacher]
    after = PassManager(alone).run(unit.with_(teacher=None), PassContext(0, tmp_path))
    assert metrics(after)["training"] and "kd" not in metrics(after)["training"][0]


def test_order_of_the_pipeline_is_checked(taught: CompileUnit, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="put solve_affine before add_branch"):
        AddBranch().requires(taught)
    unit = solved(taught.with_(teacher_store=None), tmp_path)
    with pytest.raises(PassError, match="there is no solved affine student"):
        AddBranch().requires(unit.with_(setting=None))
    with pytest.raises(PassError, match="no affine start"):
        Distill().requires(unit.with_(setting=None))
    other = asdict(Setting(distill=1.0, teachers=(("a", 0.5), ("b", 0.5))))
    with pytest.raises(PassError, match="solved with a, b"):
        AddBranch().requires(unit.with_(setting=other))
