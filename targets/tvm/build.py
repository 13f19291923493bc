"""From a program to files: objects by LLVM, libraries by the C compiler of the device."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..native import boards
from ..native.devices import Device
from .arena import ALIGNMENT
from .emit_c import write_sources
from .emit_vm import compile_vm
from .names import ARCHIVE, EXAMPLE, HEADER, SHARED, STATIC_BINARY, VM
from .program import Program
from .tir import BUILD_OPTIONS
from .toolchain import TOOL_SECONDS, run_tool

BARE_CALLS = boards.Calls(ARCHIVE, "tsfmc_forecast(past, forecast, scratch)", "TSFMC_OK")
_C_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Werror")
_HOSTED = ("-fPIC", "-fvisibility=hidden")
_BARE = ("-Wa,--noexecstack",)
_NOT_BARE = (".ARM.exidx*", ".ARM.extab*", ".rel.ARM.ex*", ".eh_frame", ".rela.eh_frame", ".note.GNU-stack")
"""Tables for exceptions, which nothing here throws and for which a core would link a library that does; and
a note to an operating system, beside which the linker misses those of the C library."""
_PLAIN = ("-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack")
_LIBRARY = ("-shared", "-Wl,--version-script=exports.map")
_SYMBOLS = (
    "tsfmc_forecast",
    "tsfmc_missing_cpu_feature",
    "tsfmc_predict",
    "tsfmc_predict_batch",
    "tsfmc_scratch_bytes",
    "tsfmc_shape",
)


def compile_kernels(program: Program, device: Device, path: Path) -> None:
    """Writes one object with every kernel."""
    import tvm

    functions = {name: kernel.func for name, kernel in sorted(program.kernels.items())}
    with tvm.transform.PassContext(opt_level=3, config=BUILD_OPTIONS):
        library = tvm.tirx.build(tvm.IRModule(functions), target=tvm.target.Target(dict(device.target)))
    library.write_to_file(str(path), "o")


def _c_flags(device: Device) -> list[str]:
    return [*_C_FLAGS, *((*device.board.flags, *_BARE) if device.board is not None else _HOSTED)]


def link_shared(device: Device, folder: Path) -> None:
    """``model.so`` from the sources and the kernels in ``folder``."""
    (folder / "exports.map").write_text(f"{{ global: {'; '.join(_SYMBOLS)}; local: *; }};\n")
    run_tool(
        device,
        "gcc",
        [*_c_flags(device), *_PLAIN, *_LIBRARY, "-o", SHARED, "tsfmc_model.c", "kernels.o", "-lm"],
        folder,
    )


def link_static(device: Device, folder: Path) -> None:
    """``libtsfmc_model.a``, whose only global symbols are the entry points, and a static example."""
    run_tool(device, "gcc", [*_c_flags(device), "-c", "-o", "model.o", "tsfmc_model.c"], folder)
    core = device.board.core if device.board is not None else ()  # gcc tells the linker which it is
    run_tool(device, "gcc", [*core, "-nostdlib", "-r", "-o", "whole.o", "model.o", "kernels.o"], folder)
    keep = [f"--keep-global-symbol={name}" for name in _SYMBOLS]
    strip = ["--strip-debug"]
    if device.board is not None:
        strip = ["--strip-unneeded", *(f"--remove-section={name}" for name in _NOT_BARE)]
    run_tool(device, "objcopy", [*keep, *strip, "whole.o"], folder)
    (folder / ARCHIVE).unlink(missing_ok=True)
    run_tool(device, "ar", ["rcsD", ARCHIVE, "whole.o"], folder)
    link_example(device, folder)


def link_example(device: Device, folder: Path) -> None:
    """The static example in ``folder``: of ``main.c``, the header and the archive, and what a board needs."""
    if device.board is not None:
        arguments = boards.link_arguments(device, folder, folder / ARCHIVE, folder / boards.ELF)
        run_tool(device, "gcc", [str(each) for each in arguments], folder)
        return
    run_tool(
        device,
        "gcc",
        [*_c_flags(device), "-static", *_PLAIN, "-o", STATIC_BINARY, EXAMPLE, ARCHIVE, "-lm"],
        folder,
    )


def build_runtime_free(
    program: Program, device: Device, shape: tuple[int, int, int], horizon: int, work: Path, out: Path
) -> Mapping[str, Any]:
    """Builds the runtime-free form in ``work`` and copies what a user needs to ``out``; returns its sizes."""
    arena = write_sources(program, device, shape, horizon, work)
    compile_kernels(program, device, work / "kernels.o")
    finish = _finish_bare if device.board is not None else _finish_hosted
    files, sizes = finish(device, work)
    for name in files:
        shutil.copyfile(work / name, out / name)
    return {
        "arena_bytes": arena.size_bytes,
        "scratch_bytes": arena.size_bytes + ALIGNMENT,
        "weight_bytes": program.weight_bytes,
        "kernel_object_bytes": (work / "kernels.o").stat().st_size,
        "archive_bytes": (work / ARCHIVE).stat().st_size,
        **sizes,
        "kernels": len(program.kernels),
        "steps": len(program.steps),
    }


def _finish_hosted(device: Device, work: Path) -> tuple[Sequence[str], Mapping[str, int]]:
    """Libraries and example of a device with an operating system: files for the user, and sizes."""
    link_shared(device, work)
    link_static(device, work)
    sizes = {
        "shared_bytes": (work / SHARED).stat().st_size,
        "static_binary_bytes": (work / STATIC_BINARY).stat().st_size,
    }
    return (SHARED, ARCHIVE, HEADER, EXAMPLE), sizes


def _finish_bare(device: Device, work: Path) -> tuple[Sequence[str], Mapping[str, int]]:
    """The same without one: the archive, and an example with its first instructions and its linker script."""
    files = boards.write_example(device, work, BARE_CALLS)
    link_static(device, work)
    sizes = boards.sizes(device, work / "whole.o", work / boards.ELF, TOOL_SECONDS)
    return (ARCHIVE, HEADER, *files), sizes


def build_vm(
    program: Program, device: Device, shape: tuple[int, int, int], horizon: int, out: Path
) -> Mapping[str, Any]:
    """Builds the virtual machine's library; it needs TVM's runtime on the device."""
    executable = compile_vm(program, device, shape, horizon)
    path = out / VM
    executable.export_library(
        str(path), cc=device.toolchain.prefix + "gcc", options=["-lm", "-s", "-Wl,--build-id=none"]
    )
    return {"vm_bytes": path.stat().st_size}
