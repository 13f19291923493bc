"""The scaling of the data, and back; a device scales by this text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Scaling:
    """``scaled = (raw - mean) / std``, one mean and one standard deviation ``[D]`` a variate.

    Arrays are ``[..., D, T]`` with the variate in the last place but one, and come back as float64.
    """

    def __init__(self, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray) -> None:
        self._mean = np.asarray(mean, dtype=np.float64)[:, None]
        self._std = np.asarray(std, dtype=np.float64)[:, None]

    def scale(self, raw: np.ndarray) -> np.ndarray:
        """From the units of the data to those of the model."""
        scaled: np.ndarray = (raw - self._mean) / self._std
        return scaled

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """From the units of the model to those of the data."""
        raw: np.ndarray = scaled * self._std + self._mean
        return raw
