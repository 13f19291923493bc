"""Windows of every kind, ``[N, D, L]`` float32: what an engine is given in scaled units, and more."""

from __future__ import annotations

import numpy as np

from tsfmc.compiler.data.filling import fill_run
from tsfmc.targets.base import Shape

COUNT = 4
KINDS = (
    "walk", "noise", "constant", "near constant", "zero", "tiny", "huge", "offset 1e6", "ramp", "spike",
    "ffill", "interpolate", "nan",
)  # fmt: skip


def draw_windows(kind: str, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """``COUNT`` windows of a kind; those of ``ffill`` and ``interpolate`` had gaps and were filled."""
    size = (COUNT, shape.variates, shape.lookback)
    noise = rng.standard_normal(size)
    walk = noise.cumsum(-1) / max(1.0, shape.lookback**0.5)
    flat = np.broadcast_to(3 * rng.standard_normal((*size[:2], 1)), size)
    if kind in ("ffill", "interpolate"):
        return filled(walk, kind, rng).astype(np.float32)
    made = {
        "walk": walk,
        "noise": noise,
        "constant": flat,
        "near constant": flat + 1e-6 * noise,
        "zero": np.zeros(size),
        "tiny": 1e-5 * walk,
        "huge": 1e5 * walk,
        "offset 1e6": walk + 1e6,
        "ramp": walk + np.linspace(-5, 5, shape.lookback),
        "spike": walk + 1e3 * (np.arange(shape.lookback) == rng.integers(shape.lookback)),
        "nan": walk,
    }[kind].astype(np.float32)
    if kind == "nan":
        made = np.array(made)
        made[:, rng.integers(shape.variates), rng.integers(shape.lookback)] = np.nan
    return np.ascontiguousarray(made)


def filled(windows: np.ndarray, policy: str, rng: np.random.Generator) -> np.ndarray:
    """With a third of the cells lost, never the first, and filled by the policy, variate by variate."""
    lost = rng.random(windows.shape) < 0.3
    lost[..., 0] = False
    result = np.where(lost, np.nan, windows)
    for run in result.reshape(-1, windows.shape[-1]):
        fill_run(run, policy)
    return result
