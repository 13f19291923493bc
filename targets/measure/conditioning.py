"""What rounding may do to a model's forecast, found by moving what it rounds.

``neighbours``: every number of the window moves to a float beside it.  ``MeansOff``: every mean of n numbers
is off by sqrt(n) roundings of their size.  It is no case of the first, because a window that moves as a
whole takes its mean with it; and torch adds pairwise where others use one accumulator, which n numbers leave
up to n - 1 roundings off, and some sqrt(n) as a rule (Higham and Mary, A new approach to probabilistic
rounding error analysis).  A student that divides by the spread of a nearly constant window shows the
difference, hundreds of times the error of torch.  A mean that drops one number of a thousand is off by
hundreds of times more than is allowed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

ROUNDING = 2.0**-24
"""Half a unit in the last place of float32, relative."""
NEIGHBOURS = 2
"""So many windows beside each are tried."""
_MEANS = (torch.Tensor.mean, torch.mean, torch.ops.aten.mean.dim)


class MeansOff(TorchFunctionMode):
    """While active, a mean of n numbers is off by ``sign * sqrt(n)`` roundings of their size."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _MEANS or not args:
            return result
        count = args[0].numel() / max(1, result.numel())
        size = func(args[0].abs(), *args[1:], **(kwargs or {}))
        return result + self.sign * ROUNDING * count**0.5 * size


def neighbours(model: Callable[[np.ndarray], np.ndarray], past: np.ndarray) -> np.ndarray:
    """The largest change ``[B]`` of the forecasts of ``past [B, D, L]`` float32 at windows beside it."""
    generator, change = np.random.default_rng(0), np.zeros(len(past))
    expected = model(past)
    for _ in range(NEIGHBOURS):
        towards = np.where(generator.random(past.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        change = np.maximum(change, _change(model(np.nextafter(past, towards)), expected))
    return change


def means(model: Callable[[np.ndarray], np.ndarray], past: np.ndarray) -> np.ndarray:
    """The largest change ``[B]`` of the forecasts of ``past [B, D, L]`` under ``MeansOff``, of both signs."""
    expected, change = model(past), np.zeros(len(past))
    for sign in (-1.0, 1.0):
        with MeansOff(sign):
            moved = model(past)
        change = np.maximum(change, _change(moved, expected))
    return change


def _change(moved: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The largest finite difference of each window ``[B]``: what is not finite excuses nothing."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(np.asarray(moved, np.float64) - np.asarray(expected, np.float64))
    largest: np.ndarray = np.where(np.isfinite(difference), difference, 0.0).max(axis=(1, 2), initial=0.0)
    return largest
