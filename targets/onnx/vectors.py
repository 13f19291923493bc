"""What tool chains of microcontrollers and NPUs want beside the file: windows to calibrate and to compare.

calibration.npy   [N, D, L] float32, real training windows, scaled; the int8 forms were calibrated by them
vectors.npz       past [M, D, L] some of these, forecast [M, D, H] what model.onnx makes of them on
                  onnxruntime, reference [M, D, H] what the model made before it was lowered
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...compiler.base.spread import spread
from ..artifact.hashes import TOOLCHAIN
from ..base import Engine

CALIBRATION, VECTORS = f"{TOOLCHAIN}calibration.npy", f"{TOOLCHAIN}vectors.npz"
MOST_WINDOWS, MOST_VECTORS = 64, 8


def calibration_windows(windows: np.ndarray) -> np.ndarray:
    """At most ``MOST_WINDOWS`` of ``windows [N, D, L]``, evenly spread."""
    return _some(windows, MOST_WINDOWS)


def write_vectors(directory: Path, windows: np.ndarray, engine: Engine, reference: Engine) -> list[str]:
    """Writes both files; returns their names."""
    (directory / TOOLCHAIN).mkdir(exist_ok=True)
    np.save(directory / CALIBRATION, calibration_windows(windows), allow_pickle=False)
    past = _some(windows, MOST_VECTORS)
    with (directory / VECTORS).open("wb") as stream:
        np.savez(stream, past=past, forecast=engine(past), reference=reference(past))
    return [CALIBRATION, VECTORS]


def _some(windows: np.ndarray, most: int) -> np.ndarray:
    picks = spread(len(windows), min(most, len(windows)))
    return np.ascontiguousarray(windows[picks], np.float32)
