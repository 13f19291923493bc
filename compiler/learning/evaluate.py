"""Accuracy by the convention of LTSF: every window, stride 1, no dropped last batch, scaled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..base.progress import Progress, Silent
from ..data import Dataset, SpreadWindows, Windows

Indices = Sequence[int] | npt.NDArray[np.integer] | Tensor
BATCH_WINDOWS = 256
ROWS_PER_READ = 65536
Predict = Callable[[Sequence[int], Tensor], Tensor]
"""(window indices, past ``[B, D, L]``) to forecast ``[B, D, H]``."""


@dataclass(frozen=True)
class Accuracy:
    """Means over all windows, variates and steps.

    ``mase`` is the mean absolute error over that of the seasonal naive forecast inside the training split.
    """

    mse: float
    mae: float
    mase: float
    windows: int

    def to_dict(self) -> dict[str, float | int]:
        """For the manifest."""
        return asdict(self)


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
    """
    progress = progress or Silent()
    squared = absolute = scaled = 0.0
    elements = 0
    with progress.task(title, len(windows)) as task:
        for start in range(0, len(windows), batch_windows):
            indices = range(start, min(start + batch_windows, len(windows)))
            past, future = windows.batch(indices)
            error = (predict(indices, past) - future).double()
            squared += float(error.square().sum())
            absolute += float(error.abs().sum())
            scaled += float((error.abs() / naive_scale[:, None]).sum())
            elements += error.numel()
            task.advance(len(indices))
    return Accuracy(squared / elements, absolute / elements, scaled / elements, len(windows))


def model_predictor(model: nn.Module) -> Predict:
    """Evaluates a module on the device where its parameters are."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        forecast: Tensor = model(past.to(next(model.parameters()).device)).cpu()
        return forecast

    return predict


def seasonal_naive(seasonality: int, horizon: int) -> Predict:
    """Repeats the last season of the window."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        season = min(seasonality, past.shape[-1])
        steps = torch.arange(horizon) % season
        return past[..., past.shape[-1] - season + steps]

    return predict


def naive_scale(data: Dataset) -> Tensor:
    """Mean absolute seasonal difference per variate over the training split, scaled: ``[D]``.

    The denominator of MASE.  Read in blocks, so memory does not grow with the series.
    """
    first, last = data.splits.span("train")
    season = min(data.seasonality, last - first - 1)
    total = np.zeros(len(data.variates))
    for start in range(first, last - season, ROWS_PER_READ):
        stop = min(start + ROWS_PER_READ, last - season)
        block = np.asarray(data.values[start : stop + season])
        total += np.abs(block[season:] - block[:-season]).sum(axis=0)
    return torch.from_numpy(total / (last - first - season) / data.std).clamp_min(1e-9)
