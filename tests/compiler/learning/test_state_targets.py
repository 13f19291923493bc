"""States as targets: their components, their sums, and the basis that they shape, against dense algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from series import make_data, teacher_of, waves, windows_of
from torch import Tensor

from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning import state_targets
from tsfmc.compiler.learning.affine import Setting, solve, squared_error, state_weight
from tsfmc.compiler.learning.grid import PLAIN, Grid
from tsfmc.compiler.learning.judging import judge
from tsfmc.compiler.learning.rolling_origin import select
from tsfmc.compiler.learning.state_targets import principal_axes, reduced_states
from tsfmc.compiler.learning.statistics import STATES, Sums, WindowStatistics, window_sums

LOOKBACK, HORIZON = 20, 6
MIX = (("teacher", 1.0),)


def states_of(past: Tensor, width: int = 9, noise: float = 0.1) -> Tensor:
    """``[N, D, K]``: a noisy linear map of the normalised window, as a teacher that normalises would have."""
    generator = torch.Generator().manual_seed(4)
    x = past - past.mean(-1, keepdim=True)
    maps = torch.randn(width, LOOKBACK, generator=generator, dtype=torch.float64)
    found = x / x.square().mean(-1, keepdim=True).sqrt() @ maps.T
    return found + noise * torch.randn(found.shape, generator=generator, dtype=torch.float64)


def source(*, states: bool = True, variates: int = 3) -> WindowStatistics:
    data = make_data(waves(620, variates))
    labels = [("teacher", teacher_of(data, LOOKBACK, HORIZON)[0])]
    if states:
        found = states_of(windows_of(data, "train", LOOKBACK, HORIZON)[0]).numpy()
        labels.append((STATES, lambda first, last: found[first:last]))
    return WindowStatistics(data, LOOKBACK, HORIZON, labels, blocks=6)


def test_components_are_the_leading_ones_of_the_normalised_states(
    taught: CompileUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = taught.teacher_store
    assert store is not None
    states = store.states("train", range(430)).flatten(2).double().numpy()
    centred = states - states.reshape(-1, states.shape[2]).mean(0)
    values = np.linalg.svd(centred.reshape(-1, states.shape[2]), compute_uv=False)
    found = reduced_states(store, 5)(0, 430)
    assert found.shape == (430, 3, 5)
    products = np.einsum("ndk,ndl->kl", found, found)
    np.testing.assert_allclose(products, np.diag(values[:5] ** 2), atol=1e-6 * values[0] ** 2)
    np.testing.assert_allclose(reduced_states(store, 5)(7, 40), found[7:40], rtol=1e-12)
    labels = reduced_states(store, 5)
    monkeypatch.setattr(state_targets, "CELLS", 1)  # one window at a time, and two rows to learn from
    np.testing.assert_allclose(labels(0, 9), found[:9], rtol=1e-12)
    assert reduced_states(store, 5)(0, 9).shape[2] <= 5


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_axes(shape: tuple[int, int]) -> None:
    """Tall or wide; of rank 3 there are no more than three."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in shape)
    rows = left @ right.T
    axes = principal_axes(rows, 8)
    assert axes.shape == (shape[1], 3)
    torch.testing.assert_close(axes.T @ axes, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(rows @ axes @ axes.T, rows)


def test_sums_meet_the_states_where_the_normalised_window_does() -> None:
    """``sum s (x - m) h`` is FTA's product ``sum (x - m)/s h`` with a window's weight ``s^2``."""
    statistics = source()
    past, _ = windows_of(statistics.data, "train", LOOKBACK, HORIZON)
    x = past - past.mean(-1, keepdim=True)
    spread = x.square().mean(-1, keepdim=True).sqrt()
    states = states_of(past)
    sums = statistics.all()
    cross = torch.einsum("nd,ndl,ndk->dlk", spread[..., 0].square(), x / spread, states)
    torch.testing.assert_close(sums.cross[STATES], cross)
    torch.testing.assert_close(sums.square[STATES], (states * spread).square().sum(0))
    by_windows = window_sums(past, states, STATES)
    torch.testing.assert_close(by_windows.cross[STATES], cross)
    # The truth's sums are as they are without states, bit for bit.
    plain = source(states=False).all()
    assert torch.equal(plain.cross["truth"], sums.cross["truth"]) and torch.equal(plain.gram, sums.gram)


def reduced_rank(x: Tensor, y: Tensor, states: Tensor, align: float, rank: int) -> Tensor:
    """``[H, L]`` by dense algebra on the windows: leading right vectors of the fit of all targets."""
    root = (align * y.square().sum() / states.square().sum()).sqrt()
    targets = torch.cat([y, root * states], dim=1)
    fitted = x @ torch.linalg.pinv(x, rtol=1e-9) @ targets
    kept = torch.linalg.svd(fitted, full_matrices=False)[2][:rank]
    embedding = fitted @ kept.T  # the subspace of windows that the basis spans
    forecast = embedding @ torch.linalg.lstsq(embedding, y).solution
    return torch.linalg.pinv(x, rtol=1e-9) @ forecast


@pytest.mark.parametrize("align", [0.0, 0.3, 5.0])
def test_agrees_with_dense_reduced_rank_regression(align: float) -> None:
    statistics = source(variates=1)
    past, future = (part[:, 0] for part in windows_of(statistics.data, "train", LOOKBACK, HORIZON))
    mean = past.mean(-1, keepdim=True)
    x, y = past - mean, future - mean
    states = states_of(past[:, None])[:, 0] * x.square().mean(-1, keepdim=True).sqrt()
    expected = reduced_rank(x, y, states, align, 3)
    found = solve(statistics.all(), Setting("low-rank", 3, ridge=1e-6, align=align)).maps()[0].T
    torch.testing.assert_close(x @ found, x @ expected, rtol=0, atol=1e-4 * float(y.abs().max()))
    if align:
        plain = solve(statistics.all(), Setting("low-rank", 3, ridge=1e-6)).maps()[0].T
        assert float((x @ (plain - expected)).abs().max()) > 1e-2


def test_states_of_few_directions_are_the_basis_where_they_count_most() -> None:
    """DistilTS, section 2.1.3: states that are a linear map of ``r`` numbers are recovered from the basis."""
    past, future = windows_of(make_data(waves(400)), "train", LOOKBACK, HORIZON)
    sums, states = window_sums(past, future), states_of(past, width=3, noise=0.0)
    aimed = window_sums(past, states, STATES)
    sums = replace(sums, cross={**sums.cross, **aimed.cross}, square={**sums.square, **aimed.square})
    basis = solve(sums, Setting("low-rank", 3, ridge=1e-8, align=1e8)).basis
    assert basis is not None
    x = past - past.mean(-1, keepdim=True)
    embedding = (x / x.square().mean(-1, keepdim=True).sqrt() @ basis.T).flatten(0, 1)
    aligned = embedding @ torch.linalg.lstsq(embedding, states.flatten(0, 1)).solution
    torch.testing.assert_close(aligned, states.flatten(0, 1), rtol=0, atol=1e-4)


def test_the_number_and_scale_of_states_do_not_count() -> None:
    sums = source().all()
    louder = replace(
        sums,
        cross={**sums.cross, STATES: 7 * torch.cat([sums.cross[STATES]] * 2, dim=2)},
        square={**sums.square, STATES: 49 * torch.cat([sums.square[STATES]] * 2, dim=1)},
    )
    setting = Setting("low-rank", 3, align=0.5)
    torch.testing.assert_close(solve(louder, setting).maps(), solve(sums, setting).maps())
    silent = replace(sums, square={**sums.square, STATES: 0 * sums.square[STATES]})
    assert state_weight(silent, 1.0) == 0


def test_without_weight_nothing_changes_by_a_bit() -> None:
    grid = Grid(forms=("low-rank",), ranks=(2, 5), distill=(0.0, 1.0), mixes=(MIX,))
    one, other = select(source(), grid), select(source(states=False), grid)
    assert one.table == other.table
    for a, b in zip(one.solution.arrays(), other.solution.arrays(), strict=True):
        assert torch.equal(a, b)


def test_judged_as_solved() -> None:
    """The errors that candidates are compared by are those of the students that would be solved."""
    grid = Grid(
        forms=("shared", "low-rank"),
        ranks=(2, 4),
        ridges=(20.0,),
        poolings=(0.0, 0.5),
        distill=(0.0, 1.0),
        taus=(0.0,),
        mixes=(MIX,),
        aligns=(0.0, 0.7),
    )
    *_, fold = source().folds()
    found = judge(fold, grid)
    assert {s.align for s in found if s.form == "shared"} == {0.0}
    aligned = [setting for setting in found if setting.align]
    assert len(aligned) == 2 * 2 * 2
    for setting in aligned:
        error = squared_error(fold.judged, solve(fold.fit, setting))
        assert found[setting] == pytest.approx(error, rel=1e-8)
        # They are other students than without.
        assert found[setting] != pytest.approx(found[replace(setting, align=0.0)], rel=1e-6)


def test_a_prior_has_no_states_and_is_tried_without() -> None:
    sums = source().all()
    prior = Sums(
        50, sums.gram[:1], {"teacher": sums.cross["teacher"][:1]}, {"teacher": sums.square["truth"][:1]}
    )
    assert sums.with_prior(prior, 10.0).cross.keys() == {"truth", "teacher"}
    grid = Grid(forms=("low-rank",), ranks=(2,), aligns=(0.0, 1.0), priors=(0.0, 10.0))
    settings = grid.settings(LOOKBACK, HORIZON, 3)
    assert {(s.prior > 0, s.align) for s in settings} == {(False, 0.0), (False, 1.0), (True, 0.0)}
    *_, fold = source().folds()
    assert set(settings) | {PLAIN} == set(judge(replace(fold, prior=prior), grid))
