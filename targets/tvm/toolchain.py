"""Compilers and emulators of a device: found, named when missing, run with readable errors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...compiler.base.errors import LoweringError, MissingError, VerificationError
from ...compiler.base.processes import run_process
from ..native.devices import DEVICES, Device, Toolchain

MEMORY_BYTES = 8 << 30
"""Address space of a compiler, a linker or an emulated program."""
TOOL_SECONDS = 900.0
"""Time of one tool; the compile that calls it has the recipe's time limit besides."""


@dataclass(frozen=True)
class Tool:
    """A program that a device needs: where it is (None when missing) and the Debian package that has it."""

    name: str
    path: str | None
    package: str


def tools(chain: Toolchain) -> list[Tool]:
    """The C compiler, the linker's companions, and the emulator where one is needed."""
    binutils = "binutils" if not chain.prefix else f"binutils-{chain.prefix.rstrip('-')}"
    wanted = [(chain.prefix + "gcc", chain.compiler_package)]
    wanted += [(chain.prefix + name, binutils) for name in ("ld", "objcopy", "ar")]
    if chain.emulator:
        wanted.append((chain.emulator[0], chain.emulator_package))
    return [Tool(name, shutil.which(name), package) for name, package in wanted]


def require_compiler(device: Device) -> None:
    """Raises:
    MissingError: the first missing compiler or binutil, with its Debian package.
    """
    emulator = device.toolchain.emulator
    for tool in tools(device.toolchain):
        if tool.path is None and (emulator is None or tool.name != emulator[0]):
            raise MissingError(
                f"device {device.name}: {tool.name} is not installed",
                hint=f"apt-get install {tool.package}",
            )


def can_emulate(device: Device) -> bool:
    """Whether the device's emulator and its system libraries are here."""
    emulator = device.toolchain.emulator
    return bool(emulator) and shutil.which(emulator[0]) is not None  # type: ignore[index]


def problems() -> list[str]:
    """One line per device whose tools are missing, for ``tsfmc doctor``."""
    lines = []
    for device in DEVICES.values():
        missing = [tool for tool in tools(device.toolchain) if tool.path is None]
        if missing:
            packages = " ".join(sorted({tool.package for tool in missing}))
            names = ", ".join(tool.name for tool in missing)
            lines.append(f"device {device.name}: {names} not found: apt-get install {packages}")
    return lines


def run_tool(device: Device, name: str, arguments: Sequence[str], folder: Path) -> None:
    """Runs a compiler or binutil of the device in ``folder``.

    Raises:
        MissingError: it is not installed.
        LoweringError: it failed or did not finish; carries its first error line.
    """
    command = [device.toolchain.prefix + name, *arguments]
    try:
        done = run_process(command, seconds=TOOL_SECONDS, memory_bytes=MEMORY_BYTES, cwd=folder)
    except MissingError:
        require_compiler(device)
        raise
    if not done.ok:
        lines = done.stderr.splitlines() or ["no message"]
        reason = next((line for line in lines if "error" in line.lower()), lines[0])
        raise LoweringError(
            f"device {device.name}: {command[0]} {done.ending}: {reason}",
            hint="compile for 'host' to see whether the model or the toolchain is the cause",
        )


def run_static_binary(
    device: Device, binary: Path, past: np.ndarray, output_shape: tuple[int, ...], time_limit_s: float
) -> np.ndarray:
    """Runs the static example on windows ``past [N, B, D, L]``, under the device's emulator where it has one.

    Raises:
        VerificationError: it crashed, hung or wrote the wrong amount.
    """
    folder = binary.parent
    np.ascontiguousarray(past, dtype=np.float32).tofile(folder / "past.bin")
    command = [*(device.toolchain.emulator or ()), str(binary), "past.bin", "forecast.bin"]
    done = run_process(command, seconds=time_limit_s, memory_bytes=MEMORY_BYTES, cwd=folder)
    if done.code is None:
        raise VerificationError(
            f"device {device.name}: {command[0]} {done.ending}", hint="raise time_limit_s"
        )
    if not done.ok:
        raise VerificationError(
            f"device {device.name}: the program {done.ending} under {command[0]}: {done.last_line}"
        )
    forecast = np.fromfile(folder / "forecast.bin", dtype=np.float32)
    expected = (len(past), *output_shape)
    if forecast.size != int(np.prod(expected)):
        raise VerificationError(
            f"device {device.name}: {forecast.size} numbers came back, expected {int(np.prod(expected))}"
        )
    return forecast.reshape(expected)
