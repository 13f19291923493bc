"""Constants of a forecaster: packed for the kernels, written as exact C literals, with their checksum.

A matrix ``[K, N]`` is cut into panels of ``PANEL`` columns, each stored row by row: a kernel walks down one
panel with its sums in registers.  The last panel is as narrow as it needs to be.  Kernels read whole vectors,
so every array that one may leave at its end is followed by a few zeros.

int8: one scale a column, ``w = scale * q`` with ``|q| <= 127``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from .values import number

PANEL = 16
INT8_ROWS = 8
"""A matrix with fewer rows than this stays float32: its scales would cost what its weights save."""
_LINE = 8


@dataclass(frozen=True)
class Array:
    """One member of the weights: flat, ``float32`` or ``int8``."""

    name: str
    values: np.ndarray
    about: str


@dataclass(frozen=True)
class Matrix:
    """Packed matrices ``[S, K, N]`` (S > 1: one a variate), bias and scales, by the names of their arrays."""

    weights: str
    bias: str | None
    scales: str | None
    matrices: int
    inputs: int
    outputs: int
    stride: int
    """Elements from one matrix to the next."""


@dataclass
class Weights:
    """All constants, in the order in which they were added; floats stand before bytes."""

    arrays: list[Array] = field(default_factory=list)

    def vector(self, values: np.ndarray, about: str, padding: int = 0) -> str:
        """Adds numbers as they are and returns their name; equal ones are shared."""
        flat = np.ascontiguousarray(values).reshape(-1)
        flat = np.concatenate([flat, np.zeros(padding, flat.dtype)])
        for each in self.arrays:
            if each.values.dtype == flat.dtype and each.values.tobytes() == flat.tobytes():
                return each.name
        name = f"w{len(self.arrays)}"
        self.arrays.append(Array(name, flat, about))
        return name

    def matrix(self, values: np.ndarray, bias: np.ndarray | None, int8: bool, about: str) -> Matrix:
        """Adds matrices ``[S, K, N]`` float32; ``bias [S, N]`` is added to every row of a product."""
        count, inputs, outputs = values.shape
        tail = -outputs % PANEL
        scales = None
        if int8 and inputs >= INT8_ROWS:
            largest = np.abs(values.astype(np.float64)).max(axis=1, keepdims=True)
            steps = np.where(largest > 0, largest, 127.0) / 127
            values = np.clip(np.rint(values / steps), -127, 127).astype(np.int8)
            # One matrix' scales and biases start at a whole panel: kernels read vectors of them.
            scales = self.vector(_panels(steps[:, 0].astype(np.float32)), f"{about}: scales")
        packed = np.stack([_packed(each) for each in values])
        return Matrix(
            self.vector(packed, f"{about} [{inputs}, {outputs}], in panels of {PANEL} columns", tail),
            None if bias is None else self.vector(_panels(bias), f"{about}: bias"),
            scales,
            count,
            inputs,
            outputs,
            inputs * outputs,
        )

    def ordered(self) -> list[Array]:
        """float32 first, then int8, filled up to whole words: the struct has no holes."""
        floats = [each for each in self.arrays if each.values.dtype == np.float32]
        small = [each for each in self.arrays if each.values.dtype == np.int8]
        rest = -sum(each.values.size for each in small) % 4
        if rest:
            small.append(Array("rest", np.zeros(rest, np.int8), "up to a whole word"))
        return [*floats, *small]

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(each.values.nbytes for each in self.ordered())

    @property
    def checksum(self) -> int:
        """CRC-32 of the weights as they lie in a little-endian memory."""
        crc = 0
        for each in self.ordered():
            crc = zlib.crc32(each.values.astype(each.values.dtype.newbyteorder("<")).tobytes(), crc)
        return crc

    def declarations(self) -> str:
        """Members of the struct."""
        types = {"float32": "float", "int8": "int8_t"}
        return "\n".join(
            f"  {types[str(each.values.dtype)]} {each.name}[{each.values.size}]; /* {each.about} */"
            for each in self.ordered()
        )

    def literals(self) -> str:
        """Values of the struct."""
        return ",\n".join(f"  {{ /* {each.name} */\n{_lines(each.values)}  }}" for each in self.ordered())


def _packed(matrix: np.ndarray) -> np.ndarray:
    """``[K, N]`` panel by panel, each row by row."""
    return np.concatenate([matrix[:, at : at + PANEL].reshape(-1) for at in range(0, matrix.shape[1], PANEL)])


def _panels(values: np.ndarray) -> np.ndarray:
    """``[S, N]`` with zeros after each row up to a whole panel."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % PANEL)))


def _lines(values: np.ndarray) -> str:
    texts = [number(each) if values.dtype == np.float32 else str(each) for each in values.tolist()]
    rows = (texts[at : at + _LINE] for at in range(0, len(texts), _LINE))
    return "".join(f"    {', '.join(row)},\n" for row in rows)
