"""Emulated boards without an operating system: an example for one, its link, its run, and what it measured.

main.c     windows from past.bin, forecasts to forecast.bin, by semihosting; paints the stack, reads a counter
start.c    first instructions, semihosting, the counter         board.ld   flash and RAM
Makefile   make && make run
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...compiler.base.errors import VerificationError
from ...compiler.base.processes import Finished, run_process
from .devices import Board, Device

TEMPLATES = Path(__file__).parent / "board"
FILES = ("main.c", "start.c", "board.ld", "Makefile")
ELF = "predict.elf"
SECTIONS = ("-ffunction-sections", "-fdata-sections")
LINK = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--build-id=none", "-T", "board.ld", "-lm")


@dataclass(frozen=True)
class Measured:
    """What a run on a board said: status of forecasts and self-test (0 is well), bytes and instructions."""

    status: int
    selftest: int
    stack_bytes: int
    instructions: int


@dataclass(frozen=True)
class Calls:
    """What the example is built from and how it calls it, as C: the file, a forecast, and a self-test."""

    model: str
    forecast: str
    selftest: str


def write_example(device: Device, folder: Path, calls: Calls) -> tuple[str, ...]:
    """The example's sources and its Makefile; returns their names."""
    board = board_of(device)
    fields = {
        "FLASH": f"0x{board.flash[0]:08x}",
        "FLASH_BYTES": str(board.flash[1]),
        "RAM": f"0x{board.ram[0]:08x}",
        "RAM_BYTES": str(board.ram[1]),
        "DEVICE": device.name,
        "CC": device.toolchain.prefix + "gcc",
        "FLAGS": " ".join(board.flags),
        "LINK": " ".join(LINK),
        "EMULATOR": " ".join(device.toolchain.emulator or ()),
        "MODEL": calls.model,
        "FORECAST": calls.forecast,
        "SELFTEST": calls.selftest,
    }
    shutil.copyfile(TEMPLATES / board.start, folder / "start.c")
    for name in ("main.c", "board.ld", "Makefile"):
        text = (TEMPLATES / name).read_text()
        for field, value in fields.items():
            text = text.replace(f"@{field}@", value)
        (folder / name).write_text(text)
    return FILES


def link_arguments(device: Device, folder: Path, model: Path, elf: Path) -> list[str | Path]:
    """gcc's arguments that make the example, to run in ``folder``, where its files are."""
    flags = ["-std=c99", "-O2", *board_of(device).flags, *SECTIONS]
    return [*flags, "-I", folder, "-o", elf, folder / "main.c", folder / "start.c", model, *LINK]


def run_example(
    device: Device, binary: Path, past: np.ndarray, output: Sequence[int], seconds: float
) -> tuple[np.ndarray, Measured]:
    """Forecasts of windows ``past [N, ...]``, each ``output``, and the largest of what the board measured.

    Raises:
        VerificationError: it crashed, hung, refused or wrote the wrong amount.
    """
    folder = binary.parent
    for name in ("forecast.bin", "report.txt"):
        (folder / name).unlink(missing_ok=True)
    np.ascontiguousarray(past, dtype="<f4").tofile(folder / "past.bin")
    chain = device.toolchain
    command = [*(chain.emulator or ()), str(binary)]
    done = run_process(command, seconds=seconds, cwd=folder, package=chain.emulator_package)
    report = _report(device, folder, done)
    if not done.ok or report.status or report.selftest:
        what = done.ending if not done.ok else f"said {report}"
        raise VerificationError(f"device {device.name}: the example {what}: {done.last_line}")
    return read_forecast(device.name, folder / "forecast.bin", (len(past), *output)), report


def read_forecast(device: str, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What an example wrote.

    Raises:
        VerificationError: another amount of numbers.
    """
    forecast = np.fromfile(path, dtype="<f4")
    if forecast.size != int(np.prod(shape)):
        raise VerificationError(
            f"device {device}: {forecast.size} numbers came back, expected {int(np.prod(shape))}"
        )
    return forecast.reshape(shape)


def sizes(device: Device, model: Path, example: Path, seconds: float) -> Mapping[str, int]:
    """Flash and static memory: of the model's object, and of the whole example."""
    text, data, bss = sections(device, model, seconds)
    whole, initialised, _ = sections(device, example, seconds)
    return {
        "object_flash_bytes": text + data,
        "object_static_ram_bytes": data + bss,
        "example_flash_bytes": whole + initialised,
    }


def sections(device: Device, path: Path, seconds: float) -> tuple[int, int, int]:
    """Bytes of text (and constants), data and bss."""
    done = run_process([device.toolchain.prefix + "size", str(path)], seconds=seconds)
    numbers = done.stdout.splitlines()[1].split()[:3]
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def board_of(device: Device) -> Board:
    """The device's board, which only those without an operating system have."""
    assert device.board is not None
    return device.board


def _report(device: Device, folder: Path, done: Finished) -> Measured:
    path = folder / "report.txt"
    numbers = path.read_text().split() if path.is_file() else []
    if len(numbers) != 4:
        raise VerificationError(
            f"device {device.name}: the example {done.ending} without a report: {done.last_line}",
            hint="raise time_limit_s",
        )
    status, selftest, stack, ticks = map(int, numbers)
    return Measured(status, selftest, stack, ticks * board_of(device).pulse)
