"""A prior is more windows on which truth and teachers agree, at each variate's scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tsfmc.compiler.learning.affine import Setting, solve, squared_error
from tsfmc.compiler.learning.grid import PLAIN, Grid
from tsfmc.compiler.learning.judging import judge
from tsfmc.compiler.learning.rolling_origin import select
from tsfmc.compiler.learning.statistics import Fold, Sums, window_sums

LOOKBACK, HORIZON, VARIATES = 12, 5, 2
MIX = (("teacher", 1.0),)


def _windows(count: int, seed: int, variates: int = VARIATES) -> tuple[Tensor, Tensor, Tensor]:
    """Past, truth, teacher."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, variates + 1)[:, None] * 3.0
    walk = torch.randn(count, variates, LOOKBACK + HORIZON, generator=generator).cumsum(-1).double() * scale
    past, future = walk[..., :LOOKBACK], walk[..., LOOKBACK:]
    teacher = past[..., -1:] + 0.3 * scale * torch.randn(count, variates, HORIZON, generator=generator)
    return past, future, teacher


def _sums(count: int, seed: int) -> Sums:
    past, truth, teacher = _windows(count, seed)
    sums, taught = window_sums(past, truth), window_sums(past, teacher, "teacher")
    return Sums(sums.count, sums.gram, {**sums.cross, **taught.cross}, {**sums.square, **taught.square})


def _prior(count: int = 40) -> tuple[Sums, Tensor, Tensor]:
    past, _, teacher = _windows(count, 9, 1)
    return window_sums(past, teacher, "teacher"), past, teacher


@pytest.mark.parametrize("name", ["truth", "teacher"])
def test_weight_in_windows_is_that_many_more_windows_at_the_scale_of_the_variate(name: str) -> None:
    sums = _sums(60, 1)
    prior, past, teacher = _prior()
    # As many windows as the prior has: each of its windows once, at the variate's mean square.
    found = sums.with_prior(prior, 40)
    for variate in range(VARIATES):
        wanted_trace = float(sums.gram[variate].trace()) / 60
        scale = math.sqrt(wanted_trace / (float(prior.gram[0].trace()) / 40))
        more = window_sums(past * scale, teacher * scale, name)
        assert torch.allclose(found.gram[variate], sums.gram[variate] + more.gram[0])
        assert torch.allclose(found.cross[name][variate], sums.cross[name][variate] + more.cross[name][0])
        assert torch.allclose(found.square[name][variate], sums.square[name][variate] + more.square[name][0])
    assert found.count == 100


def test_weight_zero_changes_nothing_and_a_large_one_leaves_the_prior_alone() -> None:
    sums, prior = _sums(60, 1), _prior()[0]
    assert sums.with_prior(prior, 0.0) is sums
    alone = solve(Sums(prior.count, prior.gram, {"truth": prior.cross["teacher"]}, {}), Setting(ridge=1e-6))
    leaning = solve(sums, Setting(ridge=1e-6, prior=1e9), prior)
    assert torch.allclose(leaning.maps(), alone.maps(), atol=1e-5)


def test_without_a_window_of_its_own_a_student_is_the_prior() -> None:
    prior = _prior()[0]
    zero = {"truth": torch.zeros(1, LOOKBACK, HORIZON).double()}
    nothing = Sums(0, torch.zeros(1, LOOKBACK, LOOKBACK).double(), zero, {"truth": zero["truth"][:, 0]})
    alone = solve(Sums(prior.count, prior.gram, {"truth": prior.cross["teacher"]}, {}), Setting(ridge=4.0))
    assert torch.allclose(solve(nothing, Setting(ridge=4.0, prior=40.0), prior).maps(), alone.maps())


@pytest.mark.parametrize("form", ["shared", "per-variate"])
def test_judging_a_prior_is_solving_with_it(form: str) -> None:
    prior = _prior()[0]
    fold = Fold("block", _sums(60, 1), _sums(30, 2), prior)
    grid = Grid(
        forms=(form,), ridges=(5.0,), distill=(1.0, math.inf), taus=(0.0,), mixes=(MIX,), priors=(0.0, 25.0)
    )
    found = judge(fold, grid)
    assert {setting.prior for setting in found} == {0.0, 25.0} and PLAIN in found
    for setting, error in found.items():
        solution = solve(fold.fit, setting, prior)
        assert error == pytest.approx(squared_error(fold.judged, solution), rel=1e-9)


class _Folds:
    """Blocks of data on which only the prior says the truth."""

    def __init__(self, prior: Sums | None) -> None:
        self.prior = prior

    def folds(self):  # type: ignore[no-untyped-def]
        for seed in range(3):
            yield Fold(f"block {seed}", _sums(4, seed), _sums(50, seed + 10), self.prior)


def test_selection_takes_a_prior_that_helps_and_solves_with_it() -> None:
    # The teacher repeats the last value, the best forecast of a random walk; four windows are few.
    prior = _prior(400)[0]
    grid = Grid(forms=("shared",), ridges=(1.0,), distill=(0.0,), mixes=(MIX,), priors=(0.0, 200.0))
    selection = select(_Folds(prior), grid)
    assert selection.chosen.prior == 200.0
    expected = solve(_sums(4, 2), selection.chosen, prior)
    assert torch.allclose(selection.solution.maps(), expected.maps())
    assert [row["prior"] for row in selection.table if row["ridge"] == 1.0] == [0.0, 200.0]


def test_what_is_not_offered_is_not_chosen() -> None:
    grid = Grid(forms=("shared",), ridges=(1.0,), distill=(math.inf,), mixes=(MIX,))
    selection = select(_Folds(None), grid)
    assert math.isinf(selection.chosen.distill)
    chosen, plain = selection.table  # what all are compared with stands in the table, too
    assert chosen["chosen"] and not plain["chosen"] and plain["lambda"] == 0
