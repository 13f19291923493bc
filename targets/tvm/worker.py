"""The compiler's child process: ``python -m tsfmc.targets.tvm.worker job.json answer.json``.

Progress goes to stdout a line at a time, everything the libraries say to stderr.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...compiler.base.errors import LoweringError, TsfmcError
from ...compiler.base.reading import read_json
from ..native.devices import Device, find_device
from ..native.features import needed
from .job import Job
from .scheduled import line_of, load_module, program_of


def main(request: Path, answer: Path) -> int:
    """Carries out one job; an expected refusal is an answer, too."""
    fields = read_json(request, what="job of the compiler's child", error=LoweringError)
    fields["shape"] = tuple(fields["shape"])
    job = Job(**fields)
    warnings.simplefilter("ignore")
    try:
        result: dict[str, Any] = {"smoke": _smoke, "compile": _compile, "tune": _tune}[job.action](job)
    except TsfmcError as error:
        result = {"error": {"kind": type(error).__name__, "what": error.what, "hint": error.hint}}
    answer.write_text(json.dumps(result, sort_keys=True))
    return 0


def say(line: str) -> None:
    """A line of progress."""
    print(line, flush=True)


def _smoke(job: Job) -> dict[str, Any]:
    """Writes a PrimFunc as JSON: with the wrong tvm-ffi this is a segmentation fault."""
    import tvm
    from tvm import tirx

    buffer = tirx.decl_buffer((4,), "float32", "a")
    store = tirx.BufferStore(buffer, tirx.FloatImm("float32", 0.0), [tirx.IntImm("int64", 0)])
    text = tvm.ir.save_json(tirx.PrimFunc([buffer], store))
    return {"tvm": tvm.__version__, "bytes": len(text)}


def _compile(job: Job) -> dict[str, Any]:
    from .build import build_runtime_free, build_vm
    from .emit_c import supported_types
    from .tune import parse_tiles

    device = _checked(find_device(job.device))
    say("importing into Relax")
    module = load_module(job)
    say(f"scheduling for {device.name}")
    program = program_of(module, job, device, parse_tiles(job.tiles))
    if not supported_types(program):
        raise LoweringError("tvm: a value has a type that the C form does not know", hint="use form = 'vm'")
    sizes: dict[str, Any] = {}
    try:
        if job.form in ("runtime-free", "both"):
            say(f"compiling {len(program.kernels)} kernels and linking")
            sizes |= build_runtime_free(
                program, device, job.shape, job.horizon, Path(job.work), Path(job.out)
            )
        if job.form in ("vm", "both"):
            say("compiling for the virtual machine")
            sizes |= build_vm(program, device, job.shape, job.horizon, Path(job.out))
    except TsfmcError:
        raise
    except Exception as error:  # LLVM and TVM raise several types of their own
        raise LoweringError(f"tvm: compiling for {device.name} failed: {line_of(error)}") from error
    products = {",".join(map(str, sizes)): [tile.rows, tile.vectors] for sizes, tile in _products(program)}
    return {
        "sizes": sizes,
        "products": products,
        "target": dict(device.target),
        "cpu_features": list(device.needs),
    }


def _tune(job: Job) -> dict[str, Any]:
    from .tune import tune

    device = find_device(job.device)
    return tune(job, device, load_module(job), say)


def _products(program: Any) -> list[Any]:
    return [each for kernel in program.kernels.values() for each in kernel.products]


def _checked(device: Device) -> Device:
    """The device, a custom one with the features that LLVM may use for it.

    Raises:
        LoweringError: LLVM does not know the triple or the processor.
    """
    import tvm

    try:
        target = tvm.target.Target(dict(device.target))
        get_targets = tvm.get_global_func("target.llvm_get_targets", allow_missing=True)
        triple = str(device.target.get("mtriple", ""))
        if get_targets is not None and triple and not _known(triple, [str(each) for each in get_targets()]):
            raise ValueError(f"triple {triple!r} is none of LLVM's targets")
        cpus = tvm.get_global_func("target.llvm_get_cpu_archlist", allow_missing=True)
        cpu = str(device.target.get("mcpu", ""))
        if cpus is not None and cpu:
            known = [str(each) for each in cpus(target)]
            if known and cpu not in known:
                raise ValueError(f"LLVM knows no processor {cpu!r} for {triple or 'this machine'}")
        if device.custom:
            features = tvm.get_global_func("target.llvm_get_cpu_features")(target)
            return replace(device, needs=needed(device.system, map(str, features)))
        return device
    except Exception as error:
        raise LoweringError(
            f"tvm: device {device.name}: {line_of(error)}", hint="see tsfmc targets for presets that work"
        ) from error


def _known(triple: str, targets: list[str]) -> bool:
    names = {"armv7l": "arm", "armv7a": "arm", "armv7": "arm", "arm64": "aarch64"}
    names |= {"thumbv7em": "thumb", "thumbv8m.main": "thumb"}
    architecture = triple.split("-")[0]
    return names.get(architecture, architecture) in targets


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
