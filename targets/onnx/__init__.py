"""The ONNX target: one ``model.onnx`` that onnxruntime executes on any CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ..base import Availability, Payload, Program, Rewrite, Say, Target, TargetOptions

ENTRY = "model.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class OnnxOptions(TargetOptions):
    """``batch``: a fixed batch size; by default the batch stays symbolic."""

    batch: int | None = Field(default=None, ge=1)


class OnnxTarget(Target):
    """Lowers to ONNX opset 18 with weights inside the file; see ``onnx_graph/translate.py``."""

    kind = "onnx"
    summary = "one ONNX file for onnxruntime on x86-64 and ARM CPUs, dynamic batch"
    Options: ClassVar[type[TargetOptions]] = OnnxOptions
    runtime_requirements = ("numpy", "onnxruntime>=1.23")
    tolerance = 1e-4

    def probe(self) -> Availability:
        facts, problems = {}, []
        for package in PACKAGES:
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                problems.append(f"{package} is not installed: pip install {package}")
        return Availability(not problems, not problems, tuple(problems), facts)

    def rewrites(self, options: TargetOptions) -> Sequence[Rewrite]:
        from ..onnx_graph.translate import OPSET, to_onnx

        settings = OnnxOptions.model_validate(options.model_dump())
        summary = f"ONNX opset {OPSET}, batch {settings.batch or 'symbolic'}, simplified and checked"
        return (
            Rewrite("to_onnx", summary, lambda program, calibration: to_onnx(program, batch=settings.batch)),
        )

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
        from ..onnx_graph.translate import OPSET, serialised

        settings = OnnxOptions.model_validate(options.model_dump())
        (directory / ENTRY).write_bytes(serialised(graph))
        details = {
            "kind": self.kind,
            "entry": ENTRY,
            "opset": OPSET,
            "batch": settings.batch or "dynamic",
            "nodes": len(graph.graph.node),
        }
        return Payload(files=(ENTRY,), entry=ENTRY, level="exported", runs_here=True, details=details)

    def engine_source(self) -> Path:
        return Path(__file__).parent / "engine.py"

    def describe(self) -> Mapping[str, Sequence[str] | str]:
        return {
            "summary": self.summary,
            "devices": ["any CPU with an onnxruntime wheel"],
            "options": sorted(OnnxOptions.model_fields),
            "levels": ["exported", "executed"],
        }


TARGET = OnnxTarget()
