"""Devices of the c target: compiler, flags, and the machine that stands in for the device.

    Linux      the rows of the tvm target, with gcc's flags in the place of LLVM's
    bare       microcontrollers: no operating system, newlib or picolibc headers, an emulated board

Adding a microcontroller is adding a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...compiler.base.errors import unknown_name
from ..native import devices as linux


@dataclass(frozen=True)
class Board:
    """An emulated board without an operating system.

    Attributes:
        emulator: command before the ELF file.
        start: the template with the first instructions and the way out to the emulator.
        flash, ram: (address, bytes) of the board's memories, for the linker.
        pulse: instructions that one tick of the board's counter stands for, under ``-icount shift=0``.
    """

    emulator: tuple[str, ...]
    start: str
    flash: tuple[int, int]
    ram: tuple[int, int]
    pulse: int
    package: str


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        prefix: of the compiler and its binutils.
        flags: of the processor.
        board: where there is no operating system.
        row: the Linux row of the same name, else None.
    """

    name: str
    prefix: str
    flags: tuple[str, ...]
    compiler_package: str
    board: Board | None = None
    row: linux.Device | None = None

    @property
    def native(self) -> bool:
        """Whether this machine runs what is compiled for the device."""
        return self.row is not None and self.row.native

    @property
    def emulator(self) -> tuple[str, ...]:
        """Command before a program, empty on the device itself."""
        if self.board is not None:
            return self.board.emulator
        assert self.row is not None
        return () if self.native else (self.row.toolchain.emulator or ())

    @property
    def emulator_package(self) -> str:
        """Debian package of the emulator."""
        return self.board.package if self.board is not None else linux.NATIVE.emulator_package


def _arm(machine: str, flash: int, ram: int) -> Board:
    command = ("qemu-system-arm", "-M", machine, "-nographic", "-icount", "shift=0")
    semihosting = ("-monitor", "none", "-semihosting-config", "enable=on,target=native", "-kernel")
    # SysTick counts the boards' 25 MHz (20 MHz on the an505): one tick is 40 or 50 emulated nanoseconds,
    # and with shift=0 an instruction takes one.
    pulse = 50 if machine == "mps2-an505" else 40
    memory = 4 << 20
    return Board(
        (*command, *semihosting), "start_arm.c", (flash, memory), (ram, memory), pulse, "qemu-system-arm"
    )


_RISCV = Board(
    (
        *("qemu-system-riscv32", "-M", "virt", "-bios", "none", "-nographic", "-icount", "shift=0"),
        *("-monitor", "none", "-semihosting-config", "enable=on,target=native", "-kernel"),
    ),
    "start_riscv.c",
    (0x80000000, 16 << 20),
    (0x81000000, 16 << 20),
    1,
    "qemu-system-misc",
)
_ARM_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"


def _cortex(name: str, core: str, unit: str, board: Board) -> Device:
    flags = (f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={unit}")
    return Device(name, "arm-none-eabi-", flags, _ARM_PACKAGES, board)


_BARE = (
    _cortex("cortex-m4f", "cortex-m4", "fpv4-sp-d16", _arm("mps2-an386", 0x00000000, 0x20000000)),
    _cortex("cortex-m7", "cortex-m7", "fpv5-d16", _arm("mps2-an500", 0x00000000, 0x20000000)),
    _cortex("cortex-m33", "cortex-m33", "fpv5-sp-d16", _arm("mps2-an505", 0x10000000, 0x38000000)),
    Device(
        "rv32imc",
        "riscv64-unknown-elf-",
        ("-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"),
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
        _RISCV,
    ),
)


def _flags(row: linux.Device) -> tuple[str, ...]:
    """gcc's flags for what LLVM is told."""
    cpu = str(row.target["mcpu"])
    if row.system == "x86_64":
        return (f"-march={cpu}",)
    if row.system == "armv7l":
        return (f"-mcpu={cpu}", "-mfpu=neon-vfpv4", "-mfloat-abi=hard")
    return (f"-mcpu={cpu}",) if row.system == "aarch64" else ("-march=rv64gc",)


def _linux(row: linux.Device) -> Device:
    chain = row.toolchain
    return Device(row.name, chain.prefix, _flags(row), chain.compiler_package, None, row)


DEVICES: Mapping[str, Device] = {
    each.name: each for each in (*(_linux(row) for row in linux.DEVICES.values()), *_BARE)
}


def find_device(name: str) -> Device:
    """A device by name; ``host`` is the widest Linux row that this machine runs.

    Raises:
        UsageError: there is no such device.
    """
    if name == "host":
        return DEVICES[linux.host().name]
    if name not in DEVICES:
        raise unknown_name("device", name, ["host", *DEVICES])
    return DEVICES[name]
