"""Every measure against values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tsfmc.compiler.data import Dataset, Splits, Windows
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning import evaluate as module
from tsfmc.compiler.learning.evaluate import (
    evaluate,
    mean_scaled,
    model_predictor,
    naive_scale,
    seasonal_naive,
)


@dataclass
class GivenWindows:
    """Windows written out: past ``[N, D, L]``, future ``[N, D, H]``."""

    past: Tensor
    future: Tensor

    def __len__(self) -> int:
        return len(self.past)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.past[list(indices)], self.future[list(indices)]


def given(past: Tensor, future: Tensor) -> Windows:
    return cast(Windows, GivenWindows(past, future))


def dataset(values: np.ndarray, splits: Splits, frequency: str | None, std: Sequence[float] = ()) -> Dataset:
    variates = values.shape[1]
    return Dataset(
        name="written out",
        sha256="",
        variates=tuple(f"v{d}" for d in range(variates)),
        frequency=frequency,
        rows=len(values),
        splits=splits,
        mean=np.zeros(variates),
        std=np.array(std or [1.0] * variates),
        values=values,
    )


def zeros(indices: Sequence[int], past: Tensor) -> Tensor:
    """Forecasts 0 for two steps, so that errors are the futures."""
    return torch.zeros(*past.shape[:2], 2)


# Three windows, two variates, two steps; with a forecast of 0 the errors are these numbers.
FUTURE = torch.tensor([[[1.0, -1.0], [2.0, 2.0]], [[0.0, 3.0], [0.0, 0.0]], [[1.0, 1.0], [-4.0, 0.0]]])
PAST = torch.zeros(3, 2, 4)


def test_means_by_hand() -> None:
    """Squares: 1 1 4 4 | 0 9 0 0 | 1 1 16 0.  Absolutes: 1 1 2 2 | 0 3 0 0 | 1 1 4 0."""
    found = evaluate(zeros, given(PAST, FUTURE), torch.tensor([2.0, 4.0]))
    assert found.mse == pytest.approx(37 / 12)
    assert found.mae == pytest.approx(15 / 12)
    # variate 0: 7 of 6 steps over 2; variate 1: 8 of 6 over 4; their mean
    assert found.mase == pytest.approx((7 / 6 / 2 + 8 / 6 / 4) / 2)
    assert found.windows == 3
    assert found.window_mse == pytest.approx([10 / 4, 9 / 4, 18 / 4])
    assert found.to_dict() == {"mse": found.mse, "mae": found.mae, "mase": found.mase, "windows": 3}


@pytest.mark.parametrize("batch_windows", [1, 2, 3, 100])
def test_no_batch_is_dropped_or_counts_more(batch_windows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    future = torch.randn(7, 2, 2, generator=generator)
    found = evaluate(zeros, given(torch.zeros(7, 2, 4), future), torch.ones(2), batch_windows=batch_windows)
    assert found.mse == pytest.approx(float(future.double().square().mean()), rel=1e-12)
    assert found == evaluate(zeros, given(torch.zeros(7, 2, 4), future), torch.ones(2))


def test_predict_gets_indices_that_fit_its_windows() -> None:
    """A stored forecast is looked up by index."""
    stored = FUTURE + 0.5
    found = evaluate(
        lambda indices, past: stored[list(indices)], given(PAST, FUTURE), torch.ones(2), batch_windows=2
    )
    assert found.mse == pytest.approx(0.25) and found.mae == pytest.approx(0.5)


def test_a_forecast_of_another_shape_is_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\[3, 1, 2\] for \[3, 2, 2\]"):
        evaluate(lambda indices, past: torch.zeros(len(past), 1, 2), given(PAST, FUTURE), torch.ones(2))


def test_model_predictor_runs_the_model() -> None:
    model = torch.nn.Linear(4, 2)
    past = torch.randn(5, 2, 4)
    assert torch.equal(model_predictor(model)(range(5), past), model(past))


def test_seasonal_naive_repeats_the_last_season() -> None:
    past = torch.tensor([[[10.0, 20.0, 30.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 7.0, 8.0, 9.0]]])
    forecast = seasonal_naive(3, 7)([0], past)
    assert forecast.tolist() == [[[1, 2, 3, 1, 2, 3, 1], [7, 8, 9, 7, 8, 9, 7]]]
    assert seasonal_naive(3, 2)([0], past).tolist() == [[[1, 2], [7, 8]]]
    assert seasonal_naive(6, 2)([0], past).tolist() == [[[10, 20], [0, 0]]]


def test_seasonal_naive_without_a_season_repeats_the_last_value() -> None:
    past = torch.tensor([[[1.0, 2.0, 5.0]]])
    assert seasonal_naive(1, 3)([0], past).tolist() == [[[5, 5, 5]]]
    assert seasonal_naive(4, 3)([0], past).tolist() == [[[5, 5, 5]]]  # a season does not fit the window


def test_naive_scale_by_hand() -> None:
    """Days: a season of 7.  Training differs by 7 steps of 2, and by 3 in the second variate; then std."""
    days = np.arange(21.0)
    season = np.array([0.0, 5, 1, 8, 2, 7, 3])
    values = np.stack([2 * days, np.tile(season, 3) + 3 * (days // 7)], axis=1)
    values[14:] = 1e6  # validation and test do not count
    data = dataset(values, Splits(14, 4, 3), "D", std=(4.0, 0.5))
    assert data.seasonality == 7
    assert naive_scale(data).tolist() == pytest.approx([14 / 4, 3 / 0.5])


def test_naive_scale_does_not_depend_on_the_blocks_it_is_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((300, 2))
    data = dataset(values, Splits(200, 50, 50), "h")
    whole = naive_scale(data)
    assert whole.numpy() == pytest.approx(np.abs(values[24:200] - values[:176]).mean(axis=0))
    monkeypatch.setattr(module, "ROWS_PER_READ", 13)
    assert torch.allclose(naive_scale(data), whole, rtol=1e-12)


def test_mase_is_one_for_the_seasonal_naive_forecast_of_training_itself() -> None:
    """One season ahead on the training rows, in units far from 1: numerator and denominator agree."""
    values = 50 * np.random.default_rng(1).standard_normal((96, 2)) * [1, 20]
    data = dataset(values, Splits(96, 0, 0), "h", std=values.std(axis=0).tolist())
    scaled = torch.from_numpy((values / data.std).T.copy())  # [D, T]
    past = scaled.unfold(1, 24, 1)[:, :-24].transpose(0, 1)  # a season, [N, D, 24]
    future = scaled.unfold(1, 24, 1)[:, 24:].transpose(0, 1)
    every = range(0, len(past), 24)  # seasons that do not overlap: every difference once
    found = evaluate(seasonal_naive(24, 24), given(past[list(every)], future[list(every)]), naive_scale(data))
    assert found.mase == pytest.approx(1)


def test_a_variate_that_repeats_itself_has_no_mase() -> None:
    assert mean_scaled(np.array([1.0, 5.0]), np.array([2.0, 0.0])) == pytest.approx(0.5)
    assert mean_scaled(np.array([1.0]), np.array([0.0])) is None
    found = evaluate(zeros, given(PAST, FUTURE), torch.tensor([2.0, 0.0]))
    assert found.mase == pytest.approx(7 / 6 / 2)


def test_windows_of_a_series(unit: CompileUnit) -> None:
    """On a real data set the rows are those of the split, scaled: against the file itself."""
    data, task = unit.data, unit.task
    windows = data.windows("test", task.lookback, task.horizon)
    found = evaluate(seasonal_naive(data.seasonality, task.horizon), windows, naive_scale(data))
    scaled = (np.asarray(data.values) - data.mean) / data.std
    first, last = data.splits.span("test")
    errors = [
        scaled[start : start + task.horizon] - np.resize(scaled[start - 24 : start], (task.horizon, 3))
        for start in range(first, last - task.horizon + 1)
    ]
    assert found.windows == last - first - task.horizon + 1 == len(errors)
    assert found.window_mse == pytest.approx(np.square(errors).mean(axis=(1, 2)), rel=1e-4)
    assert found.mse == pytest.approx(np.square(errors).mean(), rel=1e-4)
