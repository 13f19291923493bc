"""The engine of the target ``matrix``: one product.  Pasted into the artifact's ``run.py``."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled."""

    def __init__(self, files: Any, manifest: dict[str, Any], threads: int) -> None:
        matrix = np.load(BytesIO(files.read(manifest["target"]["entry"])), allow_pickle=False)
        self._weight = np.ascontiguousarray(matrix[..., :-1].transpose(0, 2, 1))
        self._bias = matrix[:, None, :, -1]

    def __call__(self, past: np.ndarray) -> np.ndarray:
        forecast: np.ndarray = (past.transpose(1, 0, 2) @ self._weight + self._bias).transpose(1, 0, 2)
        return forecast
