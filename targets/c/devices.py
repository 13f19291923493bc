"""Devices of the c target: those of ``native/devices.py``, with gcc's flags in the place of LLVM's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...compiler.base.errors import unknown_name
from ..native import devices as native
from ..native.devices import Board


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        row: what every target that gives machine code knows of it.
        flags: gcc's, of the processor.
    """

    row: native.Device
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.row.name

    @property
    def board(self) -> Board | None:
        """Where there is no operating system."""
        return self.row.board

    @property
    def native(self) -> bool:
        """Whether this machine runs what is compiled for the device."""
        return self.row.native

    @property
    def prefix(self) -> str:
        """Of the compiler and its binutils."""
        return self.row.toolchain.prefix

    @property
    def compiler_package(self) -> str:
        """Debian packages of the compiler."""
        return self.row.toolchain.compiler_package

    @property
    def emulator(self) -> tuple[str, ...]:
        """Command before a program, empty on the device itself."""
        return () if self.native else (self.row.toolchain.emulator or ())

    @property
    def emulator_package(self) -> str:
        """Debian package of the emulator."""
        return self.row.toolchain.emulator_package


def _flags(row: native.Device) -> tuple[str, ...]:
    """gcc's flags for what LLVM is told."""
    cpu = str(row.target["mcpu"])
    if row.board is not None:
        return row.board.flags
    if row.system == "x86_64":
        return (f"-march={cpu}",)
    if row.system == "armv7l":
        return (f"-mcpu={cpu}", "-mfpu=neon-vfpv4", "-mfloat-abi=hard")
    return (f"-mcpu={cpu}",) if row.system == "aarch64" else ("-march=rv64gc",)


DEVICES: Mapping[str, Device] = {name: Device(row, _flags(row)) for name, row in native.DEVICES.items()}


def find_device(name: str) -> Device:
    """A device by name; ``host`` is the widest row that this machine runs.

    Raises:
        UsageError: there is no such device.
    """
    if name == "host":
        return DEVICES[native.host().name]
    if name not in DEVICES:
        raise unknown_name("device", name, ["host", *DEVICES])
    return DEVICES[name]
