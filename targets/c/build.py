"""From C to what runs: shared object, example, sizes, and the run that proves it, here or emulated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...compiler.base.errors import LoweringError, MissingError, VerificationError
from ...compiler.base.processes import Finished, run_process
from ..native.features import c_checks
from .devices import Board, Device
from .emit import SOURCE, TEMPLATES, filled

SHARED, EXAMPLE, ELF, BINARY = "model.so", "main.c", "predict.elf", "predict"
MODEL_FLAGS = ("-std=c99", "-ffp-contract=fast")
_PLAIN = ("-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack")
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
_BARE_LINK = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--build-id=none", "-T", "board.ld", "-lm")


@dataclass(frozen=True)
class Measured:
    """What a run on a board said: status of forecasts and self-test (0 is well), bytes and instructions."""

    status: int
    selftest: int
    stack_bytes: int
    instructions: int


def require_compiler(device: Device) -> None:
    """Raises:
    MissingError: the device's compiler is not installed.
    """
    compiler = device.prefix + "gcc"
    if shutil.which(compiler) is None:
        hint = f"apt-get install {device.compiler_package}"
        raise MissingError(f"device {device.name}: {compiler} is not installed", hint=hint)


def can_run(device: Device) -> bool:
    """Whether what is compiled for the device runs here, on this processor or on an emulated one."""
    return device.native or (bool(device.emulator) and shutil.which(device.emulator[0]) is not None)


def write_example(device: Device, folder: Path) -> tuple[str, ...]:
    """The example's sources and its build files; returns their names."""
    if device.board is None:
        flags = {"DEVICE": device.name, "CC": device.prefix + "gcc", "FLAGS": " ".join(device.flags)}
        if device.native:
            flags["CC"] = "cc"
        for name in (EXAMPLE, "CMakeLists.txt"):
            shutil.copyfile(TEMPLATES / name, folder / name)
        (folder / "Makefile").write_text(filled((TEMPLATES / "Makefile").read_text(), flags))
        return (EXAMPLE, "CMakeLists.txt", "Makefile")
    board = device.board
    fields = {
        "FLASH": f"0x{board.flash[0]:08x}",
        "FLASH_BYTES": str(board.flash[1]),
        "RAM": f"0x{board.ram[0]:08x}",
        "RAM_BYTES": str(board.ram[1]),
        "DEVICE": device.name,
        "CC": device.prefix + "gcc",
        "FLAGS": " ".join(device.flags),
        "LINK": " ".join(_BARE_LINK),
        "EMULATOR": " ".join(board.emulator),
    }
    shutil.copyfile(TEMPLATES / "main_bare.c", folder / EXAMPLE)
    shutil.copyfile(TEMPLATES / board.start, folder / "start.c")
    for name, template in (("board.ld", "board.ld"), ("Makefile", "Makefile.bare")):
        (folder / name).write_text(filled((TEMPLATES / template).read_text(), fields))
    return (EXAMPLE, "start.c", "board.ld", "Makefile")


def compile_model(device: Device, folder: Path, work: Path, seconds: float) -> None:
    """``model.o`` in ``work``, for the shared object, the example and the sizes."""
    level = ("-O2", *_SECTIONS) if device.board else ("-O3", "-fPIC", "-fvisibility=hidden")
    flags = [*MODEL_FLAGS, *level, *device.flags, "-c"]
    _gcc(device, [*flags, "-o", "model.o", folder / SOURCE], work, seconds)


def link_shared(device: Device, folder: Path, work: Path, seconds: float) -> None:
    """``model.so`` for Python on the device."""
    assert device.row is not None
    includes, checks = c_checks(device.row.system, device.row.needs)
    text = filled((TEMPLATES / "library.c").read_text(), {"INCLUDES": includes, "CPU_CHECKS": checks})
    (work / "library.c").write_text(text)
    # What asks the processor for its features must itself run without them.
    flags: list[str | Path] = ["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-I", folder, "-c"]
    _gcc(device, [*flags, "-o", "library.o", "library.c"], work, seconds)
    objects: list[str | Path] = ["-shared", *_PLAIN, "-o", folder / SHARED, "model.o", "library.o", "-lm"]
    _gcc(device, objects, work, seconds)


def link_example(device: Device, folder: Path, work: Path, seconds: float) -> Path:
    """The example, static, from the files in ``folder`` and ``model.o``; returns its path."""
    model = work / "model.o"
    if device.board is None:
        static: list[str | Path] = ["-std=c99", "-O2", "-static", *_PLAIN, "-I", folder]
        _gcc(device, [*static, "-o", BINARY, folder / EXAMPLE, model, "-lm"], work, seconds)
        return work / BINARY
    sources = [model, folder / EXAMPLE, folder / "start.c"]
    flags: list[str | Path] = ["-std=c99", "-O2", *device.flags, *_SECTIONS]
    _gcc(device, [*flags, "-I", folder, "-o", work / ELF, *sources, *_BARE_LINK], folder, seconds)
    return work / ELF


def run_example(
    device: Device, binary: Path, past: np.ndarray, output: Sequence[int], seconds: float
) -> tuple[np.ndarray, Measured | None]:
    """Forecasts of windows ``past [N, D, L]``, each ``output``; and what a board measured.

    Raises:
        VerificationError: it crashed, hung, refused or wrote the wrong amount.
    """
    folder = binary.parent
    for name in ("forecast.bin", "report.txt"):
        (folder / name).unlink(missing_ok=True)
    np.ascontiguousarray(past, dtype="<f4").tofile(folder / "past.bin")
    arguments = [] if device.board else ["past.bin", "forecast.bin"]
    done = run_process(
        [*device.emulator, str(binary), *arguments],
        seconds=seconds,
        cwd=folder,
        package=device.emulator_package,
    )
    report = _report(device, folder, done) if device.board else None
    if not done.ok or (report and (report.status or report.selftest)):
        what = done.ending if not done.ok else f"said {report}"
        raise VerificationError(f"device {device.name}: the example {what}: {done.last_line}")
    forecast = np.fromfile(folder / "forecast.bin", dtype="<f4")
    expected = (len(past), *output)
    if forecast.size != int(np.prod(expected)):
        raise VerificationError(
            f"device {device.name}: {forecast.size} numbers came back, expected {int(np.prod(expected))}"
        )
    return forecast.reshape(expected), report


def sizes(device: Device, work: Path, binary: Path, seconds: float) -> Mapping[str, int]:
    """Flash and static memory: of the model's object, and of the whole example on a board."""
    text, data, bss = _sections(device, work / "model.o", seconds)
    if device.board is None:
        return {"object_bytes": text + data, "shared_static_ram_bytes": bss}
    example, initialised, _ = _sections(device, binary, seconds)
    return {
        "object_flash_bytes": text + data,
        "object_static_ram_bytes": data + bss,
        "example_flash_bytes": example + initialised,
    }


def _sections(device: Device, path: Path, seconds: float) -> tuple[int, int, int]:
    """Bytes of text (and constants), data and bss."""
    done = run_process([device.prefix + "size", str(path)], seconds=seconds)
    numbers = done.stdout.splitlines()[1].split()[:3]
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def _report(device: Device, folder: Path, done: Finished) -> Measured:
    board = device.board
    assert isinstance(board, Board)
    path = folder / "report.txt"
    numbers = path.read_text().split() if path.is_file() else []
    if len(numbers) != 4:
        raise VerificationError(
            f"device {device.name}: the example {done.ending} without a report: {done.last_line}",
            hint="raise time_limit_s",
        )
    status, selftest, stack, ticks = map(int, numbers)
    return Measured(status, selftest, stack, ticks * board.pulse)


def _gcc(device: Device, arguments: Sequence[str | Path], folder: Path, seconds: float) -> None:
    """Raises:
    MissingError: the compiler is not installed.
    LoweringError: it failed; carries its first error line.
    """
    compiler = device.prefix + "gcc"
    done = run_process(
        [compiler, *map(str, arguments)], seconds=seconds, cwd=folder, package=device.compiler_package
    )
    if not done.ok:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [done.last_line]
        raise LoweringError(
            f"device {device.name}: {compiler} {done.ending}: {lines[0][:300]}",
            hint="raise time_limit_s" if done.code is None else "please report the student's configuration",
        )
