"""Evenly spread positions: how a few windows stand for many, everywhere by one rule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spread(total: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` of the positions ``0 ... total - 1``, the first and the last among them, repeated where there
    are fewer: position ``i`` is ``i (total - 1) / (count - 1)``, rounded."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)
