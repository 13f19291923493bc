"""The ONNX engine: onnxruntime on the CPU.  Pasted into the artifact's ``run.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled, on ``threads`` threads."""

    def __init__(self, directory: Path, manifest: dict[str, Any], threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(Path(directory) / manifest["target"]["entry"]), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, past: np.ndarray) -> np.ndarray:
        forecast: np.ndarray = self._session.run(["forecast"], {"past": past})[0]
        return forecast
