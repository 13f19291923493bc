"""The numbers that inputs beside the window become; a device encodes by this text.

calendar   sines and cosines of where the first forecast step lies in its cycle     [2 K]
known      the coming H values of a column, less its mean over the lookback          [H]
past       the last L values of a column, less their mean                            [L]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

CYCLE_SECONDS: Mapping[str, float] = {"hour": 86400.0, "weekday": 604800.0, "yearday": 31556952.0}
"""Cycles of the calendar; the year is the Gregorian one, 365.2425 days."""


def encode_cycle(cycle: str, harmonics: int, seconds: np.ndarray) -> np.ndarray:
    """``[n, 2 K]`` of times ``[n]`` in seconds since 1970."""
    phase = 2 * np.pi * np.mod(seconds / CYCLE_SECONDS[cycle], 1.0)
    angles = phase[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def encode_column(kind: str, values: np.ndarray, lookback: int, scale: float) -> np.ndarray:
    """``[n, E]`` of ``values [n, L + H]`` of a known column, or ``[n, L]`` and more of a past one."""
    past = values[:, :lookback]
    wanted = values[:, lookback:] if kind == "known" else past
    encoded: np.ndarray = (wanted - past.mean(axis=1, keepdims=True)) / scale
    return encoded
