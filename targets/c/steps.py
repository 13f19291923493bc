"""The kernels that a forecaster is made of, in order; each writes one view."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .values import Operand, Term, View, views_of


@dataclass(frozen=True)
class Step:
    """``out`` is computed; ``about`` is what the comment in the C file says."""

    out: View
    about: str

    def reads(self) -> list[View]:
        """Views of past or scratch memory that must hold their values."""
        raise NotImplementedError

    @property
    def parts(self) -> set[str]:
        """Names of the kernels and functions that its C needs."""
        return set()


@dataclass(frozen=True)
class Linear(Step):
    """``out [.., N] = source [.., K] @ matrix [K, N] (+ bias [N])``; one matrix a row where ``matrices`` > 1.

    Attributes:
        weights: number of the packed matrix, see ``weights.py``.
        matrices: how many there are, each for as many rows as there are rows for one.
        scratch: room for one row as int16, for the kernel in integers.
    """

    source: View
    weights: int
    kernel: str
    matrices: int
    inputs: int
    outputs: int
    scratch: View | None = None

    def reads(self) -> list[View]:
        return [self.source, *([self.scratch] if self.scratch else [])]

    @property
    def bits(self) -> int:
        """Bits of a row as integers: ``inputs`` products with int8 stay below 2^31."""
        return min(15, int(math.log2(2**31 / (127 * self.inputs))))

    @property
    def parts(self) -> set[str]:
        return {self.kernel}


@dataclass(frozen=True)
class Product(Step):
    """``out = left @ right``, both computed: ``[.., M, K] @ [.., K, N]``."""

    left: View
    right: View

    def reads(self) -> list[View]:
        return [self.left, self.right]

    @property
    def parts(self) -> set[str]:
        return {"product_rows"} if self.dense_rows else {"product_dots"}

    @property
    def dense_rows(self) -> bool:
        """Whether rows of ``right`` are dense, so that they are added up row by row."""
        return self.right.strides[-1] == 1 or self.right.shape[-1] == 1


@dataclass(frozen=True)
class Map(Step):
    """Elementwise."""

    value: Operand

    def reads(self) -> list[View]:
        return views_of(self.value)

    @property
    def parts(self) -> set[str]:
        return _functions(self.value)


@dataclass(frozen=True)
class Mean(Step):
    """Mean over the last axis."""

    value: Operand

    def reads(self) -> list[View]:
        return views_of(self.value)

    @property
    def parts(self) -> set[str]:
        return {"total", *_functions(self.value)}


@dataclass(frozen=True)
class Softmax(Step):
    """Softmax over the last axis."""

    source: View

    def reads(self) -> list[View]:
        return [self.source]

    @property
    def parts(self) -> set[str]:
        return {"softmax", "exp", "extremes"}


@dataclass(frozen=True)
class LayerNorm(Step):
    """``(x - mean) / sqrt(var + epsilon) * gain + offset`` over the last axis, by constants."""

    source: View
    epsilon: float
    gain: View
    offset: View | None

    def reads(self) -> list[View]:
        return [self.source]

    @property
    def parts(self) -> set[str]:
        return {"total", "layer_norm"}


@dataclass(frozen=True)
class MovingAverage(Step):
    """Mean of ``kernel`` neighbours along the last axis, no padding, step 1."""

    source: View
    kernel: int

    def reads(self) -> list[View]:
        return [self.source]

    @property
    def parts(self) -> set[str]:
        return {"moving_average"}


def _functions(value: Operand) -> set[str]:
    operators = value.operators() if isinstance(value, Term) else set()
    names = {"Exp": {"exp"}, "Sigmoid": {"exp"}, "Erf": {"erf", "extremes"}}
    extremes = {"Relu": {"extremes"}, "Max": {"extremes"}, "Min": {"extremes"}, "Clip": {"extremes"}}
    return (
        set().union(*({**names, **extremes}.get(each, set()) for each in operators)) if operators else set()
    )
