"""The engine of machine code: a library by ctypes, or TVM's virtual machine.  Pasted into ``run.py``."""

from __future__ import annotations

import os
import platform
import tempfile
import weakref
from _ctypes import dlclose
from collections.abc import Callable
from ctypes import CDLL, byref, c_char, c_char_p, c_int, c_void_p
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from pathlib import Path
from sys import getrefcount
from threading import Lock
from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)
memory_of: Any = c_char.from_buffer
"""The quickest way to an array's address; refuses memory that is strided or read-only."""


class Engine:
    """``past [B, D, L]`` float32 -> ``forecast [B, D, H]`` float32, both scaled, on one thread.

    Takes any batch: the program runs once per compiled batch, the last piece padded.  A small forecaster
    takes microseconds, and so does every array that is copied or made around it: the library reads the
    caller's memory in place, and writes into an earlier forecast again once its caller has dropped it.
    Any number of threads may call: every call in flight has memory of its own.
    """

    def __new__(cls, files: Any, manifest: dict[str, Any], threads: int) -> Engine:
        """The library's engine, or that of the virtual machine's entry."""
        return object.__new__(VirtualMachine if manifest["target"]["entry"].endswith("_vm.so") else cls)

    def __init__(self, files: Any, manifest: dict[str, Any], threads: int) -> None:
        facts = manifest["target"]
        check_processor(facts)
        self._name = facts["entry"]
        self._input = tuple(int(size) for size in facts["input_shape"])
        self._output = tuple(int(size) for size in facts["output_shape"])
        self._open(files.read(self._name), facts)

    def _open(self, content: bytes, facts: dict[str, Any]) -> None:
        library, close = open_library(content)
        weakref.finalize(self, close).atexit = False
        self._refuse_other_shapes(library)
        missing = library.tsfmc_missing_cpu_feature
        missing.restype = c_char_p
        if missing():  # asks the processor itself, where check_processor believed Linux
            raise RuntimeError(refusal(facts, [missing().decode()]))
        self._predict = library.tsfmc_predict
        self._predict.restype = c_int
        self._idle: list[tuple[np.ndarray, c_void_p]] = []

    def _refuse_other_shapes(self, library: CDLL) -> None:
        """The arrays that it gets are as long as the task says: it must not read or write beyond them."""
        try:
            shape = tuple((c_int * 4).in_dll(library, "tsfmc_shape"))
        except ValueError:
            raise ValueError(f"{self._name} does not tell its shapes: compile it again") from None
        if (shape[:3], (*shape[:2], shape[3])) != (self._input, self._output):
            raise ValueError(
                f"{self._name} was compiled for batch, variates, numbers in and out {list(shape)}, "
                f"the manifest says {list(self._input)} -> {list(self._output)}"
            )

    def _new_forecast(self) -> tuple[np.ndarray, c_void_p]:
        """An array for the forecast of one call, and where it lies."""
        forecast = np.empty(self._output, dtype=np.float32)
        return forecast, c_void_p(forecast.ctypes.data)

    def __call__(self, past: np.ndarray) -> np.ndarray:
        if past.shape != self._input or past.dtype is not FLOAT32:
            return self._in_pieces(past)
        try:
            pair = self._idle.pop()  # a list hands out each element once, to whichever thread
        except IndexError:
            pair = self._new_forecast()
        if getrefcount(pair[0]) > 2:  # more than the pair and the argument here: its caller kept it
            pair = self._new_forecast()
        try:
            source = byref(memory_of(past))
        except (TypeError, ValueError, BufferError):
            source = byref(memory_of(np.array(past, order="C")))
        if self._predict(source, pair[1]):
            if not past.flags.aligned:
                return self(past.copy())
            raise RuntimeError(f"a kernel of {self._name} failed")
        forecast = pair[0]  # held before another thread can take the pair: it must see that it is in use
        self._idle.append(pair)
        return forecast

    def _in_pieces(self, past: np.ndarray) -> np.ndarray:
        size = self._input[0]
        past = np.asarray(past).astype(FLOAT32, casting="same_kind").view(FLOAT32)  # FLOAT32 itself
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
    """The same for TVM's virtual machine, which needs TVM on the device.

    A virtual machine has one stack of frames: calls from several threads wait for each other.
    """

    def _open(self, content: bytes, facts: dict[str, Any]) -> None:
        import tvm  # type: ignore[import-untyped]

        with tempfile.TemporaryDirectory() as folder:  # TVM tells a library by its name
            path = Path(folder) / self._name
            path.write_bytes(content)
            library = tvm.runtime.load_module(str(path))
        self._main, self._tensor = tvm.relax.VirtualMachine(library, tvm.cpu())["main"], tvm.runtime.tensor
        self._lock = Lock()

    def __call__(self, past: np.ndarray) -> np.ndarray:
        if past.shape != self._input or past.dtype != FLOAT32:
            return self._in_pieces(past)
        with self._lock:
            forecast: np.ndarray = self._main(self._tensor(np.ascontiguousarray(past))).numpy()
        return forecast


def open_library(content: bytes) -> tuple[CDLL, Callable[[], None]]:
    """Opens a library from a copy that nobody can change; returns it, and what closes it.

    By the file's own path the loader would give back what it opened there before, whatever is there now.
    """
    try:
        number, path = os.memfd_create("tsfmc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), ""
    except (AttributeError, OSError):  # not this system, or forbidden
        number, path = tempfile.mkstemp(suffix=".so")
    try:
        with open(number, "wb", closefd=False) as stream:
            stream.write(content)
        if not path:
            fcntl(number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
        library = CDLL(path or f"/proc/self/fd/{number}")
    except BaseException:
        os.close(number)
        raise
    finally:
        if path:
            Path(path).unlink()

    def close(handle: int = library._handle) -> None:
        dlclose(handle)
        os.close(number)  # not earlier: the loader knows the copy by this number, which would come again

    return library, close


def check_processor(facts: dict[str, Any]) -> None:
    """Raises RuntimeError before a kernel would end the process by SIGILL, as far as Linux tells."""
    machine = facts.get("machine", platform.machine())
    if machine != platform.machine():
        raise RuntimeError(f"it was compiled for {machine}, this is {platform.machine()}")
    has = processor_features()
    missing = [name for name in facts.get("cpu_features", []) if name not in has]
    if has and missing:
        raise RuntimeError(refusal(facts, missing))


def refusal(facts: dict[str, Any], missing: list[str]) -> str:
    """Which features this processor lacks, and the widest device that does without them."""
    devices = {
        name: used for name, used in facts.get("lesser_devices", {}).items() if not set(missing) & set(used)
    }
    widest = max(devices, key=lambda name: len(devices[name]), default=None)
    instead = f"compile with --device {widest}" if widest else "no device of this architecture does without"
    return f"this processor has no {', '.join(missing)}: {instead}"


def processor_features() -> set[str]:
    """What Linux says of the processor; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        if line.lower().startswith(("flags", "features")):
            return set(line.partition(":")[2].split())
    return set()
