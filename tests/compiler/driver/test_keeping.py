"""Statistics are kept for solved students alone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from factory import HORIZON, LOOKBACK

from tsfmc.compiler.driver.keeping import KeepStatistics, waiting
from tsfmc.compiler.driver.recipe import make_recipe
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.update import FILE, read_state
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.solve_affine import SolveAffine

CONTEXT = PassContext()


@pytest.fixture
def solved(taught: CompileUnit) -> CompileUnit:
    unit = GatherStatistics().run(taught, CONTEXT).unit
    unit = BuildStudent(kind="dlinear", config={"maps": "low-rank", "rank": 4}).run(unit, CONTEXT).unit
    return SolveAffine(ridges=(10.0,), lambdas=(1.0,)).run(unit, CONTEXT).unit


@pytest.mark.parametrize(("student", "kept"), [("dlinear", True), ("residual", False)])
def test_of_a_solved_student_and_not_of_one_grown_out_of_it(
    solved: CompileUnit, tmp_path: Path, student: str, kept: bool
) -> None:
    recipe = make_recipe(lookback=LOOKBACK, horizon=HORIZON, student=student)
    with ExitStack() as cleanup:
        result = KeepStatistics(recipe, tmp_path).run(solved, PassContext(cleanup=cleanup))
        assert not (tmp_path / FILE).exists()
    assert result.modified is kept and (tmp_path / FILE).is_file() is kept
    assert ("statistics" in result.unit.facts) is kept


def test_the_setting_is_the_chosen_one(solved: CompileUnit, tmp_path: Path) -> None:
    recipe = make_recipe(lookback=LOOKBACK, horizon=HORIZON)
    with ExitStack() as cleanup:
        KeepStatistics(recipe, tmp_path).run(solved, PassContext(cleanup=cleanup))
    setting, chosen = read_state(tmp_path / FILE)[0].header.setting, solved.setting
    assert chosen is not None
    assert (setting.form, setting.rank) == ("low-rank", 4)
    assert (setting.ridge, setting.pooling) == (chosen["ridge"], chosen["pooling"])


def test_of_the_average_variate_the_same_is_kept(taught: CompileUnit, tmp_path: Path) -> None:
    """What update adds to later is a sum over the variates, however the compile gathered it."""
    recipe = make_recipe(lookback=LOOKBACK, horizon=HORIZON)
    states = []
    for variates in ("each", "average"):
        unit = GatherStatistics(variates=variates).run(taught, CONTEXT).unit
        unit = BuildStudent(kind="dlinear", config={}).run(unit, CONTEXT).unit
        unit = SolveAffine(ridges=(10.0,), lambdas=(1.0,)).run(unit, CONTEXT).unit
        with ExitStack() as cleanup:
            KeepStatistics(recipe, tmp_path).run(unit, PassContext(cleanup=cleanup))
        states.append(read_state(tmp_path / FILE)[0])
    (each, average) = (state.sums for state in states)
    assert each.count == average.count
    torch.testing.assert_close(average.gram, each.gram, rtol=1e-9, atol=1e-9)
    for name, value in each.cross.items():
        torch.testing.assert_close(average.cross[name], value, rtol=1e-9, atol=1e-9)


def test_not_without_a_solved_student(taught: CompileUnit, tmp_path: Path) -> None:
    result = KeepStatistics(make_recipe(lookback=LOOKBACK, horizon=HORIZON), tmp_path).run(taught, CONTEXT)
    assert not result.modified and not (tmp_path / FILE).exists()


def test_what_fails_leaves_the_old_ones(solved: CompileUnit, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"old")
    recipe = make_recipe(lookback=LOOKBACK, horizon=HORIZON)
    with pytest.raises(RuntimeError), ExitStack() as cleanup:
        KeepStatistics(recipe, tmp_path).run(solved, PassContext(cleanup=cleanup))
        raise RuntimeError
    assert (tmp_path / FILE).read_bytes() == b"old" and not waiting(tmp_path / FILE).exists()
