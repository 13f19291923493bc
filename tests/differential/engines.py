"""The forms of a student that run here, each ``past [B, D, L] -> forecast [B, D, H]``, float32."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from tsfmc.compiler.ir.program import export_program
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Engine, Payload, Program

from .students import Drawn

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("onnx", {}),
    "tvm library": ("tvm", {"form": "runtime-free", "cache": False}),
    "tvm vm": ("tvm", {"form": "vm", "cache": False}),
    "tvm int8": ("tvm", {"form": "runtime-free", "precision": "int8-weights", "cache": False}),
    "c": ("c", {}),
    "c int8": ("c", {"precision": "int8-weights"}),
}
"""Form -> target and options."""
REFUSES_NAN = ("c", "c int8")
"""The C library answers a window with a missing value with an error, and never with a forecast."""
ANY_LOSS = ("INT8_TOLERANCE", 1e6)


def available() -> list[str]:
    """The forms that can be lowered and run on this machine."""
    known = set(TARGETS)
    return [form for form, (kind, _) in FORMS.items() if kind in known and TARGETS[kind].probe().can_run]


@contextmanager
def engines(drawn: Drawn, forms: Sequence[str], calibration: np.ndarray) -> Iterator[dict[str, Engine]]:
    """What the student is in each form; the program is exported once for all of them."""
    program = export_program(drawn.model, drawn.shape, calibration)
    found: dict[str, Engine] = {"torch": torch_engine(drawn.model), "program": program}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(worker_here())
        for kind in {FORMS[form][0] for form in forms if form.endswith("int8")}:
            # int8 loses the tails of weights, and a target refuses that; compare.py judges how much may be.
            stack.enter_context(mock.patch.object(import_module(f"tsfmc.targets.{kind}.target"), *ANY_LOSS))
        for number, form in enumerate(forms):
            kind, options = FORMS[form]
            directory = folder / str(number)
            directory.mkdir()
            payload = lower(program, kind, options, directory, calibration)
            found[form] = TARGETS[kind].load(directory, payload, 1)
        yield found


def lower(
    program: Program, kind: str, options: dict[str, Any], directory: Path, calibration: np.ndarray
) -> Payload:
    """The target's payload of an exported program."""
    target = TARGETS[kind]
    settings = target.Options(**options)
    graph: Any = program
    for rewrite in target.rewrites(settings):
        graph = rewrite.apply(graph, calibration)
    return target.lower(program, graph, directory, options=settings, calibration=calibration)


def torch_engine(model: torch.nn.Module) -> Engine:
    """PyTorch itself, in the precision of the model's weights."""
    kind = next(model.parameters()).dtype

    def run(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = model(torch.from_numpy(np.asarray(past)).to(kind)).numpy()
        return forecast

    return run


@contextmanager
def worker_here() -> Iterator[None]:
    """TVM compiles in this process: a new one takes seconds to import torch and TVM."""
    if "tvm" not in set(TARGETS) or not TARGETS["tvm"].probe().can_lower:
        yield
        return
    from tsfmc.targets.tvm import job, target, worker

    def run(task: Any, work: Path, time_limit_s: float, progress: Callable[[str], None] = print) -> Any:
        (work / "job.json").write_text(json.dumps(asdict(task)))
        with redirect_stdout(io.StringIO()):
            worker.main(work / "job.json", work / "answer.json")
        return job.read_answer(work / "answer.json")

    with mock.patch.object(target, "run_child", run):
        yield
