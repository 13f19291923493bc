"""Data sets in memory, and what their windows are when nobody is clever about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tsfmc.compiler.data import Dataset
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.learning.pieces import Labels

Array = npt.NDArray[Any]


def make_data(values: Array, splits: Splits | None = None) -> Dataset:
    """A data set of ``values [T, D]``, scaled by its training rows; by default 60 % train, 20 % val."""
    rows, variates = values.shape
    splits = splits or Splits(rows * 6 // 10, rows * 2 // 10, rows - rows * 6 // 10 - rows * 2 // 10)
    train = values[: splits.train]
    std = train.std(axis=0)
    return Dataset(
        "series",
        "0" * 64,
        tuple(f"v{index}" for index in range(variates)),
        "h",
        rows,
        splits,
        train.mean(axis=0),
        np.where(std > 0, std, 1.0),
        values,
    )


def unscaled(data: Dataset) -> Dataset:
    """The same with mean 0 and deviation 1, so that windows are the rows themselves."""
    return replace(data, mean=np.zeros_like(data.mean), std=np.ones_like(data.std))


def waves(rows: int = 600, variates: int = 3, seed: int = 0) -> Array:
    """A cycle and AR(1) noise a variate, ``[T, D]``: learnable, and different for every variate."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, variates))
    for row in range(1, rows):
        noise[row] += 0.8 * noise[row - 1]
    hours = np.arange(rows)[:, None]
    cycle = np.sin(2 * np.pi * hours / np.array([12, 8, 5, 7, 9])[:variates] + np.arange(variates))
    return 10.0 * np.arange(variates) + 3 * cycle + noise


def windows_of(data: Dataset, part: Any, lookback: int, horizon: int) -> tuple[Tensor, Tensor]:
    """All windows of a part in float64: past ``[N, D, L]``, future ``[N, D, H]``."""
    found = data.windows(part, lookback, horizon)
    scaled = (np.asarray(data.values[:], np.float64) - data.mean) / data.std
    rows = [scaled[found.first + i : found.first + i + lookback + horizon] for i in range(len(found))]
    both = torch.from_numpy(np.stack(rows).transpose(0, 2, 1).copy())
    return both[..., :lookback], both[..., lookback:]


def teacher_of(data: Dataset, lookback: int, horizon: int, seed: int = 1) -> tuple[Labels, Tensor]:
    """A made-up teacher that repeats the window with noise: labels as a store gives them, and all of them."""
    past, _ = windows_of(data, "train", lookback, horizon)
    rng = np.random.default_rng(seed)
    repeated = past[..., torch.arange(horizon) % lookback - lookback].numpy()
    forecast = 0.8 * repeated + 0.3 * rng.standard_normal(repeated.shape)
    forecast = forecast.astype(np.float32)
    return (lambda first, last: forecast[first:last]), torch.from_numpy(forecast).double()
