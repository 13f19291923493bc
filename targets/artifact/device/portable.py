"""Portable: the teacher's own ONNX file beside an artifact, on onnxruntime where the device has it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

PORTABLE = "teacher/model.onnx"


class PortableTeacher:
    """``past [1, D, L]`` float32 -> ``forecast [1, D, H]`` float32, both scaled.

    Args:
        content: of the ONNX file.

    Raises:
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A model from memory would take external weights from the working directory; in no folder are none.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        self.form = f"fp32, ONNX on onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, past: np.ndarray) -> Any:
        return self._session.run(None, {self._input: past})[0]
