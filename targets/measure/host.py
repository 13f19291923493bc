"""The machine a number was measured on: no host name, no user, no paths."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...compiler.base.errors import MissingError
from ...compiler.base.processes import run_process

FLAGS = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "sve",
)
"""CPU features that kernels are chosen by."""
PACKAGES = ("tsfmc", "torch", "onnx", "onnxruntime", "numpy", "apache-tvm", "tensorrt", "torch-tensorrt")


def host_record() -> dict[str, Any]:
    """CPU, cores, governor, GPU with driver, and package versions; what is not known is None."""
    return {
        "cpu": _cpu_model(),
        "flags": [flag for flag in FLAGS if flag in _cpu_flags()],
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": _usable_cores(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "gpu": _gpu(),
        "packages": {"python": platform.python_version(), **_versions()},
    }


def _cpu_model() -> str | None:
    for key in ("model name", "Model", "Hardware"):  # x86, then ARM boards
        if values := _cpuinfo(key):
            return values[0]
    return platform.processor() or None


def _cpu_flags() -> set[str]:
    return set(" ".join(_cpuinfo("flags") + _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> list[str]:
    text = _read(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key][:1]


def _usable_cores() -> int | None:
    """Cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


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


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
