"""Quantile forecasts through the targets: rows of H Q numbers, equal to the model, never crossing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantile_students import LEVELS, SPREADS, quantile_student
from required import absent
from torch import nn

from tsfmc.compiler.ir.program import export_program
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Engine, Shape, TaskFacts
from tsfmc.targets.measure.parity import check_parity, hard_windows
from tsfmc.targets.native.centre import gain_of
from tsfmc.targets.native.static import export_static

SHAPE = Shape(3, 48, 12, len(LEVELS))
TASK = TaskFacts(("a", "b", "c"), "h", 3600.0, "error", (0.0,) * 3, (1.0,) * 3, LEVELS)


def windows(count: int, level: float = 0.0) -> np.ndarray:
    """``[N, D, L]`` random walks of spreads from 1e-3 to 1e3 around ``level``."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(count, SHAPE.variates, SHAPE.lookback)).cumsum(-1)
    spreads = 10.0 ** rng.uniform(-3, 3, size=(count, SHAPE.variates, 1))
    return (walks * spreads + level).astype(np.float32)


def reference(model: nn.Module, past: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        forecast: np.ndarray = model(torch.from_numpy(past)).flatten(2).numpy()
    return forecast


def lower(kind: str, model: nn.Module, folder: Path, **options: Any) -> tuple[Engine, Any]:
    target = TARGETS[kind].for_task(TASK)
    here = target.probe()
    if not here.can_run:
        absent("; ".join(here.problems))
    payload = target.lower_model(
        model, SHAPE, folder, options=target.Options(**options), calibration=windows(16) / 100
    )
    return target.load(folder, payload, 1), payload


def crossings(quantiles: np.ndarray) -> int:
    """Neighbouring levels of ``[N, D, H Q]`` in the wrong order."""
    steps = quantiles.reshape(*quantiles.shape[:2], SHAPE.horizon, -1)
    return int((np.diff(steps, axis=-1) < 0).sum())


@pytest.mark.parametrize(
    ("kind", "spread"), [*(("onnx", spread) for spread in SPREADS), ("c", "differences"), ("c", "constant")]
)
def test_a_payload_gives_the_quantiles_of_the_model(kind: str, spread: str, tmp_path: Path) -> None:
    model = quantile_student(SHAPE, spread)
    engine, _ = lower(kind, model, tmp_path)
    parity = check_parity(
        engine, lambda past: reference(model, past), hard_windows(windows(16)), TARGETS[kind].tolerance
    )
    assert parity.passed, parity.describe()
    assert engine(windows(2)).shape == (2, 3, 36)


def test_tvm_gives_the_quantiles_of_the_model(tmp_path: Path) -> None:
    model = quantile_student(SHAPE, "deviation", "shared")
    engine, _ = lower("tvm", model, tmp_path)
    parity = check_parity(
        engine, lambda past: reference(model, past), hard_windows(windows(16)), TARGETS["tvm"].tolerance
    )
    assert parity.passed, parity.describe()
    assert crossings(engine(windows(64, level=1e4))) == 0


@pytest.mark.parametrize(
    ("kind", "options"), [("onnx", {}), ("c", {}), ("c", {"precision": "int8"})], ids=["onnx", "c", "c-int8"]
)
def test_quantiles_never_cross(kind: str, options: dict[str, str], tmp_path: Path) -> None:
    """Also where the level leaves no digit between them, in any precision of the weights."""
    engine, _ = lower(kind, quantile_student(SHAPE, "deviation", "shared"), tmp_path, **options)
    for level in (0.0, 1e6):
        assert crossings(np.concatenate([engine(past[None]) for past in windows(500, level)])) == 0


def test_int8_weights_do_not_meet_the_level(tmp_path: Path) -> None:
    """The mean goes round the rounded weights although a spread is no affine map of the window."""
    model = quantile_student(SHAPE, "deviation", "shared")
    engine, _ = lower("c", model, tmp_path, precision="int8-weights")
    past = (windows(8) / np.ptp(windows(8), axis=-1, keepdims=True)).astype(np.float32)

    def error(level: float) -> float:
        return float(
            np.abs(engine(past + np.float32(level)) - reference(model, past + np.float32(level))).max()
        )

    assert error(100.0) < 2 * error(0.0) + 1e-3


def test_a_program_that_takes_its_own_mean_out_is_left_alone() -> None:
    shape = (1, SHAPE.variates, SHAPE.lookback)
    head = quantile_student(SHAPE, "deviation", "shared")

    class Centred(nn.Module):
        def forward(self, past: torch.Tensor) -> torch.Tensor:
            mean = past.mean(-1, keepdim=True)
            return head(past - mean).flatten(2) + mean

    exported = export_static(Centred().eval(), shape)
    assert gain_of(exported, shape) is None
    assert gain_of(export_program(head, SHAPE, windows(4)).at(1), shape) is not None
