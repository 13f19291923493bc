"""The target ``matrix``: an affine forecaster as one numpy file, ``[D, H, L + 1]``.

    y_d = W_d x_d + b_d        W_d the first L columns, b_d the last

The map is read off the model itself, by unit windows, so any model will do that is affine in each variate;
another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tsfmc.compiler.base.errors import LoweringError
from tsfmc.targets.base import Availability, Payload, Shape, Target, TargetOptions

ENTRY = "matrix.npy"


class MatrixTarget(Target):
    """Needs nothing but numpy, here and on the device."""

    kind = "matrix"
    summary = "one numpy matrix a variate, for students that fold into an affine map"
    runtime_requirements = ("numpy",)
    tolerance = 1e-4

    def probe(self) -> Availability:
        return Availability(can_lower=True, can_run=True, facts={"numpy": np.__version__})

    @torch.inference_mode()
    def lower(
        self,
        model: nn.Module,
        shape: Shape,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Payload:
        progress(f"reading the affine map of {type(model).__name__} off {shape.lookback + 1} windows")
        unit_windows = torch.eye(shape.lookback)[:, None].expand(-1, shape.variates, -1)
        bias = model(torch.zeros(1, shape.variates, shape.lookback))
        weight = model(unit_windows.contiguous()) - bias
        matrix = torch.cat([weight, bias]).permute(1, 2, 0).contiguous().numpy()
        self._require_affine(model, matrix, calibration[:8])
        np.save(directory / ENTRY, matrix)
        return Payload(files=(ENTRY,), entry=ENTRY, level="exported", runs_here=True)

    def _require_affine(self, model: nn.Module, matrix: np.ndarray, past: np.ndarray) -> None:
        expected = model(torch.from_numpy(past)).numpy()
        got = np.einsum("dhl,bdl->bdh", matrix[..., :-1], past) + matrix[..., -1]
        if np.abs(got - expected).max() > 1e-3 * (np.abs(expected).max() + np.abs(past).max()):
            raise LoweringError(
                f"{type(model).__name__} is no affine map of each variate",
                hint="end the pipeline with fold_affine, and choose a student that folds into one map",
            )

    def engine_source(self) -> Path:
        return Path(__file__).parent / "matrix_engine.py"

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {"summary": self.summary, "devices": ["any with numpy"], "levels": ["exported", "executed"]}


TARGET = MatrixTarget()
