"""Reads a legalised PrimFunc as a list of blocks, and inlines those that cost nothing to inline.

A legalised operator is a sequence of loop nests, each around one block that stores one element.  After
this page a fused function is: inputs, scratch buffers, and blocks ``output[offset] = value``, some of
them sums or maxima over reduction variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .tir import (
    Buffer,
    Domain,
    Expr,
    Stmt,
    Unsupported,
    calls_in,
    flat_offset,
    is_load,
    is_zero,
    loads_in,
    rewrite,
    shape_of,
    substitute,
)

Reduction = Literal["sum", "max", "min"]


@dataclass(frozen=True)
class Block:
    """``buffer[indices] = value`` for all ``spatial``; with ``reduction``, combined over ``reduced``.

    Attributes:
        spatial: (variable, extent), outermost first; likewise ``reduced``.
        initial: the start value of a reduction, else None.
    """

    name: str
    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    spatial: tuple[tuple[Any, int], ...]
    reduced: tuple[tuple[Any, int], ...] = ()
    reduction: Reduction | None = None
    initial: Expr | None = None

    @property
    def extents(self) -> dict[Any, int]:
        """Every variable with its extent."""
        return dict(self.spatial + self.reduced)

    @property
    def turns(self) -> int:
        """How many elements the block computes, reductions counted in."""
        turns = 1
        for _, extent in self.spatial + self.reduced:
            turns *= extent
        return turns


@dataclass(frozen=True)
class Function:
    """A PrimFunc, read: ``params`` in order (outputs last), scratch buffers, and blocks in order."""

    name: str
    params: tuple[Buffer, ...]
    blocks: tuple[Block, ...]
    scratch: tuple[Buffer, ...] = field(default=())


def read_function(name: str, func: Any) -> Function:
    """Reads an unscheduled PrimFunc.

    Raises:
        Unsupported: a construct outside of what legalised operators use.
    """
    root = func.body.block
    statements: list[Stmt] = []

    def walk(stmt: Stmt) -> None:
        kind = type(stmt).__name__
        if kind == "SeqStmt":
            for each in stmt.seq:
                walk(each)
        elif kind == "For":
            walk(stmt.body)
        elif kind == "SBlockRealize":
            statements.append(stmt.block)
        else:
            raise Unsupported(f"statement {kind} in {name}")

    walk(root.body)
    blocks = tuple(_read_block(block) for block in statements)
    return Function(name, tuple(func.params), blocks, tuple(root.alloc_buffers))


def _read_block(block: Any) -> Block:
    store = block.body
    if type(store).__name__ != "BufferStore":
        raise Unsupported(f"block {block.name_hint} with a body of {type(store).__name__}")
    spatial: list[tuple[Any, int]] = []
    reduced: list[tuple[Any, int]] = []
    for each in block.iter_vars:
        extent = int(each.dom.extent)
        (spatial if each.iter_type == 0 else reduced).append((each.var, extent))
    plain = Block(
        block.name_hint, store.buffer, tuple(store.indices), store.value, tuple(spatial), tuple(reduced)
    )
    if not reduced:
        return plain
    if block.init is None:
        raise Unsupported(f"block {block.name_hint}: a reduction without a start value")
    operation, operand = _combination(store)
    return replace(plain, value=operand, reduction=operation, initial=block.init.value)


def _combination(store: Any) -> tuple[Reduction, Expr]:
    """Splits ``out = out (+, max, min) operand``."""
    operations: dict[str, Reduction] = {"Add": "sum", "Max": "max", "Min": "min"}
    kind = type(store.value).__name__
    if kind in operations and is_load(store.value.a) and store.value.a.source.same_as(store.buffer):
        return operations[kind], store.value.b
    raise Unsupported(f"a reduction of {store.buffer.name} that is neither sum, max nor min")


def inline(function: Function) -> Function:
    """Inlines spatial blocks into their readers where no work is done twice.

    Rules: the block writes a scratch buffer at its plain variables; its readers compute each element
    no more often than the block did; and it has one reader, or is a handful of arithmetic.
    """
    blocks = list(function.blocks)
    scratch = list(function.scratch)
    position = 0
    while position < len(blocks):
        block = blocks[position]
        readers = [i for i, other in enumerate(blocks) if i != position and _reads(other, block.buffer)]
        if not _may_inline(block, [blocks[i] for i in readers], scratch):
            position += 1
            continue
        for i in readers:
            blocks[i] = _inlined(blocks[i], block)
        del blocks[position]
        scratch = [buffer for buffer in scratch if not buffer.same_as(block.buffer)]
    return replace(function, blocks=tuple(blocks), scratch=tuple(scratch))


def _reads(block: Block, buffer: Buffer) -> bool:
    return any(load.source.same_as(buffer) for load in loads_in(block.value))


def _may_inline(block: Block, readers: list[Block], scratch: list[Buffer]) -> bool:
    if block.reduction or not readers or not any(block.buffer.same_as(each) for each in scratch):
        return False
    if [each for each, _ in block.spatial] != list(block.indices) and len(block.spatial) != 0:
        return False
    reads = sum(load.source.same_as(block.buffer) for reader in readers for load in loads_in(reader.value))
    cost = _cost(block.value)
    if cost == 0 and not any(reader.reduction for reader in readers):
        return True
    if any(reader.turns > block.turns for reader in readers):
        return False
    return reads == 1 or (cost <= 4 and not calls_in(block.value))


def _cost(value: Expr) -> int:
    """Arithmetic on data, counted; a pure move (with its conditions) costs nothing."""
    count = 0

    def visit(node: Expr) -> Expr | None:
        nonlocal count
        kind = type(node).__name__
        if is_load(node):
            return node
        if kind == "Call" and node.op.name == "tirx.if_then_else":
            for arg in node.args[1:]:
                rewrite(arg, visit)
            return node
        if kind in ("Add", "Sub", "Mul", "Max", "Min", "Select", "Cast"):
            count += 1
        elif kind in ("Div", "Call"):
            count += 4
        return None

    rewrite(value, visit)
    return count


def _inlined(reader: Block, producer: Block) -> Block:
    def replace_load(node: Expr) -> Expr | None:
        if not (is_load(node) and node.source.same_as(producer.buffer)):
            return None
        indices = [rewrite(each, replace_load) for each in node.indices]
        mapping: Mapping[Any, Expr] = {
            var: each for (var, _), each in zip(producer.spatial, indices, strict=True)
        }
        return substitute(producer.value, mapping)

    return replace(reader, value=rewrite(reader.value, replace_load))


def moves_nothing(function: Function) -> bool:
    """Whether the function copies its only input element by element, as a reshape does: a view will do."""
    if len(function.params) != 2 or len(function.blocks) != 1:
        return False
    source, target = function.params
    (block,) = function.blocks
    value = block.value
    if not (is_load(value) and value.source.same_as(source) and block.buffer.same_as(target)):
        return False
    if block.reduced or element_type(source) != element_type(target):
        return False
    read = flat_offset(shape_of(source), value.indices)
    written = flat_offset(shape_of(target), block.indices)
    difference = Domain(block.extents).simplify(read - written)
    return element_count(source) == element_count(target) and is_zero(difference)


def element_count(buffer: Buffer) -> int:
    """Number of elements of a buffer."""
    count = 1
    for extent in shape_of(buffer):
        count *= extent
    return count


def element_type(buffer: Buffer) -> str:
    """Scalar type of a buffer's elements, e.g. ``float32``."""
    return str(buffer.dtype)
