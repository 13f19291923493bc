"""A teacher in the forms that it would fairly be run in, as candidates of the latency rule.

    eager      PyTorch, inference_mode, numpy in and out, the forecast alone
    onnx       exported to ONNX, opset 18, on onnxruntime
    compiled   torch.compile, where there is a C++ compiler and it is done in time

A form that computes something else than the model is no form of it: each forecasts a window first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.base.errors import LoweringError, TsfmcError
from ..compiler.ir.program import Shape, export_program, first_line
from .artifact.device.forecaster import window_scale
from .artifact.device.portable import PortableTeacher
from .artifact.device.rounds import Candidate
from .measure.latency import torch_candidate

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-3
"""Of a form's forecast from the model's, relative to the window's scale (``measure/parity.py``)."""
COMPILE_LIMIT_S = 120.0


@dataclass(frozen=True)
class Skipped:
    """A form that does not run here, and why."""

    reason: str


class Model:
    """One model on its way into several forms; its ONNX file is made once.

    Args:
        model: eval mode, fp32, CPU, ``[B, D, L] -> [B, D, H]``.
        windows: a few real windows ``[N, D, L]`` float32, scaled.
    """

    def __init__(self, model: nn.Module, windows: np.ndarray) -> None:
        self.model = model
        self.past = np.ascontiguousarray(windows[:2], dtype=np.float32)
        self._file: bytes | LoweringError | None = None

    def onnx_file(self) -> bytes:
        """The model as ONNX: with a symbolic batch where it has one, else for one window.

        Raises:
            LoweringError: an operator that has no ONNX form, again and again.
        """
        if self._file is None:
            try:
                self._file = _onnx_file(self.model, self.past)
            except LoweringError as error:
                self._file = error
        if isinstance(self._file, LoweringError):
            raise self._file
        return self._file


def prepare(form: str, model: Model, threads: int) -> Candidate | Skipped:
    """The model in one of ``FORMS``, or why not."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        candidate = FORMS[form](model, threads)
        expected = torch_candidate(model.model)(model.past[:1])
        got = candidate.call(model.past[:1])
    except (TsfmcError, ImportError) as error:
        return Skipped(first_line(error))
    finally:
        torch.set_num_threads(before)
    worst = float((np.abs(got - expected).max(axis=(1, 2)) / window_scale(model.past[:1], expected)).max())
    if not worst <= TOLERANCE:
        return Skipped(f"its forecasts differ from the model's by {worst:.1e} of the window's scale")
    return candidate


def _eager(model: Model, threads: int) -> Candidate:
    return Candidate(torch_candidate(model.model), "fp32, PyTorch eager, inference_mode, forecast only")


def _onnx(model: Model, threads: int) -> Candidate:
    return open_onnx(model.onnx_file(), threads)


def open_onnx(file: bytes, threads: int) -> Candidate:
    """An ONNX file on onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    engine = PortableTeacher(file, threads)
    return Candidate(engine, engine.form)


def _compiled(model: Model, threads: int) -> Candidate:
    call = torch_candidate(model.model, compiled=True)
    with _time_limit(COMPILE_LIMIT_S):
        try:
            for _ in range(2):
                call(model.past[:1])
        except _OutOfTimeError:
            raise LoweringError(f"torch.compile is not done after {COMPILE_LIMIT_S:.0f} s") from None
        except Exception as error:  # what stands behind torch.compile has no common base class of errors
            raise LoweringError(f"torch.compile does not take it: {first_line(error)}") from error
    return Candidate(call, "fp32, torch.compile, inference_mode, forecast only")


FORMS: Mapping[str, Callable[[Model, int], Candidate]] = {
    "eager": _eager,
    "onnx": _onnx,
    "compiled": _compiled,
}


def _onnx_file(model: nn.Module, past: np.ndarray) -> bytes:
    from .onnx_graph.translate import serialised, to_onnx, translate

    horizon = int(torch_candidate(model)(past[:1]).shape[-1])
    shape = Shape(past.shape[1], past.shape[2], horizon)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # the exporter's remarks on its rewrites
        try:
            return serialised(to_onnx(export_program(model, shape, past)))
        except LoweringError:
            return serialised(translate(_exported_at_one(model, past[:1]), shape, batch=1))


def _exported_at_one(model: nn.Module, past: np.ndarray) -> Any:
    import torch

    try:
        with torch.no_grad():
            return torch.export.export(model, (torch.from_numpy(past),))
    except Exception as error:  # as in export_program
        raise LoweringError(
            f"{type(model).__name__} cannot be exported by torch.export: {first_line(error)}"
        ) from error


class _OutOfTimeError(BaseException):
    """Not an Exception, which what is interrupted might catch."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Ends what runs inside after ``seconds``.

    Raises:
        LoweringError: this system, or a thread that is not the main one, has no alarm that could.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise LoweringError("torch.compile cannot be held to a time limit here")

    def ring(number: int, frame: Any) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
