"""A small real artifact: a linear forecaster with instance normalisation, lowered to ONNX and packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsfmc.targets.artifact.write import write_artifact
from tsfmc.targets.base import Shape
from tsfmc.targets.onnx import TARGET

VARIATES = ("load", "oil", "wind")
SHAPE = Shape(variates=3, lookback=32, horizon=8)
MEAN, STD = np.array([1e4, 0.0, -5.0]), np.array([250.0, 1.0, 0.01])


class LinearForecaster(nn.Module):
    """One linear map of the normalised window, ``[B, D, L] -> [B, D, H]``."""

    def __init__(self, lookback: int = SHAPE.lookback, horizon: int = SHAPE.horizon) -> None:
        super().__init__()
        self.map = nn.Linear(lookback, horizon)

    def forward(self, past: Tensor) -> Tensor:
        mean = past.mean(-1, keepdim=True)
        std = torch.sqrt(past.var(-1, keepdim=True, unbiased=False) + 1e-5)
        return self.map((past - mean) / std) * std + mean


def make_model() -> LinearForecaster:
    """The same weights every time."""
    torch.manual_seed(7)
    return LinearForecaster().eval()


def make_windows(count: int = 64) -> np.ndarray:
    """Scaled random walks ``[count, D, L]`` float32."""
    rng = np.random.default_rng(3)
    walks = rng.standard_normal((count, SHAPE.variates, SHAPE.lookback)).cumsum(-1)
    return (walks / walks.std()).astype(np.float32)


def reference(model: nn.Module, past: np.ndarray) -> np.ndarray:
    """The PyTorch model on numpy arrays."""
    with torch.no_grad():
        forecast: np.ndarray = model(torch.from_numpy(past)).numpy()
    return forecast


def raw(scaled: np.ndarray) -> np.ndarray:
    """Scaled windows in the units of the data, float64."""
    result: np.ndarray = scaled.astype(np.float64) * STD[:, None] + MEAN[:, None]
    return result


def manifest_fields(details: dict[str, Any], entry: str) -> dict[str, Any]:
    """What a driver would say about this artifact."""
    return {
        "target": {"kind": "onnx", "entry": entry, **details},
        "task": {
            "lookback": SHAPE.lookback,
            "horizon": SHAPE.horizon,
            "variates": list(VARIATES),
            "frequency": "h",
            "step_seconds": 3600,
        },
        "input": {"mean": MEAN, "std": STD},
        "level": "executed",
        "runtime_requirements": TARGET.runtime_requirements,
    }


def make_artifact(final: Path, **fields: Any) -> dict[str, Any]:
    """Writes the artifact and returns its manifest; ``fields`` replace or join those of the manifest."""
    model, windows = make_model(), make_windows()

    def build(directory: Path) -> dict[str, Any]:
        payload = TARGET.lower_model(model, SHAPE, directory, options=TARGET.Options(), calibration=windows)
        return {**manifest_fields(dict(payload.details), payload.entry), **fields}

    vectors = raw(windows[:3]), raw(reference(model, windows[:3]))
    return write_artifact(final, build, engine_source=TARGET.engine_source(), selftest=vectors)


def write_history(path: Path, rows: int = 40, *, start: str = "2024-01-01 00:00:00") -> np.ndarray:
    """A CSV with a timestamp column, a column that is no variate, and the variates in another order.

    Returns the last lookback rows as ``[D, L]`` in the order of the task.
    """
    values = raw(make_windows(2)).reshape(2, len(VARIATES), -1).transpose(1, 0, 2).reshape(len(VARIATES), -1)
    values = values[:, :rows]
    times = np.datetime64(start.replace(" ", "T")) + np.arange(rows) * np.timedelta64(3600, "s")
    lines = ["date,wind,note,load,oil"]
    for row, time in enumerate(times):
        load, oil, wind = (repr(float(value)) for value in values[:, row])
        lines.append(f"{str(time).replace('T', ' ')},{wind},x,{load},{oil}")
    path.write_text("\n".join(lines) + "\n")
    return values[:, -SHAPE.lookback :]
