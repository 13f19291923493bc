"""Rolling origins: sums judge as windows would, the test split is never read, and little data is said so.

Which of the judged settings is then taken is a rule of its own, and not what is tested here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from series import make_data, teacher_of, waves, windows_of
from torch import Tensor

from tsfmc.compiler.data import Dataset
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.learning.affine import Setting, solve, squared_error
from tsfmc.compiler.learning.rolling_origin import (
    PLAIN,
    Grid,
    Selection,
    judge,
    judgements,
    middle,
    near_best,
    select,
    standard_error,
)
from tsfmc.compiler.learning.statistics import Fold, WindowStatistics, window_sums

LOOKBACK, HORIZON = 20, 6
MIX = (("teacher", 1.0),)
GRID = Grid(
    ranks=(1, 3, 8),
    ridges=(1.0, 200.0),
    distill=(0.0, 0.5, 2.0, math.inf),
    taus=(0.0, 1.5),
    mixes=(MIX,),
)
SPLITS = Splits(420, 90, 110)


def source(data: Dataset, *, taught: bool = True, blocks: int = 6) -> WindowStatistics:
    labels, _ = teacher_of(data, LOOKBACK, HORIZON)
    return WindowStatistics(data, LOOKBACK, HORIZON, [("teacher", labels)] if taught else [], blocks=blocks)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_data(waves(620), SPLITS)


@pytest.fixture(scope="module")
def selection(data: Dataset) -> Selection:
    return select(source(data), GRID)


def windows_of_folds(
    data: Dataset, blocks: int
) -> Iterator[tuple[str, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Name, (past, truth, teacher) fitted on and (past, truth) judged, as windows."""
    past, truth = windows_of(data, "train", LOOKBACK, HORIZON)
    _, teacher = teacher_of(data, LOOKBACK, HORIZON)
    for block in range(2, blocks):
        begin, end = len(past) * block // blocks, len(past) * (block + 1) // blocks
        until = begin - HORIZON + 1
        yield (
            f"block {block}",
            (past[:until], truth[:until], teacher[:until]),
            (past[begin:end], truth[begin:end]),
        )
    yield "validation", (past, truth, teacher), windows_of(data, "val", LOOKBACK, HORIZON)


def test_judged_from_sums_as_by_fitting_and_forecasting(data: Dataset) -> None:
    """Every form, rank, ridge, weight and tau, block by block, against forecasts of the judged windows."""
    settings = {*GRID.settings(LOOKBACK, HORIZON, 3), PLAIN}
    assert {setting.form for setting in settings} == {"shared", "per-variate", "low-rank"}
    names = []
    for fold, (name, fitted, judged) in zip(source(data).folds(), windows_of_folds(data, 6), strict=True):
        names.append(fold.name)
        assert fold.name == name
        if name in ("block 3", "block 4"):
            continue
        past, truth, teacher = fitted
        sums = window_sums(past, truth)
        sums.cross.update(window_sums(past, teacher, "teacher").cross)
        found = judge(fold, GRID)
        assert found.keys() == settings
        for setting, error in found.items():
            direct = float((solve(sums, setting).predict(judged[0]) - judged[1]).square().mean())
            assert error == pytest.approx(direct, rel=1e-7), (setting, name)
    assert names == ["block 2", "block 3", "block 4", "block 5", "validation"]


def test_the_table_has_every_candidate_and_what_its_blocks_said(data: Dataset, selection: Selection) -> None:
    folds = source(data).folds()
    said = {fold.name: judge(fold, GRID) for fold in folds}
    seen = set()
    for row in selection.table:
        setting = next(
            setting
            for setting in said["validation"]
            if (setting.form, setting.rank, setting.ridge, setting.tau)
            == (row["form"], row["rank"], row["ridge"], row["tau"])
            and row["lambda"] == (setting.distill if math.isfinite(setting.distill) else "inf")
            and row["teachers"] == dict(setting.teachers)
            and row.get("pooling", 0.0) == getattr(setting, "pooling", 0.0)
        )
        assert setting not in seen
        seen.add(setting)
        assert row["mse"].keys() == said.keys()
        for name, error in row["mse"].items():
            assert error == pytest.approx(said[name][setting], rel=1e-5)
    assert seen >= set(GRID.settings(LOOKBACK, HORIZON, 3))


def test_the_ratio_is_to_the_plain_candidate_block_by_block(selection: Selection) -> None:
    plain = next(
        row
        for row in selection.table
        if (row["form"], row["ridge"], row["lambda"]) == ("shared", PLAIN.ridge, 0)
    )
    assert plain["log_ratio"] == 0 and plain["standard_error"] == 0
    for row in selection.table:
        # Errors may be written with six digits.
        logs = np.log([row["mse"][name] / plain["mse"][name] for name in plain["mse"]])
        assert logs.min() - 2e-5 <= row["log_ratio"] <= logs.max() + 2e-5  # some mean of them
        assert row["standard_error"] == pytest.approx(logs.std(ddof=1) / np.sqrt(len(logs)), abs=2e-5)
        shape = Setting(row["form"], row["rank"])
        assert row["parameters"] == shape.parameters(3, LOOKBACK, HORIZON)
        assert row["macs"] == shape.macs(LOOKBACK, HORIZON)


def test_the_solution_is_of_all_of_training_with_the_chosen_setting(
    data: Dataset, selection: Selection
) -> None:
    chosen = solve(source(data).all(), selection.chosen)
    past, future = windows_of(data, "val", LOOKBACK, HORIZON)
    torch.testing.assert_close(selection.solution.predict(past), chosen.predict(past))
    error = float((chosen.predict(past) - future).square().mean())
    assert selection.validation_mse == pytest.approx(error, rel=1e-9)
    assert not selection.warnings


def test_the_choice_is_not_worse_than_the_plain_one(selection: Selection) -> None:
    """Variates of different periods and a teacher that knows: on the blocks, plain is not the best."""
    near = [row for row in selection.table if row["near_best"]]
    assert near and all(row["log_ratio"] < 0 for row in near)
    best = min(selection.table, key=lambda row: row["log_ratio"])
    for row in near:
        assert row["log_ratio"] - best["log_ratio"] < 0.1


def test_a_teacher_is_charged_a_part_of_the_standard_error_of_its_gain() -> None:
    """The same mean gain: once in every block, once in three blocks out of seven."""
    free, taught, synthetic = Setting(), Setting(distill=1.0, teachers=MIX), Setting(prior=100.0)
    level = torch.full((7,), 0.3, dtype=torch.float64)
    steady = torch.full((7,), -0.004, dtype=torch.float64)
    odd = torch.tensor([0.12, -0.11, 0.07, -0.13, 0.11, -0.09, 0.0], dtype=torch.float64)
    assert middle(odd) == pytest.approx(-0.004)
    for gain, chosen in ((steady, taught), (odd, free)):
        ratios = {free: level, taught: level + gain, synthetic: level + gain + 0.001}
        scores = judgements(ratios)
        assert scores[free] == middle(level)
        charged = float(gain.std() / 7**0.5) / 4
        assert scores[taught] == pytest.approx(middle(level + gain) + charged)
        assert scores[synthetic] == pytest.approx(middle(level + gain) + 0.001 + charged)
        assert min(scores, key=scores.__getitem__) == chosen
    assert judgements({taught: level + odd}) == {taught: middle(level + odd)}  # nothing to charge against


def test_a_tie_is_close_and_within_a_standard_error() -> None:
    best, near, far = Setting(ridge=1.0), Setting(ridge=2.0), Setting(ridge=3.0)
    level = torch.zeros(7, dtype=torch.float64)
    wobble = torch.tensor([0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.0], dtype=torch.float64)
    ratios = {best: level, near: level + wobble + 0.0015, far: level + 0.0015}
    scores = judgements(ratios)
    assert near_best(ratios, scores) == {best, near}


def test_the_test_split_is_never_read(data: Dataset, selection: Selection) -> None:
    poisoned = np.array(data.values)
    poisoned[SPLITS.train + SPLITS.val :] = np.nan
    found = select(source(replace(data, values=poisoned)), GRID)
    assert found.chosen == selection.chosen and found.table == selection.table
    for one, other in zip(found.solution.arrays(), selection.solution.arrays(), strict=True):
        assert torch.equal(one, other)


def test_validation_is_read_and_is_one_fold_among_others(data: Dataset, selection: Selection) -> None:
    """Its values change the last fold's errors and nothing that is fitted."""
    changed = np.array(data.values)
    changed[SPLITS.train + 5 :] += 3 * np.random.default_rng(5).standard_normal(
        changed[SPLITS.train + 5 :].shape
    )
    found = select(source(replace(data, values=changed)), GRID)
    for one, other in zip(found.table, selection.table, strict=True):
        assert {**one["mse"], "validation": 0} == {**other["mse"], "validation": 0}
        assert one["mse"]["validation"] > other["mse"]["validation"]


def test_too_few_blocks_fall_back_to_validation_and_say_so(data: Dataset) -> None:
    found = select(source(data, blocks=100), GRID)
    assert all(row["mse"].keys() == {"validation"} for row in found.table)
    assert all(row["standard_error"] == 0 for row in found.table)
    assert found.warnings == ("too few windows for rolling origins: chosen by the validation split alone",)
    best = min(row["mse"]["validation"] for row in found.table)
    assert found.validation_mse <= best * (1 + 1e-9)  # of one fold, the best is the best


def test_fewer_windows_than_lookback_are_said(data: Dataset) -> None:
    short = make_data(np.array(data.values[:80]), Splits(38, 20, 22))
    found = select(source(short), GRID)
    assert any("13 windows for a lookback of 20" in line for line in found.warnings)
    assert bool(torch.isfinite(found.solution.maps()).all()) and math.isfinite(found.validation_mse)


@pytest.mark.parametrize("kind", ["constant", "duplicate", "dead validation"])
def test_awkward_variates_are_judged_in_finite_numbers(kind: str) -> None:
    values = waves(620)
    if kind == "constant":
        values[:, 1] = 0.1
    if kind == "duplicate":
        values[:, 1] = values[:, 0]
    if kind == "dead validation":
        values[SPLITS.train :] = values[SPLITS.train]
    found = select(source(make_data(values, SPLITS)), GRID)
    assert all(math.isfinite(row["log_ratio"]) for row in found.table)
    assert all(bool(array.isfinite().all()) for array in found.solution.arrays())
    assert any("1 of 3 variates are constant" in line for line in found.warnings) == (kind == "constant")


def test_one_variate_needs_no_map_each(data: Dataset) -> None:
    one = make_data(np.array(data.values[:, :1]), SPLITS)
    forms = {row["form"] for row in select(source(one), GRID).table}
    assert forms == {"shared", "low-rank"}
    assert {s.form for s in replace(GRID, forms=("per-variate",)).settings(LOOKBACK, HORIZON, 1)} == {
        "per-variate"
    }


def test_candidates() -> None:
    """Every combination once; a teacher's weights only with a teacher; no rank that a dense map has not."""
    settings = GRID.settings(LOOKBACK, HORIZON, 3)
    assert len(set(settings)) == len(settings)
    for form, ranks in (("shared", {0}), ("low-rank", {1, 3, 8})):
        mine = [s for s in settings if s.form == form]
        assert {s.rank for s in mine} == ranks and {s.ridge for s in mine} == {1.0, 200.0}
        aims = {(s.distill, s.tau) for s in mine}
        assert aims == {(0.0, 0.0), (0.5, 0.0), (0.5, 1.5), (2.0, 0.0), (2.0, 1.5), (math.inf, 0.0)}
    alone = replace(GRID, mixes=()).settings(LOOKBACK, HORIZON, 3)
    assert {(s.distill, s.tau, s.teachers) for s in alone} == {(0.0, 0.0, ())}
    assert {s.rank for s in replace(GRID, ranks=(1, 6, 7, 50)).settings(LOOKBACK, HORIZON, 1)} == {0, 1, 6}
    assert {s.rank for s in replace(GRID, ranks=(1, 19, 20)).settings(LOOKBACK, 96, 3)} == {0, 1, 19}
    assert all((s.distill == 0) == (s.teachers == ()) for s in settings)
    taught = replace(GRID, distill=(0.5, math.inf)).settings(LOOKBACK, HORIZON, 3)
    assert all(s.teachers for s in taught)  # the truth alone was not asked for


@pytest.mark.parametrize("forms", [("shared",), ("per-variate",), ("low-rank",)])
def test_only_what_was_asked_for_is_judged(data: Dataset, forms: tuple[str, ...]) -> None:
    """And the plain candidate, to which everything is compared."""
    grid = replace(GRID, forms=forms)
    fold = next(source(data).folds())
    found = judge(fold, grid)
    assert found.keys() == {*grid.settings(LOOKBACK, HORIZON, 3), PLAIN}
    whole = judge(fold, GRID)
    for setting in found.keys() & whole.keys():
        assert found[setting] == pytest.approx(whole[setting], rel=1e-9)


@pytest.mark.parametrize("form", ["shared", "per-variate", "low-rank"])
@pytest.mark.parametrize("distill", [0.5, math.inf])
def test_what_is_fixed_by_hand_is_what_comes_out(data: Dataset, form: str, distill: float) -> None:
    """The paper's setting: nothing is searched, so nothing else may be chosen, not the plain one either."""
    grid = Grid(forms=(form,), ranks=(3,), ridges=(7.0,), distill=(distill,), taus=(1.0,), mixes=(MIX,))  # type: ignore[arg-type]
    chosen = select(source(data), grid).chosen
    assert (chosen.form, chosen.rank, chosen.teachers) == (form, 3 if form == "low-rank" else 0, MIX)
    assert (chosen.ridge, chosen.distill) == (pytest.approx(7.0), pytest.approx(distill))
    assert chosen.tau == (0.0 if math.isinf(distill) else 1.0)


def test_many_variates_and_a_long_lookback_are_judged_almost_as_fitted() -> None:
    """Above 128 steps ranks are compared inside leading directions: the shortcut keeps nearly all of them."""
    values = waves(900, 5)
    data = make_data(values, Splits(600, 150, 150))
    past, truth = windows_of(data, "train", 150, 12)
    later, future = windows_of(data, "val", 150, 12)
    fold = Fold("x", window_sums(past, truth), window_sums(later, future))
    found = judge(fold, Grid(ranks=(4, 8), ridges=(100.0,)))
    for setting, error in found.items():
        exact = squared_error(fold.judged, solve(fold.fit, setting))
        close = 1e-3 if setting.form == "low-rank" else 1e-9
        assert error == pytest.approx(exact, rel=close)


def test_a_source_without_folds_is_refused() -> None:
    class Nothing:
        def folds(self) -> Iterator[Fold]:
            yield from ()

    with pytest.raises(ValueError, match="without folds"):
        select(Nothing(), GRID)


def test_standard_error() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 5.0]).double()
    assert standard_error(values) == pytest.approx(float(values.std()) / 2)
    assert standard_error(values[:1]) == 0
