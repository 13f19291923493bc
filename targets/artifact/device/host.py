"""Host: the machine a number was measured on, without host name, user or paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def device_record(packages: tuple[str, ...]) -> dict[str, Any]:
    """Board, CPU, cores, governor, and the versions of Python and of those ``packages`` that are there; what
    is not known is None."""
    board = _read(Path("/proc/device-tree/model"))
    return {
        "board": board and board.rstrip("\0"),
        "cpu": _cpu_model(),
        "flags": [flag for flag in FLAGS if flag in _cpu_flags()],
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": _usable_cores(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "emulator": emulator(),
        "packages": {"python": platform.python_version(), **_versions(packages)},
    }


def emulator() -> str | None:
    """What runs this program in the place of a processor; its times say nothing of a device.

    An emulator of programs answers for their own files, but its process has its own name, and the processor
    that the system tells of is of another kind than the program's.
    """
    try:
        own = Path(os.readlink("/proc/thread-self/exe")).name  # Python 3.8 has no Path.readlink
    except OSError:
        own = ""
    if own.startswith("qemu"):
        return own
    x86 = platform.machine() in ("x86_64", "AMD64", "i386", "i586", "i686")
    return "unknown" if not x86 and _cpuinfo("vendor_id") else None


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


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for package in packages:
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
