"""Affine students: the solution is the minimiser of the objective that training would minimise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from series import make_data, teacher_of, waves, windows_of
from torch import Tensor

from tsfmc.compiler.ir.objective import Batch
from tsfmc.compiler.learning.affine import (
    AffineSolution,
    Form,
    Setting,
    blend,
    factor,
    horizon_weights,
    ridge_of,
    singular_note,
    solve,
    squared_error,
    target_products,
)
from tsfmc.compiler.learning.statistics import Sums, window_sums
from tsfmc.passes.build_student import Supervised
from tsfmc.passes.weight_horizons import HorizonKD
from tsfmc.passes.weight_horizons import horizon_weights as weights_of_the_term

LOOKBACK, HORIZON, VARIATES = 16, 5, 3
DENSE: tuple[Form, ...] = ("shared", "per-variate")
TEACHER = (("teacher", 1.0),)


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, Sums]:
    """Past, truth, two teachers' forecasts of some windows, and their sums."""
    data = make_data(waves(300))
    past, truth = windows_of(data, "train", LOOKBACK, HORIZON)
    teachers = [teacher_of(data, LOOKBACK, HORIZON, seed)[1] for seed in (1, 2)]
    sums = window_sums(past, truth)
    for name, forecast in zip(("teacher", "other"), teachers, strict=True):
        more = window_sums(past, forecast, name)
        sums.cross.update(more.cross)
        sums.square.update(more.square)
    return past, truth, *teachers, sums  # type: ignore[return-value]


def forecasts(maps: Tensor, past: Tensor) -> Tensor:
    """``m + W (x - m)`` written out; maps ``[1 or D, H, L]``."""
    mean = past.mean(-1, keepdim=True)
    every = maps.expand(past.shape[1], -1, -1)
    return torch.einsum("dhl,bdl->bdh", every, past - mean) + mean


def penalised(maps: Tensor, setting: Setting, past: Tensor, truth: Tensor, teacher: Tensor) -> Tensor:
    """The objective by its own terms, means over windows, variates and steps, and the ridge's share."""
    forecast = forecasts(maps, past)
    batch = Batch(forecast, truth, None, teacher)
    kd = HorizonKD(HORIZON, setting.tau)
    kd.weights = weights_of_the_term(HORIZON, setting.tau).double()
    loss = Supervised()(batch) + setting.distill * kd(batch)
    mean = past.mean(-1, keepdim=True)
    x = past - mean
    if setting.form == "shared":
        x = x.reshape(-1, 1, LOOKBACK)
    # Mean of the Gram's diagonal, times the windows of noise that are added, in windows of the data.
    strength = setting.ridge / len(past) * x.square().sum((0, 2)) / LOOKBACK
    total = 1 + setting.distill * kd.weights
    ridge = (strength[:, None] * total * maps.square().sum(-1)).sum()
    return loss + ridge / forecast.numel()


def lbfgs(setting: Setting, past: Tensor, truth: Tensor, teacher: Tensor) -> Tensor:
    """The maps that a long run of a generic optimiser ends at."""
    count = 1 if setting.form == "shared" else past.shape[1]
    maps = torch.zeros(count, HORIZON, LOOKBACK, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [maps], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = penalised(maps, setting, past, truth, teacher)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return maps.detach()


@pytest.mark.parametrize("form", DENSE)
@pytest.mark.parametrize("ridge", [1e-3, 10.0])
@pytest.mark.parametrize(("distill", "tau"), [(0.0, 0.0), (0.5, 0.0), (2.0, 1.5)])
def test_the_gradient_of_the_objective_is_zero(
    problem: tuple[Tensor, ...], form: Form, ridge: float, distill: float, tau: float
) -> None:
    past, truth, teacher, _, sums = problem
    setting = Setting(form, ridge=ridge, distill=distill, tau=tau, teachers=TEACHER)
    maps = solve(sums, setting).maps().requires_grad_()
    at_zero = torch.zeros_like(maps).requires_grad_()
    (gradient,) = torch.autograd.grad(penalised(maps, setting, past, truth, teacher), maps)
    (start,) = torch.autograd.grad(penalised(at_zero, setting, past, truth, teacher), at_zero)
    # The term keeps its weights in float32.
    assert float(gradient.abs().max()) <= (1e-7 if tau else 1e-12) * float(start.abs().max())
    # Not a property of every map: a little beside the solution the gradient is another.
    (beside,) = torch.autograd.grad(penalised(maps * 1.001, setting, past, truth, teacher), maps)
    assert float(beside.abs().max()) > 1e-6 * float(start.abs().max())


@pytest.mark.parametrize("form", DENSE)
def test_a_long_training_run_ends_there(problem: tuple[Tensor, ...], form: Form) -> None:
    past, truth, teacher, _, sums = problem
    setting = Setting(form, ridge=5.0, distill=0.7, tau=1.0, teachers=TEACHER)
    torch.testing.assert_close(
        lbfgs(setting, past, truth, teacher), solve(sums, setting).maps(), rtol=0, atol=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(
    form=st.sampled_from(DENSE),
    distill=st.one_of(st.floats(0.01, 100), st.just(math.inf)),
    tau=st.floats(-3, 3),
    ridge=st.floats(0.01, 1e4),
)
def test_the_student_of_a_blend_is_the_blend_of_students(
    problem: tuple[Tensor, ...], form: Form, distill: float, tau: float, ridge: float
) -> None:
    sums = problem[-1]
    truth, teacher = blend(Setting(distill=distill, tau=tau), HORIZON)
    torch.testing.assert_close(truth + teacher, torch.ones(HORIZON, dtype=torch.float64))
    alone = solve(sums, Setting(form, ridge=ridge)).maps()
    taught = solve(sums, Setting(form, ridge=ridge, distill=math.inf, teachers=TEACHER)).maps()
    both = solve(sums, Setting(form, ridge=ridge, distill=distill, tau=tau, teachers=TEACHER)).maps()
    torch.testing.assert_close(both, truth[:, None] * alone + teacher[:, None] * taught, atol=1e-9, rtol=1e-7)


def test_the_teacher_alone_is_the_limit_of_large_weights(problem: tuple[Tensor, ...]) -> None:
    sums = problem[-1]
    limit = solve(sums, Setting(distill=1e12, teachers=TEACHER)).maps()
    torch.testing.assert_close(solve(sums, Setting(distill=math.inf, teachers=TEACHER)).maps(), limit)
    truth, teacher = blend(Setting(distill=math.inf), HORIZON)
    assert truth.tolist() == [0.0] * HORIZON and teacher.tolist() == [1.0] * HORIZON


@pytest.mark.parametrize("ratio", [(1.0, 3.0), (0.25, 0.75)])
def test_teachers_are_mixed_by_their_weights(problem: tuple[Tensor, ...], ratio: tuple[float, float]) -> None:
    """The weights count against each other: as labels, a mix is the weighted mean of forecasts."""
    past, _, one, other, sums = problem
    mix = (("teacher", ratio[0]), ("other", ratio[1]))
    mixed = window_sums(past, 0.25 * one + 0.75 * other, "teacher")
    expected = Sums(sums.count, sums.gram, {**sums.cross, **mixed.cross}, sums.square)
    for form in DENSE:
        torch.testing.assert_close(
            solve(sums, Setting(form, distill=0.5, teachers=mix)).maps(),
            solve(expected, Setting(form, distill=0.5, teachers=TEACHER)).maps(),
        )


def test_without_weight_or_teacher_the_target_is_the_truth(problem: tuple[Tensor, ...]) -> None:
    sums = problem[-1]
    for setting in (Setting(distill=0.0, teachers=TEACHER), Setting(distill=2.0)):
        assert target_products(sums, setting) is sums.cross["truth"]


@pytest.mark.parametrize("tau", [-2.0, 0.0, 1.0, 4.0, 1000.0])
@pytest.mark.parametrize("horizon", [1, 2, 96])
def test_horizon_weights_are_those_of_the_objective(tau: float, horizon: int) -> None:
    weights = horizon_weights(tau, horizon)
    torch.testing.assert_close(weights.float(), weights_of_the_term(horizon, tau), rtol=1e-6, atol=0)
    assert float(weights.mean()) == pytest.approx(1)
    assert tau > 100 or float(weights[-1] / weights[0]) == pytest.approx(math.exp(tau) if horizon > 1 else 1)


# --- low rank ----------------------------------------------------------------------------------------


def reduced_rank(past: Tensor, target: Tensor, rank: int, ridge: float) -> np.ndarray:
    """``[D, H, L]`` reduced-rank regression on the windows themselves, by singular values (Izenman 1975).

    The ridge is rows of noise below the data, so everything is ordinary least squares.
    """
    past, target = past - past.mean(-1, keepdim=True), target - past.mean(-1, keepdim=True)
    x, y = past.numpy().transpose(1, 0, 2), target.numpy().transpose(1, 0, 2)
    designs, targets = [], []
    for d in range(len(x)):
        noise = np.sqrt(ridge / len(x[d]) * (x[d] ** 2).sum() / x.shape[2]) * np.eye(x.shape[2])
        designs.append(np.concatenate([x[d], noise]))
        targets.append(np.concatenate([y[d], np.zeros((x.shape[2], y.shape[2]))]))
    dense = [np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(designs, targets, strict=True)]  # [L, H]
    everything = np.concatenate(x)
    noise = np.sqrt(ridge / x.shape[1] * (everything**2).sum() / x.shape[2]) * np.eye(x.shape[2])
    _, singular, right = np.linalg.svd(np.concatenate([everything, noise]), full_matrices=False)
    root, inverse = right.T * singular @ right, right.T / singular @ right
    leading = np.linalg.svd(root @ np.concatenate(dense, axis=1))[0][:, :rank]
    basis = inverse @ leading  # [L, r]
    heads = [np.linalg.lstsq(a @ basis, b, rcond=None)[0] for a, b in zip(designs, targets, strict=True)]
    return np.stack([(basis @ head).T for head in heads])


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
@pytest.mark.parametrize("ridge", [0.1, 50.0])
def test_low_rank_is_reduced_rank_regression(problem: tuple[Tensor, ...], rank: int, ridge: float) -> None:
    past, truth, teacher, _, sums = problem
    solution = solve(sums, Setting("low-rank", rank, ridge))
    assert solution.basis is not None and solution.basis.shape == (rank, LOOKBACK)
    assert solution.heads is not None and solution.heads.shape == (VARIATES, HORIZON, rank)
    np.testing.assert_allclose(solution.maps(), reduced_rank(past, truth, rank, ridge), rtol=0, atol=1e-8)
    taught = Setting("low-rank", rank, ridge, distill=3.0, tau=1.0, teachers=TEACHER)
    shares = blend(taught, HORIZON)
    target = shares[0] * truth + shares[1] * teacher
    np.testing.assert_allclose(
        solve(sums, taught).maps(), reduced_rank(past, target, rank, ridge), rtol=0, atol=1e-8
    )


def test_low_rank_of_one_variate_is_the_best_of_its_rank(problem: tuple[Tensor, ...]) -> None:
    """No other map of the rank has a smaller error, and the optimum is stationary in both factors."""
    past, truth, *_ = problem
    past, truth = past[:, :1], truth[:, :1]
    sums = window_sums(past, truth)
    solution = solve(sums, Setting("low-rank", 2, ridge=1e-6))
    assert solution.basis is not None and solution.heads is not None
    best = squared_error(sums, solution)
    factors = [solution.basis.clone().requires_grad_(), solution.heads.clone().requires_grad_()]
    loss = (forecasts(factors[1] @ factors[0], past) - truth).square().mean()
    assert float(loss.detach()) == pytest.approx(best)
    for gradient in torch.autograd.grad(loss, factors):
        assert float(gradient.abs().max()) < 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        moved = [
            f.detach() + 0.05 * f.detach().abs().mean() * torch.randn(f.shape, generator=generator).double()
            for f in factors
        ]
        assert squared_error(sums, AffineSolution("low-rank", basis=moved[0], heads=moved[1])) > best


def test_full_rank_is_a_map_each(problem: tuple[Tensor, ...]) -> None:
    sums = problem[-1]
    full = solve(sums, Setting("low-rank", LOOKBACK, ridge=1.0)).maps()
    torch.testing.assert_close(full, solve(sums, Setting("per-variate", ridge=1.0)).maps())


# --- what is singular, and what is not data -----------------------------------------------------------


def awkward(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    past = torch.randn(60, VARIATES, LOOKBACK, generator=generator).double()
    truth = torch.randn(60, VARIATES, HORIZON, generator=generator).double()
    if kind == "constant":
        past[:, 1], truth[:, 1] = 4.2, 4.2
    if kind == "all constant":
        past[:], truth[:] = 4.2, 4.2
    if kind == "duplicate":
        past[:, 1], truth[:, 1] = past[:, 0], truth[:, 0]
    if kind == "few":
        past, truth = past[:3], truth[:3]
    if kind == "two values":
        past = past.sign()
    if kind == "wave":
        past = torch.sin(torch.arange(60)[:, None, None] + torch.arange(LOOKBACK)).double().repeat(1, 3, 1)
    return past, truth


@pytest.mark.parametrize("form", ["shared", "per-variate", "low-rank"])
@pytest.mark.parametrize("ridge", [1e-6, 10.0])
@pytest.mark.parametrize("kind", ["constant", "all constant", "duplicate", "few", "two values", "wave"])
def test_the_ridge_makes_singular_sums_solvable(kind: str, form: Form, ridge: float) -> None:
    past, truth = awkward(kind)
    solution = solve(window_sums(past, truth), Setting(form, 4 if form == "low-rank" else 0, ridge))
    assert all(bool(array.isfinite().all()) for array in solution.arrays())
    assert bool(solution.predict(past).isfinite().all())
    if "constant" in kind and form != "shared":
        torch.testing.assert_close(solution.maps()[1], torch.zeros(HORIZON, LOOKBACK).double())
        torch.testing.assert_close(solution.predict(past)[:, 1], truth[:, 1])


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("constant", "1 of 3 variates are constant"),
        ("all constant", "3 of 3 variates are constant"),
        ("few", "3 windows for a lookback of 16"),
        ("duplicate", None),
        ("plain", None),
    ],
)
def test_what_only_the_ridge_decides_is_said(kind: str, note: str | None) -> None:
    found = singular_note(window_sums(*awkward(kind)))
    assert found is None if note is None else note in str(found)


@pytest.mark.parametrize("count", [LOOKBACK - 2, LOOKBACK - 1])
def test_a_window_spans_a_direction(count: int) -> None:
    """Centred windows have lookback - 1 directions: so many windows may be enough, one less are not."""
    past, truth = torch.randn(count, 1, LOOKBACK), torch.randn(count, 1, HORIZON)
    assert (singular_note(window_sums(past, truth)) is None) == (count == LOOKBACK - 1)


def test_the_ridge_counts_in_windows_of_noise(problem: tuple[Tensor, ...]) -> None:
    """As if that many windows of white noise were added, as strong as the data, followed by their mean."""
    past, truth, *_, sums = problem
    ridge = 12.0
    x = (past - past.mean(-1, keepdim=True))[:, 0]
    noise = math.sqrt(ridge / len(past) * float(x.square().sum()) / LOOKBACK) * torch.eye(LOOKBACK).double()
    y = (truth - past.mean(-1, keepdim=True))[:, 0]
    expected = torch.linalg.lstsq(
        torch.cat([x, noise]), torch.cat([y, torch.zeros(LOOKBACK, HORIZON)]), driver="gelsd"
    ).solution.T
    torch.testing.assert_close(solve(sums, Setting("per-variate", ridge=ridge)).maps()[0], expected)


def test_the_ridge_has_a_floor_and_a_value_for_nothing() -> None:
    gram = torch.eye(4).double() * 8
    assert ridge_of(gram, 0.5) == 4.0
    assert ridge_of(gram, 0.0) == pytest.approx(8e-9)
    assert ridge_of(torch.zeros(4, 4).double(), 0.5) == 1.0
    lower = factor(gram, 0.5)
    torch.testing.assert_close(lower @ lower.T, gram + 4 * torch.eye(4))
    assert torch.equal(gram, torch.eye(4).double() * 8)


def test_more_ridge_is_a_smaller_map(problem: tuple[Tensor, ...]) -> None:
    sums = problem[-1]
    for form, rank in (("shared", 0), ("per-variate", 0), ("low-rank", 3)):
        sizes = [
            float(solve(sums, Setting(form, rank, ridge)).maps().norm())  # type: ignore[arg-type]
            for ridge in (1.0, 100.0, 1e4, 1e6)
        ]
        assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.1 * sizes[0]


# --- solutions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "rank"), [("shared", 0), ("per-variate", 0), ("low-rank", 3)])
@pytest.mark.parametrize("shift", [-3.0, 1e5])
def test_a_shifted_window_has_a_shifted_forecast(
    problem: tuple[Tensor, ...], form: Form, rank: int, shift: float
) -> None:
    past, *_, sums = problem
    solution = solve(sums, Setting(form, rank))
    torch.testing.assert_close(
        solution.predict(past + shift), solution.predict(past) + shift, rtol=1e-12, atol=1e-9
    )
    level = torch.full((2, VARIATES, LOOKBACK), shift)
    torch.testing.assert_close(solution.predict(level), torch.full((2, VARIATES, HORIZON), shift).double())


@pytest.mark.parametrize(("form", "rank"), [("shared", 0), ("per-variate", 0), ("low-rank", 3)])
def test_forecasts_and_their_error(problem: tuple[Tensor, ...], form: Form, rank: int) -> None:
    """The error that sums give is that of the forecasts, and forecasts are those of the maps."""
    past, truth, *_, sums = problem
    solution = solve(sums, Setting(form, rank, distill=0.5, teachers=TEACHER))
    torch.testing.assert_close(solution.predict(past), forecasts(solution.maps(), past))
    error = float((forecasts(solution.maps(), past) - truth).square().mean())
    assert squared_error(sums, solution) == pytest.approx(error, rel=1e-10)
    later, other = past[:50] + torch.randn(50, 3, LOOKBACK), truth[:50]
    error = float((forecasts(solution.maps(), later) - other).square().mean())
    assert squared_error(window_sums(later, other), solution) == pytest.approx(error, rel=1e-10)
    assert all(array.is_contiguous() for array in solution.arrays())


def test_what_a_setting_costs() -> None:
    shared, each, low = Setting("shared"), Setting("per-variate"), Setting("low-rank", 8)
    assert [s.parameters(21, 512, 96) for s in (shared, each, low)] == [49_152, 1_032_192, 20_224]
    assert [s.macs(512, 96) for s in (shared, each, low)] == [49_152, 49_152, 4_864]
