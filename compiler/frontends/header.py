"""What a safetensors file says it holds, read and checked before anything is loaded or built.

The format (huggingface/safetensors, "Format"): eight bytes with the length N of the header, little-endian;
N bytes of JSON, ``{name: {"dtype", "shape", "data_offsets"}}``, optional ``__metadata__``; then the numbers,
without holes and without overlap.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from ..base.errors import TeacherError
from ..base.reading import read_json, validated

LONGEST_HEADER = 32 << 20
_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


Size = Annotated[int, Field(ge=0, le=1 << 48)]


class Entry(BaseModel, extra="forbid"):
    """One tensor: type, shape, its first byte and the one after its last, from the header's end."""

    dtype: str
    shape: tuple[Size, ...] = Field(max_length=16)
    data_offsets: tuple[Size, Size]

    @property
    def numbers(self) -> int:
        """How many."""
        return math.prod(self.shape)


class Header(BaseModel):
    """All tensors of a file."""

    tensors: dict[str, Entry] = Field(default_factory=dict)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name.

    Raises:
        TeacherError: the header is absurdly long, no JSON, or does not describe the file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise _refused(path, f"its header has {length} bytes, the file {size}")
        text = file.read(length)
    what = f"header of {path}"
    table = read_json(text, what=what, error=TeacherError, max_bytes=LONGEST_HEADER, max_depth=4)
    if not isinstance(table, dict):
        raise _refused(path, "its header is no object")
    table.pop("__metadata__", None)
    tensors = validated({"tensors": table}, Header, what=what, error=TeacherError).tensors
    begin = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _BYTES:
            raise _refused(path, f"tensor {name[:60]} is {entry.dtype[:20]} of shape {list(entry.shape)[:8]}")
        end = begin + entry.numbers * _BYTES[entry.dtype]
        if entry.data_offsets != (begin, end):
            got = list(entry.data_offsets)
            raise _refused(path, f"tensor {name[:60]} is at bytes {got}, expected {[begin, end]}")
        begin = end
    if begin != size - 8 - length:
        raise _refused(path, f"it has {size - 8 - length} bytes of numbers, its header describes {begin}")
    return tensors


def read_headers(files: Sequence[Path]) -> dict[str, Entry]:
    """The tensors of all files of a checkpoint."""
    return {name: entry for path in files for name, entry in read_header(path).items()}


def _refused(path: Path, reason: str) -> TeacherError:
    return TeacherError(
        f"{path} is not a readable safetensors file: {reason}",
        hint="it was cut short or edited: fetch it again",
    )
