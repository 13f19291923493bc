"""The tvm engine: the runtime-free library by ctypes, or TVM's virtual machine.  Pasted into ``run.py``."""

from __future__ import annotations

from ctypes import CDLL, byref, c_char, c_int, c_void_p
from pathlib import Path
from sys import getrefcount
from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)
memory_of: Any = c_char.from_buffer
"""The quickest way to an array's address; refuses memory that is strided or read-only."""


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled, on one thread.

    Takes any batch: the program runs once per compiled batch, the last piece padded.  A small forecaster
    takes microseconds, and so does every array that is copied or made around it: the library reads the
    caller's memory in place, and writes into its last forecast again once the caller has dropped it.
    One call at a time: the library has one arena.
    """

    def __new__(cls, directory: Path, manifest: dict[str, Any], threads: int) -> Engine:
        """The library's engine, or that of the virtual machine's entry."""
        return object.__new__(VirtualMachine if manifest["target"]["entry"].endswith("_vm.so") else cls)

    def __init__(self, directory: Path, manifest: dict[str, Any], threads: int) -> None:
        facts = manifest["target"]
        self._path = (Path(directory) / facts["entry"]).resolve()
        self._input = tuple(int(size) for size in facts["input_shape"])
        self._output = tuple(int(size) for size in facts["output_shape"])
        self._open()

    def _open(self) -> None:
        self._predict = CDLL(str(self._path)).tsfmc_predict
        self._predict.restype = c_int
        self._renew()

    def _renew(self) -> None:
        self._forecast = np.empty(self._output, dtype=np.float32)
        self._target = c_void_p(self._forecast.ctypes.data)

    def __call__(self, past: np.ndarray) -> np.ndarray:
        if past.shape != self._input or past.dtype is not FLOAT32:
            return self._in_pieces(past)
        if getrefcount(self._forecast) > 2:  # more than our attribute and the argument of this call
            self._renew()
        try:
            source = byref(memory_of(past))
        except (TypeError, ValueError, BufferError):
            source = byref(memory_of(np.array(past, order="C")))
        if self._predict(source, self._target):
            raise RuntimeError(f"a kernel of {self._path.name} failed")
        return self._forecast

    def _in_pieces(self, past: np.ndarray) -> np.ndarray:
        size = self._input[0]
        past = np.asarray(past, dtype=np.float32)
        if past.shape[1:] != self._input[1:]:
            raise ValueError(f"expected windows of shape {self._input[1:]}, got {past.shape[1:]}")
        forecasts = np.empty((len(past), *self._output[1:]), dtype=np.float32)
        for start in range(0, len(past), size):
            piece = past[start : start + size]
            count = len(piece)
            if count < size:
                piece = np.concatenate([piece, np.repeat(piece[:1], size - count, axis=0)])
            forecasts[start : start + count] = self(piece)[:count]
        return forecasts


class VirtualMachine(Engine):
    """The same for TVM's virtual machine, which needs TVM on the device."""

    def _open(self) -> None:
        import tvm  # type: ignore[import-untyped]

        machine = tvm.relax.VirtualMachine(tvm.runtime.load_module(str(self._path)), tvm.cpu())
        self._main, self._tensor = machine["main"], tvm.runtime.tensor

    def __call__(self, past: np.ndarray) -> np.ndarray:
        if past.shape != self._input or past.dtype != FLOAT32:
            return self._in_pieces(past)
        forecast: np.ndarray = self._main(self._tensor(np.ascontiguousarray(past))).numpy()
        return forecast
