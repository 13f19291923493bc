"""Parity passes what is ill-conditioned and refuses what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tsfmc.targets.measure.conditioning import means, neighbours
from tsfmc.targets.measure.parity import check_parity, hard_windows

TOLERANCE = 1e-5
WINDOWS = np.random.default_rng(0).standard_normal((8, 2, 400)).cumsum(-1).astype(np.float32) + 3
Model = Callable[[np.ndarray], np.ndarray]


def engine(model: Callable[[Tensor], Tensor]) -> Model:
    def run(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = model(torch.from_numpy(past)).numpy()
        return forecast

    return run


class Cancelling(nn.Module):
    """Rows of weights of some tens that sum to zero, and heads of some hundreds."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis = 30 * torch.randn(400, 8, generator=generator)
        self.basis = basis - basis.mean(0)
        self.heads = 300 * torch.randn(8, 3, generator=generator)

    def forward(self, past: Tensor) -> Tensor:
        return past @ self.basis @ self.heads + past.mean(-1, keepdim=True)


def in_order(model: Cancelling, past: Tensor) -> Tensor:
    """The same product with one accumulator."""
    embedding = torch.zeros(*past.shape[:2], 8)
    for step in range(past.shape[-1]):
        embedding += past[..., step : step + 1] * model.basis[step]
    return embedding @ model.heads + past.mean(-1, keepdim=True)


def test_another_order_of_sums_passes_where_products_cancel() -> None:
    model = Cancelling()
    found = check_parity(
        engine(lambda past: in_order(model, past)), engine(model), hard_windows(WINDOWS), TOLERANCE
    )
    assert found.per_kind["constant"].max_rel > TOLERANCE, "the case is ill-conditioned, or shows nothing"
    assert found.passed, found.describe()


@pytest.mark.parametrize("share", [1.001, 0.999])
def test_a_wrong_weight_is_refused_where_products_cancel(share: float) -> None:
    model, wrong = Cancelling(), Cancelling()
    wrong.basis[7] *= share
    assert not check_parity(engine(wrong), engine(model), hard_windows(WINDOWS), TOLERANCE).passed


def normalised(past: Tensor, mean: Tensor) -> Tensor:
    centred = past - mean
    return 10 * centred[..., -3:] / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-10) + mean


def test_a_mean_from_one_accumulator_passes_and_one_that_lacks_a_number_does_not() -> None:
    def total(past: Tensor, steps: int) -> Tensor:
        summed = torch.zeros(*past.shape[:2], 1)
        for step in range(steps):
            summed += past[..., step : step + 1]
        return summed / steps

    model = engine(lambda past: normalised(past, past.mean(-1, keepdim=True)))
    one = engine(lambda past: normalised(past, total(past, 400)))
    lacking = engine(lambda past: normalised(past, total(past, 399)))
    found = check_parity(one, model, hard_windows(WINDOWS), TOLERANCE)
    assert found.per_kind["constant"].max_rel > TOLERANCE, "the case is ill-conditioned, or shows nothing"
    assert found.passed, found.describe()
    assert not check_parity(lacking, model, hard_windows(WINDOWS), TOLERANCE).passed


def test_a_well_conditioned_model_is_held_to_the_tolerance() -> None:
    weights = torch.linspace(0, 1, 400).unsqueeze(1) / 200
    model = engine(lambda past: past @ weights)
    for kind, past in hard_windows(WINDOWS).items():
        scale = np.abs(past).max() + np.abs(model(past)).max()
        assert (16 * neighbours(model, past) + means(model, past)).max() < TOLERANCE * scale, kind


def test_what_is_not_finite_excuses_nothing() -> None:
    lost = engine(lambda past: past[..., :1] * np.nan)
    assert neighbours(lost, WINDOWS).max() == means(lost, WINDOWS).max() == 0
