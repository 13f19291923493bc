"""The ONNX target: one ``model.onnx`` that onnxruntime executes on any CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from ..base import Availability, Payload, Shape, Target, TargetOptions

ENTRY = "model.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class OnnxOptions(TargetOptions):
    """``batch``: a fixed batch size; by default the batch stays symbolic."""

    batch: int | None = Field(default=None, ge=1)


class OnnxTarget(Target):
    """Lowers to ONNX opset 18 with weights inside the file; see ``export.py``."""

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

    def lower(
        self,
        model: nn.Module,
        shape: Shape,
        directory: Path,
        *,
        options: TargetOptions,
        calibration: np.ndarray,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Payload:
        from .export import OPSET, export_onnx

        settings = OnnxOptions.model_validate(options.model_dump())
        progress(f"exporting {type(model).__name__} to ONNX opset {OPSET}")
        proto = export_onnx(model, shape, directory / ENTRY, calibration=calibration, batch=settings.batch)
        details = {
            "kind": self.kind,
            "entry": ENTRY,
            "opset": OPSET,
            "batch": settings.batch or "dynamic",
            "nodes": len(proto.graph.node),
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
