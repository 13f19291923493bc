"""The ONNX engine: onnxruntime on the CPU.  Pasted into the artifact's ``run.py``."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H Q]`` float32, both scaled, on ``threads`` threads.

    Takes any batch; a program exported with a fixed one runs as often as needed, the last piece padded.
    """

    def __init__(self, files: Any, manifest: dict[str, Any], threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # A model from memory would take external weights from the working directory; in no folder are none.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        if str(manifest["target"].get("precision", "")).startswith("int8"):
            # Fused int8 kernels saturate on some processors: here the file's own arithmetic counts.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        content = files.read(manifest["target"]["entry"])
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        batch = manifest["target"].get("batch")
        self._batch = batch if isinstance(batch, int) else None
        if "task" in manifest:
            self._refuse_other_shapes(manifest["task"])

    def _refuse_other_shapes(self, task: dict[str, Any]) -> None:
        variates, quantiles = len(task["variates"]), len(task.get("quantile_levels") or [0.5])
        beside = sum(group["width"] for group in task.get("inputs") or [])
        for node, steps in (
            (self._session.get_inputs()[0], task["lookback"] + beside),
            (self._session.get_outputs()[0], task["horizon"] * quantiles),
        ):
            shape = [size if isinstance(size, int) else None for size in node.shape]  # None: any
            allowed = ([self._batch, variates, steps], [None, variates, steps])
            if shape not in allowed:
                raise ValueError(
                    f"{node.name} of the program is {node.shape}, the task's [batch, {variates}, {steps}]"
                )

    def __call__(self, past: np.ndarray) -> np.ndarray:
        past = np.asarray(past).astype(np.float32, casting="same_kind", copy=False)  # any width, byte order
        size = self._batch
        if size is None or size == len(past):
            return self._run(past)
        pieces = [past[start : start + size] for start in range(0, len(past), size)]
        pieces[-1] = np.concatenate([pieces[-1], np.repeat(past[:1], size - len(pieces[-1]), axis=0)])
        return np.concatenate([self._run(piece) for piece in pieces])[: len(past)]

    def _run(self, past: np.ndarray) -> np.ndarray:
        forecast: np.ndarray = self._session.run(["forecast"], {"past": past})[0]
        return forecast
