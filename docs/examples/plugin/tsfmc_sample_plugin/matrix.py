"""The target ``matrix``: an affine forecaster as one numpy file, ``[D, H, L + 1]``.

    y_d = W_d x_d + b_d        W_d the first L columns, b_d the last

The map is read off the exported program itself, by unit windows, so any model will do that is affine in each
variate; another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsfmc.compiler.base.errors import LoweringError
from tsfmc.compiler.ir.program import Program
from tsfmc.targets.base import Availability, Payload, Target, TargetOptions

ENTRY = "matrix.npy"


class MatrixTarget(Target):
    """Needs nothing but numpy, here and on the device."""

    kind = "matrix"
    summary = "one numpy matrix a variate, for students that fold into an affine map"
    runtime_requirements = ("numpy",)
    tolerance = 1e-4

    def probe(self) -> Availability:
        return Availability(can_lower=True, can_run=True, facts={"numpy": np.__version__})

    def lower(
        self,
        program: Program,
        graph: Any,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Payload:
        variates, lookback = program.shape.variates, program.shape.lookback
        progress(f"reading the affine map off {lookback + 1} windows")
        windows = np.repeat(np.eye(lookback, dtype=np.float32)[:, None], variates, axis=1)
        bias = program(np.zeros((2, variates, lookback), dtype=np.float32))[:1]
        weight = program(windows) - bias
        matrix = np.ascontiguousarray(np.concatenate([weight, bias]).transpose(1, 2, 0))
        self._require_affine(program, matrix, calibration[:8])
        np.save(directory / ENTRY, matrix)
        return Payload(files=(ENTRY,), entry=ENTRY, level="exported", runs_here=True)

    def _require_affine(self, program: Program, matrix: np.ndarray, past: np.ndarray) -> None:
        expected = program(past)
        got = np.einsum("dhl,bdl->bdh", matrix[..., :-1], past) + matrix[..., -1]
        if np.abs(got - expected).max() > 1e-3 * (np.abs(expected).max() + np.abs(past).max()):
            raise LoweringError(
                "the program is no affine map of each variate",
                hint="end the pipeline with fold_affine, and choose a student that folds into one map",
            )

    def engine_source(self) -> Path:
        return Path(__file__).parent / "matrix_engine.py"

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {"summary": self.summary, "devices": ["any with numpy"], "levels": ["exported", "executed"]}


TARGET = MatrixTarget()
