"""The runtime-free form: a C file that calls the kernels one after the other.

Kernels keep TVM's packed calling convention (an array of tagged pointers to tensors), so the file
declares those two structures and the symbols that compiled kernels may refer to.  It keeps nothing between
calls: intermediate values lie in scratch memory of the caller, so that any number of threads may call it.
libm is needed only where a kernel calls it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..native.devices import Device
from ..native.features import c_checks
from .arena import ALIGNMENT, Arena, plan
from .program import Program, Ref

TEMPLATES = Path(__file__).parent / "templates"

_TYPES = {
    "float32": (2, 32),
    "float64": (2, 64),
    "int8": (0, 8),
    "int32": (0, 32),
    "int64": (0, 64),
    "bool": (6, 8),
}


def weights_blob(program: Program) -> tuple[bytes, list[int]]:
    """All constants, each at an aligned offset, and the offsets."""
    blob, offsets = bytearray(), []
    for array in program.constants:
        blob.extend(b"\0" * (-len(blob) % ALIGNMENT))
        offsets.append(len(blob))
        blob.extend(array.tobytes())
    return bytes(blob), offsets


def write_sources(
    program: Program, device: Device, shape: tuple[int, int, int], horizon: int, folder: Path
) -> Arena:
    """Writes ``tsfmc_model.c``, ``tsfmc_model.h``, ``weights.bin`` and ``main.c`` into ``folder``.

    Args:
        shape: ``[B, D, L]`` of one call.
    """
    arena = plan(program)
    blob, constant_offsets = weights_blob(program)
    (folder / "weights.bin").write_bytes(blob)
    numbers: dict[str, int] = {}  # rows of the operand table, equal ones shared

    def operand(memory: str, offset: int, size: int, dtype: str) -> int:
        code, bits = _TYPES[dtype]
        return numbers.setdefault(f"    OPERAND({memory}, {offset}, {size}, {code}, {bits}),", len(numbers))

    def number_of(ref: Ref) -> int:
        if ref.value is None:
            array = program.constants[ref.constant or 0]
            return operand("WEIGHTS", constant_offsets[ref.constant or 0], array.size, str(array.dtype))
        value = program.values[ref.value]
        outside = {program.input: "PAST", program.output: "FORECAST"}
        memory, offset = outside.get(ref.value, "SCRATCH"), arena.offsets.get(ref.value, 0)
        return operand(memory, offset, value.size, value.dtype)

    calls = []
    for step in program.steps:
        listed = ", ".join(str(number_of(each)) for each in step.operands)
        calls.append(f"  CALL({step.kernel.name}, {listed});")
    batch, variates, lookback = shape
    includes, checks = c_checks(device.system, device.needs)
    fields = {
        "KERNELS": "\n".join(f"KERNEL({name});" for name in sorted(program.kernels)),
        "OPERANDS": "\n".join(numbers),
        "CALLS": "\n".join(calls),
        "MOST_ARGUMENTS": str(max(len(step.operands) for step in program.steps)),
        # A caller's memory has any alignment: the arena starts at the first aligned byte of it.
        "SCRATCH_BYTES": str(arena.size_bytes + ALIGNMENT),
        "ALIGNMENT": str(ALIGNMENT),
        "INCLUDES": includes,
        "CPU_CHECKS": checks,
        "BARE": str(int(device.board is not None)),
        "MACHINE": device.system,
        "NEEDS": "".join(f" {name}" for name in ("with", *device.needs)) if device.needs else "",
        "BATCH": str(batch),
        "VARIATES": str(variates),
        "LOOKBACK": str(lookback),
        "HORIZON": str(horizon),
    }
    for name in ("tsfmc_model.c", "tsfmc_model.h", *(() if device.board else ("main.c",))):
        text = (TEMPLATES / name).read_text()
        for field, value in fields.items():
            text = text.replace(f"@{field}@", value)
        (folder / name).write_text(text)
    return arena


def supported_types(program: Program) -> bool:
    """Whether every value and constant has a type that the C file can describe."""
    types = {value.dtype for value in program.values} | {
        str(np.dtype(each.dtype)) for each in program.constants
    }
    return types <= set(_TYPES)
