"""From the file that a job names to the scheduled program: what compiling and tuning share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...compiler.base.errors import LoweringError
from ..native.devices import Device
from .job import Job


def load_module(job: Job) -> Any:
    """The fused Relax module of the job's source.

    Raises:
        LoweringError: the frontend does not take it; names the operator.
    """
    import torch

    from .importer import import_exported, import_onnx, optimise

    source = Path(job.source)
    try:
        if source.suffix == ".onnx":
            return optimise(import_onnx(source, job.shape))
        return optimise(import_exported(torch.export.load(source)))
    except Exception as error:  # frontends raise whatever type their failing check has
        raise LoweringError(
            f"tvm: the {'ONNX' if source.suffix == '.onnx' else 'torch'} frontend does not take this model: "
            f"{line_of(error)}",
            hint="write the operator with supported ones, or use the onnx target",
        ) from error


def program_of(module: Any, job: Job, device: Device, tiles: Any) -> Any:
    """The scheduled program.

    Raises:
        LoweringError: names the kernel or the construct that has no schedule.
    """
    from .program import build_program
    from .schedule import Choices
    from .tir import Unsupported

    try:
        return build_program(
            module, Choices(device.processor, tiles, int8_weights=job.precision == "int8-weights")
        )
    except Unsupported as error:
        raise LoweringError(
            f"tvm: no schedule for {error}", hint="use the onnx target for this model"
        ) from error


def line_of(error: BaseException) -> str:
    """The last line of an error's text, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
