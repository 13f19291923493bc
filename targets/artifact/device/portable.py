"""Portable: the teacher's own ONNX file beside an artifact, on onnxruntime where the device has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PORTABLE = "teacher/model.onnx"


class PortableTeacher:
    """``past [1, D, L]`` float32 -> ``forecast [1, D, H]`` float32, both scaled.

    Raises:
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.form = f"fp32, ONNX on onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, past: np.ndarray) -> Any:
        return self._session.run(None, {self._input: past})[0]
