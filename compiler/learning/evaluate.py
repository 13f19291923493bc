"""Accuracy by the convention of LTSF: every window, stride 1, no dropped last batch, scaled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..base.progress import Progress, Silent
from ..data import Dataset, Panel, SpreadWindows, Windows

Array = npt.NDArray[np.float64]
Indices = Sequence[int] | npt.NDArray[np.integer] | Tensor
BATCH_WINDOWS = 256
ROWS_PER_READ = 65536
Predict = Callable[[Sequence[int], Tensor], Tensor]
"""(window indices, past ``[B, D, L]``) to forecast ``[B, D, H]``."""


@dataclass(frozen=True)
class Accuracy:
    """Means over all windows, variates and steps.

    Attributes:
        mse: mean squared error, scaled data.
        mae: mean absolute error, scaled data.
        mase: mean over variates of the mean absolute error over that of the seasonal naive forecast inside
            the training split (Hyndman and Koehler, "Another look at measures of forecast accuracy").
            Variates that repeat their season exactly in training have no such scale and are left out; None
            where no variate has one.
        windows: how many there were.
        window_mse: ``[windows]`` mean squared error of each window, in the order of time: what paired
            comparisons are made of (``compare.py``); never in a manifest.
        step_mse: ``[H]`` mean squared error of each step ahead; never in a manifest.
        variate_mse: ``[windows, D]`` mean squared error of each window and variate; never in a manifest.
    """

    mse: float
    mae: float
    mase: float | None
    windows: int
    window_mse: Array = field(repr=False, compare=False)
    step_mse: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    variate_mse: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    def to_dict(self) -> dict[str, float | int | None]:
        """For the manifest: the means."""
        return {"mse": self.mse, "mae": self.mae, "mase": self.mase, "windows": self.windows}


@torch.inference_mode()
def evaluate(
    predict: Predict,
    windows: Windows | SpreadWindows,
    naive_scale: Tensor,
    *,
    batch_windows: int = BATCH_WINDOWS,
    progress: Progress | None = None,
    title: str = "evaluate",
) -> Accuracy:
    """Streams all windows through ``predict``; the batch size does not change the result.

    Args:
        naive_scale: ``[D]``, see ``naive_scale``.
        batch_windows: windows per call of ``predict``.

    Raises:
        ValueError: ``predict`` gives a forecast of another shape than the future.
    """
    progress = progress or Silent()
    squared = np.empty((len(windows), len(naive_scale)))
    absolute = np.empty_like(squared)
    of_steps: Array | float = 0.0
    with progress.task(title, len(windows)) as task:
        for start in range(0, len(windows), batch_windows):
            indices = range(start, min(start + batch_windows, len(windows)))
            past, future = windows.batch(indices)
            forecast = predict(indices, past)
            if forecast.shape != future.shape:
                raise ValueError(f"a forecast of shape {list(forecast.shape)} for {list(future.shape)}")
            error = forecast.double() - future.double()
            square = error.square()
            squared[indices.start : indices.stop] = square.mean(dim=2).numpy()
            of_steps = of_steps + square.mean(dim=1).sum(dim=0).numpy()
            absolute[indices.start : indices.stop] = error.abs().mean(dim=2).numpy()
            task.advance(len(indices))
    per_variate = absolute.mean(axis=0)
    mase = mean_scaled(per_variate, naive_scale.double().numpy())
    return Accuracy(
        mse=float(squared.mean()),
        mae=float(per_variate.mean()),
        mase=mase,
        windows=len(windows),
        window_mse=squared.mean(axis=1),
        step_mse=np.asarray(of_steps / len(windows)),
        variate_mse=squared,
    )


def mean_scaled(errors: Array, scales: Array) -> float | None:
    """Mean of ``errors / scales``, both ``[D]``, over the variates whose scale is positive."""
    scaled = scales > 0
    return float((errors[scaled] / scales[scaled]).mean()) if scaled.any() else None


def model_predictor(model: nn.Module) -> Predict:
    """Evaluates a module on the device where its parameters are."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        forecast: Tensor = model(past.to(next(model.parameters()).device)).cpu()
        return forecast

    return predict


def seasonal_naive(seasonality: int, horizon: int) -> Predict:
    """Repeats the last season of the window; its last value where the window is shorter than a season.

    Part of a season would be repeated out of phase, which is a worse forecast than none and so an easy rival.
    """

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        lookback = past.shape[-1]
        season = seasonality if seasonality <= lookback else 1
        steps = torch.arange(horizon) % season
        return past[..., lookback - season + steps]

    return predict


def naive_scale(data: Dataset) -> Tensor:
    """Mean absolute seasonal difference per variate over the training split, scaled: ``[D]``.

    The denominator of MASE, 0 for a variate that repeats itself exactly.  Read in blocks, so memory does not
    grow with the series.
    """
    if isinstance(data, Panel):
        return torch.from_numpy(data.seasonal_change())
    first, last = data.splits.span("train")
    season = min(data.seasonality, last - first - 1)
    total = np.zeros(len(data.variates))
    for start in range(first, last - season, ROWS_PER_READ):
        stop = min(start + ROWS_PER_READ, last - season)
        block = np.asarray(data.values[start : stop + season])
        total += np.abs(block[season:] - block[:-season]).sum(axis=0)
    return torch.from_numpy(total / (last - first - season) / data.std)
