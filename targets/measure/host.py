"""The machine a number was measured on: no host name, no user, no paths."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...compiler.base.errors import MissingError
from ...compiler.base.processes import run_process
from ..artifact.device.host import device_record

PACKAGES = ("tsfmc", "torch", "onnx", "onnxruntime", "numpy", "apache-tvm", "tensorrt", "torch-tensorrt")


def host_record() -> dict[str, Any]:
    """CPU, cores, governor, GPU with driver, and package versions; what is not known is None."""
    return {**device_record(PACKAGES), "gpu": _gpu()}


@cache
def _gpu() -> dict[str, str] | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = run_process(command, seconds=20)
    except (MissingError, OSError):
        return None
    lines = found.stdout.strip().splitlines()
    if not found.ok or not lines or "," not in lines[0]:
        return None
    name, driver = (part.strip() for part in lines[0].split(",", 1))
    return {"name": name, "driver": driver}
