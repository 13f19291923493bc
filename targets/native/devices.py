"""Devices by name: what LLVM is told, what the tile choice is told, and which tools a device needs.

Adding a device is adding a row.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...compiler.base.errors import UsageError, unknown_name
from .processor import Processor

AVX512 = Processor(lanes=16, registers=32, pipes=2, loads=2, latency=4, broadcast_operand=True)
AVX2 = Processor(lanes=8, registers=16, pipes=2, loads=2, latency=4)
SSE = Processor(lanes=4, registers=16, pipes=2, loads=2, latency=4)
A53 = Processor(lanes=4, registers=32, pipes=1, loads=0.5, latency=4, broadcast_operand=True)
A72 = Processor(
    lanes=4, registers=32, pipes=1, loads=1, latency=7, broadcast_operand=True, ways=2, way_bytes=16384
)
A76 = Processor(
    lanes=4, registers=32, pipes=2, loads=2, latency=4, broadcast_operand=True, ways=4, way_bytes=16384
)
A7 = Processor(lanes=4, registers=16, pipes=0.5, loads=0.5, latency=8)
RV64 = Processor(lanes=1, registers=32, pipes=1, loads=1, latency=5)
CORTEX_M = Processor(lanes=1, registers=32, pipes=1, loads=0.5, latency=3)
NO_FLOAT = Processor(lanes=1, registers=8, pipes=0.05, loads=1, latency=1)
"""Without a floating-point unit: every multiply-add is a call, beside which nothing else counts."""


@dataclass(frozen=True)
class Board:
    """An emulated board.

    Attributes:
        core, library: gcc's flags, of its core and of the C library.
        start: the template with the first instructions and the way out to the emulator.
        flash, ram: (address, bytes) of its memories, for the linker.
        pulse: instructions that one tick of its counter stands for, under ``-icount shift=0``.
    """

    core: tuple[str, ...]
    start: str
    flash: tuple[int, int]
    ram: tuple[int, int]
    pulse: int
    library: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """To compile and to link with."""
        return self.core + self.library


@dataclass(frozen=True)
class Toolchain:
    """Compiler, emulator (None on the machine itself) and the Debian packages that have them."""

    prefix: str
    emulator: tuple[str, ...] | None
    compiler_package: str
    emulator_package: str = "qemu-user-static"


NATIVE = Toolchain("", None, "gcc")
AARCH64 = Toolchain(
    "aarch64-linux-gnu-", ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"), "gcc-aarch64-linux-gnu"
)
ARMHF = Toolchain(
    "arm-linux-gnueabihf-", ("qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"), "gcc-arm-linux-gnueabihf"
)
RISCV64 = Toolchain(
    "riscv64-linux-gnu-", ("qemu-riscv64-static", "-L", "/usr/riscv64-linux-gnu"), "gcc-riscv64-linux-gnu"
)

_QEMU_FLAGS = ("-nographic", "-icount", "shift=0", "-monitor", "none")
_SEMIHOSTING = ("-semihosting-config", "enable=on,target=native", "-kernel")
_ARM_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"
RV32 = Toolchain(
    "riscv64-unknown-elf-",
    ("qemu-system-riscv32", "-M", "virt", "-bios", "none", *_QEMU_FLAGS, *_SEMIHOSTING),
    "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "qemu-system-misc",
)


def _arm_board(machine: str) -> Toolchain:
    command = ("qemu-system-arm", "-M", machine, *_QEMU_FLAGS, *_SEMIHOSTING)
    return Toolchain("arm-none-eabi-", command, _ARM_PACKAGES, "qemu-system-arm")


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        target: TVM target dictionary (never a string).
        system: what ``platform.machine()`` says on such a device.
        needs: processor features that LLVM may use for it, by their names in ``/proc/cpuinfo``.
        custom: described by the user: nothing here runs it natively, whatever it is.
        board: where there is no operating system; ``system`` is then the device's own name.
    """

    name: str
    target: Mapping[str, Any]
    processor: Processor
    toolchain: Toolchain
    system: str
    needs: tuple[str, ...] = ()
    custom: bool = False
    board: Board | None = None

    @property
    def has_runtime(self) -> bool:
        """Whether the virtual machine's form can be loaded there: apache-tvm has wheels for these systems."""
        return self.system in ("x86_64", "aarch64")

    @property
    def native(self) -> bool:
        """Whether this machine can run what is compiled for the device."""
        here = platform.machine() == self.system and not self.custom
        return here and set(self.needs) <= cpu_flags()


_V2 = ("ssse3", "sse4_1", "sse4_2", "popcnt")
_V3 = (*_V2, "avx", "avx2", "fma", "bmi1", "bmi2", "f16c", "abm", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_V82 = ("asimd", "atomics", "asimdrdm", "asimdhp", "asimddp")


def _x86(name: str, level: str, processor: Processor, needs: tuple[str, ...]) -> Device:
    target = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": level}
    chain = (
        NATIVE
        if platform.machine() == "x86_64"
        else Toolchain("x86_64-linux-gnu-", None, "gcc-x86-64-linux-gnu")
    )
    return Device(name, target, processor, chain, "x86_64", needs)


def _aarch64(name: str, cpu: str, processor: Processor, needs: tuple[str, ...] = ("asimd",)) -> Device:
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": cpu, "mattr": ["+neon"]}
    chain = NATIVE if platform.machine() == "aarch64" else AARCH64
    return Device(name, target, processor, chain, "aarch64", needs)


def _cortex(
    name: str, core: str, unit: str, triple: str, machine: str, flash: int, ram: int, pulse: int
) -> Device:
    # SysTick counts the boards' 25 MHz (20 MHz on the an505): one tick is 40 or 50 emulated nanoseconds,
    # and with shift=0 an instruction takes one.
    flags = (f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={unit}")
    memory = 4 << 20
    board = Board(flags, "start_arm.c", (flash, memory), (ram, memory), pulse)
    target = {"kind": "llvm", "mtriple": triple, "mcpu": core, "mfloat-abi": "hard"}
    return Device(name, target, CORTEX_M, _arm_board(machine), name, board=board)


_V7M, _V8M = "thumbv7em-none-eabihf", "thumbv8m.main-none-eabihf"
_SRAM = 0x20000000
_BARE = (
    _cortex("cortex-m4f", "cortex-m4", "fpv4-sp-d16", _V7M, "mps2-an386", 0, _SRAM, 40),
    _cortex("cortex-m7", "cortex-m7", "fpv5-d16", _V7M, "mps2-an500", 0, _SRAM, 40),
    _cortex("cortex-m33", "cortex-m33", "fpv5-sp-d16", _V8M, "mps2-an505", 0x10000000, 0x38000000, 50),
    Device(
        "rv32imc",
        {
            "kind": "llvm",
            "mtriple": "riscv32-unknown-elf",
            "mcpu": "generic-rv32",
            "mattr": ["+m", "+c"],
            "mabi": "ilp32",
        },
        NO_FLOAT,
        RV32,
        "rv32imc",
        board=Board(
            ("-march=rv32imc", "-mabi=ilp32"),
            "start_riscv.c",
            (0x80000000, 16 << 20),
            (0x81000000, 16 << 20),
            1,
            ("--specs=picolibc.specs",),
        ),
    ),
)
_TABLE = (
    _x86("x86-64-v2", "x86-64-v2", SSE, _V2),
    _x86("x86-64-v3", "x86-64-v3", AVX2, _V3),
    _x86("x86-64-v4", "x86-64-v4", AVX512, _V4),
    _aarch64("raspberry-pi-3", "cortex-a53", A53),
    _aarch64("raspberry-pi-4", "cortex-a72", A72),
    _aarch64("raspberry-pi-5", "cortex-a76", A76, _V82),
    _aarch64("jetson-cpu", "cortex-a78ae", A76, _V82),
    Device(
        "armv7",
        {
            "kind": "llvm",
            "mtriple": "armv7l-linux-gnueabihf",
            "mcpu": "cortex-a7",
            "mattr": ["+neon", "+vfp4"],
            "mfloat-abi": "hard",
        },
        A7,
        ARMHF,
        "armv7l",
        ("neon", "vfpv4", "idiva"),
    ),
    Device(
        "riscv64",
        {
            "kind": "llvm",
            "mtriple": "riscv64-linux-gnu",
            "mcpu": "generic-rv64",
            "mattr": ["+m", "+a", "+f", "+d", "+c"],
            "mabi": "lp64d",
        },
        RV64,
        RISCV64,
        "riscv64",
    ),
    *_BARE,
)
DEVICES: Mapping[str, Device] = {device.name: device for device in _TABLE}


def cpu_flags() -> set[str]:
    """Features of this machine's processor."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    for line in info.read_text().splitlines():
        if line.lower().startswith(("flags", "features")):
            return set(line.partition(":")[2].split())
    return set()


def host() -> Device:
    """The widest device of the table that this machine can run; chosen by CPU flags, not by CPU name,
    because a virtual machine may hide features of the processor it names."""
    for name in ("x86-64-v4", "x86-64-v3", "x86-64-v2", "raspberry-pi-3", "armv7", "riscv64"):
        if DEVICES[name].native:
            return DEVICES[name]
    raise UsageError(
        f"device 'host': no row of the device table fits this machine ({platform.machine()})",
        hint="name a device, or give a TVM target dictionary",
    )


def find_device(wanted: str | Mapping[str, Any]) -> Device:
    """A device by name, or one for a TVM target dictionary, with the tools of its triple.

    Raises:
        UsageError: an unknown name, or a dictionary without a triple of a known architecture and system.
    """
    if isinstance(wanted, str):
        if wanted == "host":
            return host()
        if wanted not in DEVICES:
            raise unknown_name("device", wanted, ["host", *DEVICES])
        return DEVICES[wanted]
    return _custom(dict(wanted))


def lesser_devices(device: Device) -> dict[str, list[str]]:
    """Devices for processors of the same architecture with fewer features, most features first, and those."""
    fewer = [
        each
        for each in DEVICES.values()
        if each.system == device.system and len(each.needs) < len(device.needs)
    ]
    fewer.sort(key=lambda each: -len(each.needs))
    return {each.name: list(each.needs) for each in fewer}


_SIMILAR = {
    "x86_64": "x86-64-v3",
    "aarch64": "raspberry-pi-3",
    "arm64": "raspberry-pi-3",
    "arm": "armv7",
    "armv7": "armv7",
    "armv7a": "armv7",
    "armv7l": "armv7",
    "riscv64": "riscv64",
}
"""Architecture of a triple -> the row whose tools it takes."""

_BARE_METAL = (
    "bare metal without an operating system",
    f"name one of {', '.join(each.name for each in _BARE)}; for another core compile the c target's C with "
    "gcc-arm-none-eabi or gcc-riscv64-unknown-elf",
)
_ELSEWHERE = {
    "android": (
        "Android, whose C library is bionic",
        "take the onnx target (onnxruntime has Android packages), or link the C sources with the Android NDK",
    ),
    "musl": ("Linux with musl", "link the C sources with musl-gcc (apt-get install musl-tools)"),
    "eabi": _BARE_METAL,
    "elf": _BARE_METAL,
    "darwin": ("macOS or iOS", "take the onnx target"),
    "windows": ("Windows", "take the onnx target"),
}
"""A part of a triple -> what runs there instead of Linux with glibc, and the toolchain that it takes."""


def _elsewhere(triple: str) -> tuple[str, str]:
    linux = "linux" in triple.split("-")
    for word, (system, instead) in _ELSEWHERE.items():
        if word in triple and not (linux and word in ("eabi", "elf")):
            return f" is {system}", instead
    return "", "for another system use the onnx target"


def _custom(target: dict[str, Any]) -> Device:
    """The device of a TVM target dictionary: like the row of its processor, else that of its architecture.

    Which features it needs, LLVM says (``worker.py``): only the row of the same processor is known here.
    """
    if target.setdefault("kind", "llvm") != "llvm":
        raise UsageError(f"device: kind {target['kind']!r}", hint="the tvm target takes kind = 'llvm'")
    triple = str(target.get("mtriple", ""))
    architecture, *rest = triple.split("-")
    system, instead = _elsewhere(triple)
    if system and architecture not in _SIMILAR:
        raise UsageError(
            f"device: target triple {triple!r}{system}: only Linux with glibc is linked for here",
            hint=instead,
        )
    if architecture not in _SIMILAR:
        raise UsageError(
            f"device: target triple {triple!r}",
            hint=f"give mtriple with an architecture of {', '.join(_SIMILAR)}, "
            "for example 'aarch64-linux-gnu'",
        )
    row = DEVICES[_SIMILAR[architecture]]
    _, *known = str(row.target["mtriple"]).split("-")
    if rest[-2:] != known:
        raise UsageError(
            f"device: target triple {triple!r}{system}: "
            f"only Linux with glibc is linked for here ({'-'.join(known)})",
            hint=f"{instead}; for a Linux with glibc give '{architecture}-{'-'.join(known)}' and "
            f"apt-get install {row.toolchain.compiler_package}",
        )
    same = [each for each in DEVICES.values() if each.target["mcpu"] == target.get("mcpu")]
    like = same[0] if same else row
    return replace(like, name=f"custom {triple}", target=target, custom=True)
