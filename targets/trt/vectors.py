"""Stored windows and forecasts: parity of the very file here, and of the engine on the device.

Windows are real; each vector scales them by 1, 1e2 or 1e5, for one window and for the largest batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.base.spread import spread
from ..artifact.device.forecaster import window_scale
from ..base import Shape
from .options import BatchProfile
from .presets import Precision

SCALES = (1.0, 1e2, 1e5)
POOL = 64
"""Windows stored; latency rotates over them."""

FILE_TOLERANCE: dict[Precision, float | None] = {"fp32": 1e-4, "fp16": 2e-2, "int8": None, "fp8": None}
"""Largest error of the file against the model, in units of ``window_scale`` as everywhere.  One fp16 rounding
is 5e-4, students stay below 1e-3 and deep teachers gather several; an overflow gives 1 or more.  Quantisation
changes the function on purpose: its error is recorded, and judged by accuracy on the data."""

DEVICE_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 4e-3, "int8": 2e-2, "fp8": 6e-2}
"""Largest such error between the engine and model.onnx as ``open_session`` computes it: engines add up in
another order, and a value between two quantisation levels may be rounded either way."""


@dataclass(frozen=True)
class Vector:
    """Windows ``first .. first + batch`` of the pool (cyclic), window ``i`` times ``scales[i % len]``."""

    name: str
    first: int
    batch: int
    scales: tuple[float, ...]

    def windows(self, pool: np.ndarray) -> np.ndarray:
        """``[batch, D, L]`` float32."""
        past = pool[(self.first + np.arange(self.batch)) % len(pool)]
        factors = np.resize(np.array(self.scales), self.batch)[:, None, None]
        return np.asarray(past.astype(np.float64) * factors, np.float32)


def plan_vectors(batch: BatchProfile) -> tuple[Vector, ...]:
    """The smallest batch at each scale, and the largest batch with the scales mixed."""
    small = tuple(
        Vector(f"batch{batch.min}_scale{scale:g}", i, batch.min, (scale,)) for i, scale in enumerate(SCALES)
    )
    return small if batch.is_static else (*small, Vector(f"batch{batch.max}_mixed", 3, batch.max, SCALES))


def open_session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The model file on onnxruntime, rounding wherever the graph says so."""
    import onnx
    import onnxruntime as ort  # type: ignore[import-untyped]

    from ..onnx_graph.precision import round_every_half

    content = round_every_half(onnx.load(path)).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # onnxruntime's fused quantised kernels do not know fp8 and saturate int8 on some processors.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda past: np.asarray(session.run(None, {name: past})[0])


def errors(past: np.ndarray, got: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``max |got - truth|`` over the scale of each window, ``[B]``; infinite where not a number."""
    difference = np.abs(got.astype(np.float64) - truth).max(axis=(1, 2))
    return np.asarray(np.nan_to_num(difference / window_scale(past, truth), nan=np.inf))


def write_pool(directory: Path, calibration: np.ndarray) -> np.ndarray:
    """Stores up to 64 windows, evenly spread over the calibration windows; returns them."""
    picks = spread(len(calibration), min(POOL, len(calibration)))
    pool = np.ascontiguousarray(calibration[picks], np.float32)
    (directory / "vectors").mkdir()
    (directory / "vectors" / "past.f32").write_bytes(pool.astype("<f4").tobytes())
    return pool


def write_expected(directory: Path, vector: Vector, forecast: np.ndarray) -> dict[str, Any]:
    """Stores the forecast of one vector; returns its entry in ``engine.json``."""
    file = f"vectors/{vector.name}.f32"
    (directory / file).write_bytes(forecast.astype("<f4").tobytes())
    return {
        "name": vector.name,
        "first": vector.first,
        "batch": vector.batch,
        "scales": list(vector.scales),
        "expected": file,
    }


def engine_spec(
    shape: Shape, batch: BatchProfile, precision: Precision, digest: str, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    """``engine.json``: all that the device's scripts need to know."""
    return {
        "schema": 1,
        "onnx_sha256": digest,
        "precision": precision,
        "input": {"name": "past", "shape": [shape.variates, shape.inputs]},
        "output": {"name": "forecast", "shape": [shape.variates, shape.outputs]},
        "batch": {"min": batch.min, "opt": batch.opt, "max": batch.max},
        "tolerance": DEVICE_TOLERANCE[precision],
        "pool": "vectors/past.f32",
        "vectors": entries,
    }
