"""The tvm engine: the runtime-free library by ctypes, or TVM's virtual machine.  Pasted into ``run.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled, on one thread.

    Takes any batch: the program runs once per compiled batch, the last piece padded.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any], threads: int) -> None:
        facts = manifest["target"]
        path = (Path(directory) / facts["entry"]).resolve()
        self._input = tuple(int(size) for size in facts["input_shape"])
        self._output = tuple(int(size) for size in facts["output_shape"])
        self._call = self._virtual_machine(path) if facts["entry"].endswith("_vm.so") else self._library(path)

    def _library(self, path: Path) -> Any:
        import ctypes

        predict = ctypes.CDLL(str(path)).tsfmc_predict
        predict.restype = ctypes.c_int
        past = np.zeros(self._input, dtype=np.float32)
        forecast = np.zeros(self._output, dtype=np.float32)
        # Copying into memory of known address takes less time than asking numpy for an address each time.
        source, target = (ctypes.c_void_p(each.ctypes.data) for each in (past, forecast))

        def call(window: np.ndarray) -> np.ndarray:
            past[...] = window
            if predict(source, target) != 0:
                raise RuntimeError(f"a kernel of {path.name} failed")
            return forecast.copy()

        return call

    def _virtual_machine(self, path: Path) -> Any:
        import tvm  # type: ignore[import-untyped]

        machine = tvm.relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        main = machine["main"]

        def call(window: np.ndarray) -> np.ndarray:
            forecast: np.ndarray = main(tvm.runtime.tensor(np.ascontiguousarray(window))).numpy()
            return forecast

        return call

    def __call__(self, past: np.ndarray) -> np.ndarray:
        size = self._input[0]
        if len(past) == size:
            result: np.ndarray = self._call(past)
            return result
        forecasts = []
        for start in range(0, len(past), size):
            piece = past[start : start + size]
            if len(piece) < size:
                piece = np.concatenate([piece, np.repeat(piece[:1], size - len(piece), axis=0)])
            forecasts.append(self._call(piece))
        return np.concatenate(forecasts)[: len(past)]
