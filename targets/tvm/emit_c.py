"""The runtime-free form: a C file that calls the kernels one after the other.

Kernels keep TVM's packed calling convention (an array of tagged pointers to tensors), so the file
declares those two structures and the five symbols that compiled kernels may refer to.  Nothing is
allocated or copied; libm is needed only where a kernel calls it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .arena import ALIGNMENT, Arena, plan
from .program import Program

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


def write_sources(program: Program, shape: tuple[int, int, int], horizon: int, folder: Path) -> Arena:
    """Writes ``tsfmc_model.c``, ``tsfmc_model.h``, ``weights.bin`` and ``main.c`` into ``folder``.

    Args:
        shape: ``[B, D, L]`` of one call.
    """
    arena = plan(program)
    blob, constant_offsets = weights_blob(program)
    (folder / "weights.bin").write_bytes(blob)
    tensors: list[str] = []
    numbers: dict[str, int] = {}

    def tensor(data: str, size: int, dtype: str) -> int:
        code, bits = _TYPES[dtype]
        row = f"    TENSOR({data}, {size}, {code}, {bits}),"
        if row not in numbers:
            numbers[row] = len(tensors)
            tensors.append(row)
        return numbers[row]

    def value_tensor(value: int) -> int:
        each = program.values[value]
        # The input and the output are pointed at the caller's arrays at every call.
        outside = value in (program.input, program.output)
        data = f"0 /* value {value} */" if outside else f"arena + {arena.offsets[value]}"
        return tensor(data, each.size, each.dtype)

    def constant_tensor(number: int) -> int:
        array = program.constants[number]
        return tensor(f"tsfmc_weights + {constant_offsets[number]}", array.size, str(array.dtype))

    source, target = value_tensor(program.input), value_tensor(program.output)
    calls = []
    for step in program.steps:
        operands = [
            value_tensor(each.value) if each.value is not None else constant_tensor(each.constant or 0)
            for each in step.operands
        ]
        listed = ", ".join(str(each) for each in operands)
        calls.append(f"    CALL({step.kernel.name}, {listed});")
    names = sorted(program.kernels)
    batch, variates, lookback = shape
    fields = {
        "KERNELS": "\n".join(f"KERNEL({name});" for name in names),
        "TENSORS": "\n".join(tensors),
        "CALLS": "\n".join(calls),
        "ARENA_BYTES": str(max(arena.size_bytes, ALIGNMENT)),
        "SOURCE": str(source),
        "TARGET": str(target),
        "BATCH": str(batch),
        "VARIATES": str(variates),
        "LOOKBACK": str(lookback),
        "HORIZON": str(horizon),
    }
    for name in ("tsfmc_model.c", "tsfmc_model.h", "main.c"):
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
