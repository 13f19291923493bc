"""The ONNX target: one page from a program to ``model.onnx``.

program --to_onnx--> graph --(static: to_basic_operators)--> --(int8: quantize_static)--> checked
-> stamped with the task -> model.onnx, (static: toolchain/calibration.npy, vectors.npz)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...compiler.base.errors import VerificationError
from ..base import Availability, Payload, Program, Rewrite, Say, Target, TargetOptions, TaskFacts
from .options import OnnxOptions

ENTRY = "model.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INT8_TOLERANCE = 5e-2
"""int8 changes the function: this bounds a broken program, not the loss of accuracy."""
UNJUDGED = "tiny"
"""A kind of window that int8 may get wrong by more: where the deviations of a window are far below the
epsilon of a normalisation, a step of int8 is larger than all of them.  In the data's units that is as little
as the epsilon; it is recorded."""


class OnnxTarget(Target):
    """Lowers to ONNX opset 18 with weights inside the file; see ``onnx_graph/translate.py``."""

    kind = "onnx"
    summary = "one ONNX file for onnxruntime on x86-64 and ARM CPUs, dynamic batch, or static for NPUs"
    Options: ClassVar[type[TargetOptions]] = OnnxOptions
    runtime_requirements = ("numpy", "onnxruntime>=1.23")
    tolerance = 1e-4
    task: TaskFacts | None = None

    def probe(self) -> Availability:
        facts, problems = {}, []
        for package in PACKAGES:
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                problems.append(f"{package} is not installed: pip install {package}")
        return Availability(not problems, not problems, tuple(problems), facts)

    def for_task(self, task: TaskFacts) -> Target:
        told = copy(self)
        told.task = task
        return told

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        from ..onnx_graph.static import to_basic_operators
        from ..onnx_graph.translate import OPSET, to_onnx

        settings = OnnxOptions.model_validate(options.model_dump())
        batch = settings.fixed_batch
        summary = f"ONNX opset {OPSET}, batch {batch or 'symbolic'}, simplified and checked"
        steps = [Rewrite("to_onnx", summary, lambda program, calibration: to_onnx(program, batch=batch))]
        if settings.is_static:
            summary = "operators that tool chains of microcontrollers lack, written with those that they have"
            steps.append(Rewrite("to_basic_operators", summary, lambda graph, _: to_basic_operators(graph)))
        if settings.precision != "fp32":
            summary = "static Q/DQ around every linear layer, ranges from training windows"
            steps.append(Rewrite("quantize_static", summary, _quantize(settings.precision == "int8")))
        return steps

    def lower(
        self,
        program: Program,
        graph: Any,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Say = lambda line: None,
    ) -> Payload:
        from ..onnx_graph.metadata import stamp, task_metadata
        from ..onnx_graph.translate import OPSET, serialised

        settings = OnnxOptions.model_validate(options.model_dump())
        task = self.task
        metadata = task_metadata(task.contract(program.shape), task.licence) if task else {}
        (directory / ENTRY).write_bytes(serialised(stamp(graph, metadata)))
        details = {
            "kind": self.kind,
            "entry": ENTRY,
            "opset": OPSET,
            "batch": settings.fixed_batch or "dynamic",
            "nodes": len(graph.graph.node),
            "metadata": metadata,
        }
        payload = Payload(files=(ENTRY,), entry=ENTRY, level="exported", runs_here=True, details=details)
        if not settings.is_static:
            return payload
        progress("checking sizes and operators, writing vectors")
        return self._static(payload, program, graph, directory, settings, calibration)

    def _static(
        self,
        payload: Payload,
        program: Program,
        graph: Any,
        directory: Path,
        settings: OnnxOptions,
        calibration: np.ndarray,
    ) -> Payload:
        """The payload of a static program: nothing in it is dynamic, and vectors lie beside it.

        Raises:
            LoweringError: a size is not known, or an operator is none of the plain ones.
            VerificationError: an int8 program departs from the model by more than rounding.
        """
        from ..onnx_graph.static import beyond, require_static
        from .vectors import write_vectors

        require_static(graph)
        facts = {
            "operators": sorted({node.op_type for node in graph.graph.node}),
            "beyond_st_edge_ai": beyond(graph),
        }
        found = replace(payload, details={**payload.details, "static": facts})
        if settings.precision != "fp32":
            found = replace(found, details={**found.details, "precision": settings.precision})
            judged = self._judge(found, program, directory, calibration)
            found = replace(found, details={**found.details, **judged})
        files = write_vectors(directory, calibration, self.load(directory, found, threads=1), program)
        return replace(found, files=(ENTRY, *files))

    def _judge(
        self, payload: Payload, program: Program, directory: Path, calibration: np.ndarray
    ) -> dict[str, Any]:
        """How far the int8 program is from the model, by kind of window, and the tolerance that follows."""
        from ..measure.parity import check_parity, hard_windows

        engine = self.load(directory, payload, threads=1)
        parity = check_parity(engine, program, hard_windows(calibration), INT8_TOLERANCE)
        errors = {kind: found.max_rel for kind, found in parity.per_kind.items()}
        worst = max((kind for kind in errors if kind != UNJUDGED), key=lambda kind: errors[kind])
        if not errors[worst] <= INT8_TOLERANCE:
            raise VerificationError(
                f"onnx: the int8 program departs from the model by {errors[worst]:.3g} of the window's scale "
                f"on {worst} windows, expected at most {INT8_TOLERANCE}",
                hint="use precision = 'fp32'",
            )
        tolerance = min(0.99, max(INT8_TOLERANCE, 2 * errors[UNJUDGED]))
        return {"tolerance": tolerance, "error_by_kind": errors}

    def engine_source(self) -> Path:
        return Path(__file__).parent / "engine.py"

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {
            "summary": self.summary,
            "devices": [
                "any CPU with an onnxruntime wheel",
                "static = true: tool chains of microcontrollers and NPUs, such as ST Edge AI",
            ],
            "options": sorted(OnnxOptions.model_fields),
            "levels": ["exported", "executed"],
        }


def _quantize(per_channel: bool) -> Any:
    def apply(graph: Any, calibration: np.ndarray) -> Any:
        from ..onnx_graph.static_int8 import quantize_static
        from .vectors import calibration_windows

        return quantize_static(graph, calibration_windows(calibration), per_channel=per_channel)

    return apply


TARGET = OnnxTarget()
