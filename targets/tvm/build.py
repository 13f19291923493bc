"""From a program to files: objects by LLVM, libraries by the C compiler of the device."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..native.devices import Device
from .emit_c import write_sources
from .emit_vm import compile_vm
from .program import Program
from .tir import BUILD_OPTIONS
from .toolchain import run_tool

SHARED, ARCHIVE, HEADER, EXAMPLE, VM = (
    "model.so",
    "libtsfmc_model.a",
    "tsfmc_model.h",
    "main.c",
    "model_vm.so",
)
STATIC_BINARY = "predict"
_C_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror")
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


def link_shared(device: Device, folder: Path) -> None:
    """``model.so`` from the sources and the kernels in ``folder``."""
    (folder / "exports.map").write_text(f"{{ global: {'; '.join(_SYMBOLS)}; local: *; }};\n")
    run_tool(
        device,
        "gcc",
        [*_C_FLAGS, *_PLAIN, *_LIBRARY, "-o", SHARED, "tsfmc_model.c", "kernels.o", "-lm"],
        folder,
    )


def link_static(device: Device, folder: Path) -> None:
    """``libtsfmc_model.a``, whose only global symbols are the entry points, and a static example."""
    run_tool(device, "gcc", [*_C_FLAGS, "-c", "-o", "model.o", "tsfmc_model.c"], folder)
    run_tool(device, "ld", ["-r", "-o", "whole.o", "model.o", "kernels.o"], folder)
    keep = [f"--keep-global-symbol={name}" for name in _SYMBOLS]
    run_tool(device, "objcopy", [*keep, "--strip-debug", "whole.o"], folder)
    (folder / ARCHIVE).unlink(missing_ok=True)
    run_tool(device, "ar", ["rcsD", ARCHIVE, "whole.o"], folder)
    link_example(device, folder)


def link_example(device: Device, folder: Path) -> None:
    """The static example of ``main.c``, the header and the archive in ``folder``."""
    run_tool(
        device,
        "gcc",
        [*_C_FLAGS, "-static", *_PLAIN, "-o", STATIC_BINARY, EXAMPLE, ARCHIVE, "-lm"],
        folder,
    )


def build_runtime_free(
    program: Program, device: Device, shape: tuple[int, int, int], horizon: int, work: Path, out: Path
) -> Mapping[str, Any]:
    """Builds the runtime-free form in ``work`` and copies what a user needs to ``out``; returns its sizes."""
    arena = write_sources(program, device, shape, horizon, work)
    compile_kernels(program, device, work / "kernels.o")
    link_shared(device, work)
    link_static(device, work)
    for name in (SHARED, ARCHIVE, HEADER, EXAMPLE):
        shutil.copyfile(work / name, out / name)
    return {
        "arena_bytes": arena.size_bytes,
        "weight_bytes": program.weight_bytes,
        "kernel_object_bytes": (work / "kernels.o").stat().st_size,
        "shared_bytes": (work / SHARED).stat().st_size,
        "archive_bytes": (work / ARCHIVE).stat().st_size,
        "static_binary_bytes": (work / STATIC_BINARY).stat().st_size,
        "kernels": len(program.kernels),
        "steps": len(program.steps),
    }


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
