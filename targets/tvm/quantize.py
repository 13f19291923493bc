"""int8 weights: one scale per output column, accumulation in float32.

scale_j = max_k |W_kj| / 127        code_kj = round(W_kj / scale_j)        y_j = scale_j sum_k x_k code_kj
"""

from __future__ import annotations

import numpy as np


def quantize_columns(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[k, n]`` float32 to codes ``[k, n]`` int8 and scales ``[n]``; an all-zero column has scale 1."""
    largest = np.abs(weights).max(axis=0)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    codes = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    return codes, scale
