"""Building and rewriting TIR by hand: the few helpers that the kernel emitters share.

Every kernel addresses flat, one-dimensional buffers, so that a tensor's shape matters only while its
index expressions are simplified.  Index arithmetic is int64; TVM narrows it where it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tvm import tirx
from tvm.ir import Call, Range
from tvm.sym import Analyzer

Expr = Any
Stmt = Any
Buffer = Any

_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max"}
_LOGIC = {"EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or"}
_BITS = {"LShift", "RShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor"}
_BINARY = _ARITHMETIC | _LOGIC | _BITS
"""Every node with fields ``a`` and ``b``."""


class Unsupported(Exception):
    """A TIR construct that the emitters do not know; becomes a LoweringError that names the kernel."""


def index(value: int) -> Expr:
    """An int64 literal."""
    return tirx.IntImm("int64", value)


def constant(value: float) -> Expr:
    """A float32 literal."""
    return tirx.FloatImm("float32", value)


def variable(name: str) -> Expr:
    """A fresh int64 loop variable."""
    return tirx.Var(name, "int64")


def dtype_of(expr: Expr) -> str:
    """The scalar type of an expression, e.g. ``float32``."""
    return str(expr.expr_ty().dtype)


def sequence(statements: Iterable[Stmt]) -> Stmt:
    """Statements in order, flattened."""
    flat: list[Stmt] = []
    for statement in statements:
        flat.extend(statement.seq if isinstance(statement, tirx.SeqStmt) else [statement])
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def loop(extent: int, body: Callable[[Expr], Stmt], name: str = "i") -> Stmt:
    """``for name in range(extent)``; no loop for a single turn."""
    if extent == 1:
        return body(index(0))
    var = variable(name)
    return tirx.For(var, index(0), index(extent), tirx.ForKind.SERIAL, body(var))


def vector_loop(extent: int, body: Callable[[Expr], Stmt]) -> Stmt:
    """A loop whose turns become the lanes of one vector."""
    if extent == 1:
        return body(index(0))
    var = variable("lane")
    return tirx.For(var, index(0), index(extent), tirx.ForKind.VECTORIZED, body(var))


def chunks(start: int, stop: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Covers ``[start, stop)``: (first, turns, width) with vectors of ``lanes``, then of halves of that."""
    width = lanes
    while start < stop:
        turns = (stop - start) // width
        if turns:
            yield start, turns, width
            start += turns * width
        width = max(width // 2, 1)


def in_chunks(start: int, stop: int, lanes: int, body: Callable[[Expr, int], Stmt]) -> list[Stmt]:
    """``body(first position, width)`` for pieces that cover ``[start, stop)``, in loops."""

    def one(first: int, width: int, turn: Expr) -> Stmt:
        return body(index(first) + turn * index(width), width)

    return [
        loop(turns, partial(one, first, width), "v") for first, turns, width in chunks(start, stop, lanes)
    ]


def in_vectors(start: int, stop: int, lanes: int, body: Callable[[Expr], Stmt]) -> list[Stmt]:
    """``body`` at every position of ``[start, stop)``, in loops of vectors."""
    return in_chunks(
        start, stop, lanes, lambda first, width: vector_loop(width, lambda lane: body(first + lane))
    )


def unrolled_vectors(start: int, stop: int, lanes: int, body: Callable[[Expr], Stmt]) -> list[Stmt]:
    """The same without loops: every index is a constant, so that local buffers can live in registers."""

    def one(first: int, width: int) -> Stmt:
        return vector_loop(width, lambda lane: body(index(first) + lane))

    return [
        one(first + turn * width, width)
        for first, turns, width in chunks(start, stop, lanes)
        for turn in range(turns)
    ]


def on_stack(buffer: Buffer) -> Stmt:
    """Allocates a local buffer on the stack, where LLVM can turn it into registers.

    Without the annotation TVM asks its runtime for the memory.  The pass StorageRewrite drops annotations
    and has nothing to do here, so kernels are built with ``BUILD_OPTIONS``.
    """
    return tirx.AllocBuffer(buffer, {"disable_lower_builtin": tirx.IntImm("bool", 1)})


BUILD_OPTIONS = {
    "tirx.disable_assert": True,
    "tirx.disable_storage_rewrite": True,
    # Common subexpressions are left to LLVM: TVM's own pass fails on some unravelled row indices ("variable
    # cse_v2 has been used before definition") and gains nothing; objects are a fifth smaller without.
    "tirx.disable_cse_tir": True,
}


def ramp(base: Expr, lanes: int) -> Expr:
    """``base .. base + lanes``; a scalar for one lane."""
    return base if lanes == 1 else tirx.Ramp(base, index(1), lanes)


def splat(value: Expr, lanes: int) -> Expr:
    """``value`` in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def is_load(expr: Expr) -> bool:
    """Whether this node reads a buffer."""
    return type(expr).__name__ == "TensorLoad"


def rewrite(expr: Expr, replace: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuilds an expression bottom-up where ``replace`` gives something else than None (top-down asked).

    Raises:
        Unsupported: a node type that no legalised operator of a forecaster has been seen to use.
    """
    found = replace(expr)
    if found is not None:
        return found
    kind = type(expr).__name__
    if kind in ("Var", "IntImm", "FloatImm", "StringImm"):
        return expr
    if kind in _BINARY:
        return type(expr)(rewrite(expr.a, replace), rewrite(expr.b, replace))
    if kind in ("Not", "BitwiseNot"):
        return type(expr)(rewrite(expr.a, replace))
    if kind == "Cast":
        return tirx.Cast(expr.expr_ty(), rewrite(expr.value, replace))
    if kind == "Select":
        return tirx.Select(
            rewrite(expr.condition, replace),
            rewrite(expr.true_value, replace),
            rewrite(expr.false_value, replace),
        )
    if kind == "Call":
        return Call(expr.op, [rewrite(arg, replace) for arg in expr.args], ret_ty=expr.expr_ty())
    if kind == "Let":
        return tirx.Let(expr.var, rewrite(expr.value, replace), rewrite(expr.body, replace))
    if is_load(expr):
        return tirx.BufferLoad(expr.source, [rewrite(each, replace) for each in expr.indices])
    raise Unsupported(f"expression {kind}")


def substitute(expr: Expr, mapping: Mapping[Any, Expr]) -> Expr:
    """Replaces variables (compared by identity of the node)."""
    if not mapping:
        return expr
    return rewrite(expr, lambda node: mapping.get(node) if type(node).__name__ == "Var" else None)


def loads_in(expr: Expr) -> list[Expr]:
    """Every buffer read of an expression, in reading order."""
    found: list[Expr] = []

    def collect(node: Expr) -> None:
        if is_load(node):
            found.append(node)

    rewrite(expr, collect)
    inner = [load for node in found for each in node.indices for load in loads_in(each)]
    return found + inner


def calls_in(expr: Expr) -> list[str]:
    """Names of the operators called in an expression."""
    names: list[str] = []

    def collect(node: Expr) -> None:
        if type(node).__name__ == "Call":
            names.append(node.op.name)

    rewrite(expr, collect)
    return names


def shape_of(buffer: Buffer) -> tuple[int, ...]:
    """Static shape of a buffer.

    Raises:
        Unsupported: a symbolic extent.
    """
    shape = []
    for extent in buffer.ty.shape if not hasattr(buffer, "shape") else buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            raise Unsupported(f"dynamic extent {extent} of {buffer.name}")
        shape.append(int(extent))
    return tuple(shape)


def flat_offset(shape: Sequence[int], indices: Sequence[Expr]) -> Expr:
    """Row-major offset of an element."""
    offset: Expr = index(0)
    for extent, each in zip(shape, indices, strict=True):
        offset = offset * index(extent) + each
    return offset


def is_zero(expr: Expr) -> bool:
    """Whether a simplified expression is the number 0."""
    return isinstance(expr, tirx.IntImm) and int(expr) == 0


class Domain:
    """Variables with their ranges, for simplification and stride analysis."""

    def __init__(self, extents: Mapping[Any, int] | None = None) -> None:
        self.analyzer = Analyzer()
        for var, extent in (extents or {}).items():
            self.bind(var, extent)

    def bind(self, var: Expr, extent: int) -> None:
        """Declares ``0 <= var < extent``."""
        self.analyzer.bind(var, Range(index(0), index(extent)))

    def simplify(self, expr: Expr) -> Expr:
        """A shorter equal expression."""
        return self.analyzer.simplify(expr)

    def stride(self, offset: Expr, var: Expr) -> int | None:
        """``offset(var + 1) - offset(var)`` when that is one number, else None.

        The offset is simplified first, so that a reshape's division by a larger extent disappears.
        """
        offset = self.simplify(offset)
        step = self.simplify(substitute(offset, {var: var + index(1)}) - offset)
        return int(step) if isinstance(step, tirx.IntImm) else None
