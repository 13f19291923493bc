"""Random weights that need no file: every tensor follows from its name and shape alone.

The bytes come from SHAKE-256 of the name, so they are the same with every version of numpy and torch.
Values are multiples of 1/128 below 2, which bfloat16 holds exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_256
from math import prod, sqrt

import numpy as np

GRID = 128


def draw(name: str, shape: Sequence[int], gain: float = 1.0) -> np.ndarray:
    """The tensor ``name``: matrices of variance 1 / inputs, norm weights 1 +- 0.25, others +- 0.25.

    ``gain`` scales what is added to zero or one.
    """
    raw = np.frombuffer(shake_256(name.encode()).digest(prod(shape)), np.uint8).reshape(shape)
    reach = sqrt(3 / shape[-1]) if len(shape) > 1 else 0.25
    values = (raw.astype(np.float64) / 127.5 - 1) * reach * gain
    if "norm" in name.lower() and name.endswith("weight") and len(shape) == 1:
        values += 1
    return (np.round(values * GRID) / GRID).astype(np.float32)
