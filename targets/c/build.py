"""From C to what runs: shared object, example, sizes, and the run that proves it, here or emulated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...compiler.base.errors import LoweringError, MissingError, VerificationError
from ...compiler.base.processes import run_process
from ..native import boards
from ..native.features import c_checks
from .devices import Device
from .emit import SOURCE, TEMPLATES, filled

SHARED, EXAMPLE, BINARY = "model.so", "main.c", "predict"
BARE_CALLS = boards.Calls(
    SOURCE,
    "tsfmc_forecast(&tsfmc_student, past, forecast, scratch)",
    "tsfmc_selftest(&tsfmc_student, past, forecast, scratch)",
)
MODEL_FLAGS = ("-std=c99", "-ffp-contract=fast")
_PLAIN = ("-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack")


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
    return boards.write_example(device.row, folder, BARE_CALLS)


def compile_model(device: Device, folder: Path, work: Path, seconds: float) -> None:
    """``model.o`` in ``work``, for the shared object, the example and the sizes."""
    level = ("-O2", *boards.SECTIONS) if device.board else ("-O3", "-fPIC", "-fvisibility=hidden")
    flags = [*MODEL_FLAGS, *level, *device.flags, "-c"]
    _gcc(device, [*flags, "-o", "model.o", folder / SOURCE], work, seconds)


def link_shared(device: Device, folder: Path, work: Path, seconds: float) -> None:
    """``model.so`` for Python on the device."""
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
    _gcc(device, boards.link_arguments(device.row, folder, model, work / boards.ELF), folder, seconds)
    return work / boards.ELF


def run_example(
    device: Device, binary: Path, past: np.ndarray, output: Sequence[int], seconds: float
) -> tuple[np.ndarray, boards.Measured | None]:
    """Forecasts of windows ``past [N, D, L]``, each ``output``; and what a board measured.

    Raises:
        VerificationError: it crashed, hung, refused or wrote the wrong amount.
    """
    if device.board is not None:
        return boards.run_example(device.row, binary, past, output, seconds)
    folder = binary.parent
    (folder / "forecast.bin").unlink(missing_ok=True)
    np.ascontiguousarray(past, dtype="<f4").tofile(folder / "past.bin")
    done = run_process(
        [*device.emulator, str(binary), "past.bin", "forecast.bin"],
        seconds=seconds,
        cwd=folder,
        package=device.emulator_package,
    )
    if not done.ok:
        raise VerificationError(f"device {device.name}: the example {done.ending}: {done.last_line}")
    return boards.read_forecast(device.name, folder / "forecast.bin", (len(past), *output)), None


def sizes(device: Device, work: Path, binary: Path, seconds: float) -> Mapping[str, int]:
    """Flash and static memory: of the model's object, and of the whole example on a board."""
    if device.board is not None:
        return boards.sizes(device.row, work / "model.o", binary, seconds)
    text, data, bss = boards.sections(device.row, work / "model.o", seconds)
    return {"object_bytes": text + data, "shared_static_ram_bytes": bss}


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
