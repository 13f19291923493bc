"""Values of a forecaster in C: where a tensor lies, and what is computed from it element by element.

View    a tensor inside a block of memory, by offset and strides: reshaping, slicing, splitting,
        transposing and expanding are other views of the same block and cost nothing on the device
Term    an elementwise operator that is not written to memory; it is computed inside the loop that needs it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

PAST, FORECAST = "past", "forecast"
UNARY = {
    "Sqrt": "sqrtf({0})",
    "Log": "logf({0})",
    "Exp": "tsfmc_exp({0})",
    "Erf": "tsfmc_erf({0})",
    "Neg": "-({0})",
    "Abs": "fabsf({0})",
    "Tanh": "tanhf({0})",
    "Sigmoid": "(1.0F / (1.0F + tsfmc_exp(-({0}))))",
    "Relu": "tsfmc_max({0}, 0.0F)",
    "Reciprocal": "(1.0F / ({0}))",
}
BINARY = {
    "Add": "({0} + {1})",
    "Sub": "({0} - {1})",
    "Mul": "({0} * {1})",
    "Div": "({0} / {1})",
    "Max": "tsfmc_max({0}, {1})",
    "Min": "tsfmc_min({0}, {1})",
}
"""ONNX operator -> C expression of its operands."""
ELEMENTWISE = {**UNARY, **BINARY, "Clip": "tsfmc_min(tsfmc_max({0}, {1}), {2})"}


@dataclass(frozen=True)
class View:
    """``shape`` elements of the block ``block`` at ``offset + sum(index * stride)``, in elements."""

    block: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def whole(cls, block: str, shape: Sequence[int]) -> View:
        """A block of its own, in C order."""
        return cls(block, tuple(shape), c_strides(shape))

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        pairs = zip(self.shape, self.strides, c_strides(self.shape), strict=True)
        return all(size == 1 or stride == plain for size, stride, plain in pairs)

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements in another shape; None where their order in memory does not allow it."""
        if [size for size in shape if size > 1] == [size for size in self.shape if size > 1]:
            kept = iter(s for size, s in zip(self.shape, self.strides, strict=True) if size > 1)
            return View(
                self.block, tuple(shape), tuple(next(kept) if size > 1 else 0 for size in shape), self.offset
            )
        return View(self.block, tuple(shape), c_strides(shape), self.offset) if self.contiguous else None

    def transposed(self, order: Sequence[int]) -> View:
        """Axes in another order."""
        return View(
            self.block,
            tuple(self.shape[axis] for axis in order),
            tuple(self.strides[axis] for axis in order),
            self.offset,
        )

    def part(self, axis: int, start: int, size: int) -> View:
        """``size`` elements of one axis from ``start`` on."""
        shape = list(self.shape)
        shape[axis] = size
        return View(self.block, tuple(shape), self.strides, self.offset + start * self.strides[axis])

    def expanded(self, shape: Sequence[int]) -> View:
        """Broadcast to ``shape``."""
        missing = len(shape) - len(self.shape)
        strides = [0] * missing
        for size, stride, wanted in zip(self.shape, self.strides, shape[missing:], strict=True):
            strides.append(stride if size == wanted else 0)
        return View(self.block, tuple(shape), tuple(strides), self.offset)

    def rows(self) -> tuple[int, int] | None:
        """(count, distance) of its rows, the last axis dense; None where they are not evenly spaced."""
        if self.shape[-1] > 1 and self.strides[-1] != 1:
            return None
        sizes = collapse(self.shape[:-1], [self.strides[:-1]])
        if len(sizes) > 1:
            return None
        return (sizes[0][0], sizes[0][1][0]) if sizes else (1, self.shape[-1])


@dataclass(frozen=True)
class Term:
    """``operator`` of the operands, each a view, a term or a number; broadcast to ``shape``."""

    operator: str
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]

    def views(self) -> list[View]:
        """What it reads."""
        found: list[View] = []
        for operand in self.operands:
            found += operand.views() if isinstance(operand, Term) else []
            found += [operand] if isinstance(operand, View) else []
        return found

    def operators(self) -> set[str]:
        """Names of all its operators."""
        inner = (each.operators() for each in self.operands if isinstance(each, Term))
        return {self.operator}.union(*inner)


Operand = View | Term | float


def term(operator: str, operands: Sequence[Operand]) -> Term:
    """An operator over the broadcast shape of its operands."""
    shapes = [each.shape for each in operands if not isinstance(each, float)]
    return Term(operator, tuple(operands), tuple(np.broadcast_shapes(*shapes)))


def views_of(operand: Operand) -> list[View]:
    """The views that an operand reads."""
    if isinstance(operand, float):
        return []
    return operand.views() if isinstance(operand, Term) else [operand]


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of C order, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, tuple[int, ...]]]:
    """The fewest loops over ``shape`` for operands with ``strides``: (size, stride of each operand)."""
    loops: list[tuple[int, tuple[int, ...]]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = tuple(each[axis] for each in strides)
        if loops and all(outer == size * inner for outer, inner in zip(loops[-1][1], here, strict=True)):
            loops[-1] = (loops[-1][0] * size, here)
        else:
            loops.append((size, here))
    return loops


def number(value: float) -> str:
    """A float32 as an exact C literal.

    Raises:
        ValueError: it is no finite number.
    """
    rounded = float(np.float32(value))
    if not math.isfinite(rounded):
        raise ValueError(f"{value} has no literal")
    if (
        rounded == int(rounded)
        and abs(rounded) < 1e6
        and not (rounded == 0 and math.copysign(1, rounded) < 0)
    ):
        return f"{int(rounded)}.0F"
    mantissa, _, exponent = rounded.hex().partition("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}p{exponent}F"


def expression(operand: Operand, shape: Sequence[int], element: Callable[[View], str]) -> str:
    """C of one element; ``element`` writes how a view (expanded to ``shape``) is read."""
    if isinstance(operand, float):
        return number(operand)
    if isinstance(operand, View):
        return element(operand.expanded(shape))
    parts = [expression(each, shape, element) for each in operand.operands]
    return ELEMENTWISE[operand.operator].format(*parts)
