"""The supervised row is fair: the exact optimum of the same family, chosen from the same candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsfmc.compiler.driver.baseline import TrainBaseline
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.pipeline import build_passes
from tsfmc.compiler.driver.recipe import make_recipe
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.affine import setting_of, solve, squared_error
from tsfmc.compiler.learning.statistics import WindowStatistics

Key = tuple[Any, ...]


def choice(unit: CompileUnit) -> dict[str, Any]:
    return next(dict(entry.metrics) for entry in unit.record if "selection" in entry.metrics)


def table(unit: CompileUnit, *, taught: bool) -> dict[Key, dict[str, Any]]:
    return {
        (row["form"], row["rank"], row["ridge"], row["lambda"], row["tau"], row["prior"]): row
        for row in choice(unit)["selection"]
        if taught or not (row["teachers"] or row["prior"])
    }


@pytest.fixture
def both(unit: CompileUnit, tmp_path: Path) -> tuple[CompileUnit, CompileUnit]:
    """The unit of a default compile, and that of its supervised row."""
    recipe = make_recipe(lookback=48, horizon=12, refit="all")
    passes, context = build_passes(recipe), PassContext(recipe.seed, tmp_path)
    artifact = PassManager([*passes, TrainBaseline(passes, seed=recipe.seed)]).run(unit, context)
    assert artifact.supervised is not None
    return artifact, artifact.supervised


def test_the_same_candidates_less_those_of_the_teacher(both: tuple[CompileUnit, CompileUnit]) -> None:
    artifact, supervised = both
    every, plain = table(artifact, taught=True), table(supervised, taught=True)
    assert len(every) > len(plain) > 10
    assert {key[0] for key in plain} == {"shared", "per-variate", "low-rank"}
    assert table(artifact, taught=False).keys() == plain.keys()
    for key, row in plain.items():
        assert row["teachers"] == {} and row["lambda"] == row["prior"] == 0
        assert row["mse"] == pytest.approx(every[key]["mse"]), key
        assert row["log_ratio"] == pytest.approx(every[key]["log_ratio"], abs=1e-9), key


def test_it_is_the_exact_optimum_of_its_choice(both: tuple[CompileUnit, CompileUnit]) -> None:
    """Of the sums of the truth alone; that these solutions minimise is shown where they are solved."""
    _, supervised = both
    statistics, setting = supervised.statistics, setting_of(supervised.setting)
    assert isinstance(statistics, WindowStatistics) and statistics.targets == ("truth",)
    assert setting.distill == 0
    exact = solve(statistics.all(), setting)
    found = choice(supervised)
    validation = list(statistics.folds())[-1].judged
    assert found["validation_mse"] == pytest.approx(squared_error(validation, exact))


def test_it_learnt_nothing_from_the_teacher_and_is_not_refitted(
    both: tuple[CompileUnit, CompileUnit],
) -> None:
    artifact, supervised = both
    assert artifact.judged is not None and artifact.teacher_store is not None
    assert supervised.judged is None and supervised.teacher is supervised.teacher_store is None
    assert [entry.name for entry in supervised.record] == [
        "build_student", "gather_statistics", "solve_affine", "fold_affine",
    ]  # fmt: skip
    options = {entry.name: entry.config for entry in artifact.record}
    assert all(entry.config == options[entry.name] for entry in supervised.record)
