"""Everything that is not a matrix product: elementwise blocks and reductions, in vectors.

A block is vectorised along its last axis when every access moves by 0 or 1 element along it.  A sum
or maximum along contiguous data keeps several vectors of partial results, which are combined at the
end; one along another axis (pooling) keeps a vector of results.  What fits neither runs in scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx

from .blocks import Block, Reduction, element_type
from .mathfun import expand
from .tir import (
    Buffer,
    Domain,
    Expr,
    Stmt,
    Unsupported,
    flat_offset,
    in_chunks,
    in_vectors,
    index,
    is_load,
    loads_in,
    loop,
    on_stack,
    rewrite,
    sequence,
    shape_of,
    substitute,
    variable,
    vector_loop,
)

Flat = Callable[[Buffer], Buffer]

PARTIALS = 4
"""Vectors of partial results in a long reduction: enough to hide an addition's latency."""


def combine(reduction: Reduction, left: Expr, right: Expr) -> Expr:
    """One step of a reduction."""
    return {
        "sum": lambda: left + right,
        "max": lambda: tirx.Max(left, right),
        "min": lambda: tirx.Min(left, right),
    }[reduction]()


def flatten(value: Expr, flat: Flat, domain: Domain) -> Expr:
    """Reads through flat buffers, offsets simplified."""

    def replace(node: Expr) -> Expr | None:
        if not is_load(node):
            return None
        indices = [rewrite(each, replace) for each in node.indices]
        offset = domain.simplify(flat_offset(shape_of(node.source), indices))
        return tirx.BufferLoad(flat(node.source), [offset])

    return rewrite(value, replace)


def conditions_in(value: Expr) -> list[Expr]:
    """Conditions of ``if_then_else``, which guard reads that may be out of bounds."""
    found: list[Expr] = []

    def visit(node: Expr) -> None:
        if type(node).__name__ == "Call" and node.op.name == "tirx.if_then_else":
            found.append(node.args[0])

    rewrite(value, visit)
    return found


def segments(value: Expr, var: Any, extent: int) -> list[tuple[int, int]]:
    """Ranges of ``var`` on which every condition that depends on it alone keeps its value."""
    conditions = conditions_in(value)
    if not conditions or extent > 4096:
        return [(0, extent)]
    domain = Domain()

    def signature(position: int) -> tuple[str, ...]:
        return tuple(str(domain.simplify(substitute(each, {var: index(position)}))) for each in conditions)

    # Conditions compare with constants, so a change can be found by bisection between equal neighbours
    # only where they are monotonic; at these sizes it is cheaper to be sure and look at every position.
    cuts, previous = [0], signature(0)
    for position in range(1, extent):
        current = signature(position)
        if current != previous:
            cuts.append(position)
            previous = current
    if len(cuts) > 8:
        return [(0, extent)]
    return list(zip(cuts, [*cuts[1:], extent], strict=True))


def resolve_conditions(value: Expr, domain: Domain) -> Expr:
    """Drops branches that the ranges in ``domain`` rule out."""

    def replace(node: Expr) -> Expr | None:
        if type(node).__name__ != "Call" or node.op.name != "tirx.if_then_else":
            return None
        condition = domain.simplify(node.args[0])
        if isinstance(condition, tirx.IntImm):
            return rewrite(node.args[1] if int(condition) else node.args[2], replace)
        return None

    return rewrite(value, replace)


@dataclass(frozen=True)
class Element:
    """``target[offset] = value``, or combined with it: what a block does to one element, in flat buffers.

    Attributes:
        domain: the loop variables that offset and value are written in.
    """

    target: Buffer
    offset: Expr
    value: Expr
    domain: Domain

    def vectorises(self, var: Any) -> bool:
        """Whether the turns of ``var`` may be lanes: it stores side by side and nothing is conditional."""
        return self.domain.stride(self.offset, var) == 1 and self.reads_vectors(var)

    def reads_vectors(self, var: Any) -> bool:
        """Whether every read moves by 0 or 1 along ``var``, unconditionally."""
        steps = (self.domain.stride(load.indices[0], var) for load in loads_in(self.value))
        return all(step in (0, 1) for step in steps) and not conditions_in(self.value)

    def value_at(self, var: Any, position: Expr) -> Expr:
        """The value with ``var`` at ``position``."""
        return substitute(self.value, {var: position})

    def store(self, value: Expr, var: Any, position: Expr) -> Stmt:
        """Stores ``value`` at ``position`` of ``var``."""
        return tirx.BufferStore(self.target, value, [substitute(self.offset, {var: position})])


def element_of(block: Block, places: Mapping[Any, Expr], flat: Flat, domain: Domain) -> Element:
    """The element of a block with its variables at ``places``, which are expressions in ``domain``."""
    value = resolve_conditions(substitute(block.value, places), domain)
    offset = flat_offset(shape_of(block.buffer), [substitute(each, places) for each in block.indices])
    return Element(flat(block.buffer), domain.simplify(offset), expand(flatten(value, flat, domain)), domain)


def emit_spatial(block: Block, flat: Flat, lanes: int) -> Stmt:
    """``output[offset] = value`` over all axes, the last one in vectors where possible."""
    *outer, (last, extent) = block.spatial or ((variable("once"), 1),)
    axes = [(variable(f"i{position}"), size) for position, (_, size) in enumerate(outer)]
    moved = {old: new for (old, _), (new, _) in zip(outer, axes, strict=True)}
    statements: list[Stmt] = []
    for start, stop in segments(block.value, last, extent):
        inner = variable("inner")
        domain = Domain({**dict(axes), inner: stop - start})
        element = element_of(block, {**moved, last: inner + index(start)}, flat, domain)
        width = lanes if element.vectorises(inner) else 1
        statements += in_vectors(0, stop - start, width, partial(_assign, element, inner))
    return _nest(axes, sequence(statements))


def _assign(element: Element, var: Any, position: Expr) -> Stmt:
    return element.store(element.value_at(var, position), var, position)


def emit_reduction(block: Block, flat: Flat, lanes: int) -> Stmt:
    """A sum, maximum or minimum."""
    assert block.reduction is not None  # the caller asks only for reductions
    if block.reduction == "sum" and float(getattr(block.initial, "value", 1.0)) != 0.0:
        # It would enter every partial result.
        raise Unsupported(f"a sum that starts at {block.initial} in {block.name}")
    spatial = [(variable(f"i{position}"), size) for position, (_, size) in enumerate(block.spatial)]
    reduced = [(variable(f"k{position}"), size) for position, (_, size) in enumerate(block.reduced)]
    old = [var for var, _ in (*block.spatial, *block.reduced)]
    new = [var for var, _ in (*spatial, *reduced)]
    element = element_of(block, dict(zip(old, new, strict=True)), flat, Domain(dict(spatial + reduced)))
    nest = _Reduction(element, block.reduction, block.initial, spatial, reduced, element_type(block.buffer))
    last, extent = spatial[-1] if spatial else (variable("once"), 1)
    if extent >= lanes and element.vectorises(last):
        return nest.along_output(lanes)
    inner, _ = reduced[-1]
    return nest.along_input(lanes if element.reads_vectors(inner) else 1)


@dataclass(frozen=True)
class _Reduction:
    """The loops of one reduction."""

    element: Element
    kind: Reduction
    initial: Expr
    spatial: list[tuple[Any, int]]
    reduced: list[tuple[Any, int]]
    dtype: str

    def partials(self, count: int) -> Buffer:
        """Room for partial results."""
        return tirx.decl_buffer((count,), self.dtype, "partial", scope="local")

    def take(self, results: Buffer, slot: Expr, value: Expr) -> Stmt:
        """Combines ``value`` into a partial result."""
        return tirx.BufferStore(results, combine(self.kind, tirx.BufferLoad(results, [slot]), value), [slot])

    def clear(self, results: Buffer, count: int, width: int) -> list[Stmt]:
        """Sets partial results to the start value."""
        return in_vectors(0, count, width, lambda slot: tirx.BufferStore(results, self.initial, [slot]))

    def along_output(self, lanes: int) -> Stmt:
        """One vector of results at a time."""
        *outer, (last, extent) = self.spatial

        def chunk(start: Expr, width: int) -> Stmt:
            results = self.partials(width)

            def step(lane: Expr) -> Stmt:
                return self.take(results, lane, self.element.value_at(last, start + lane))

            def store(lane: Expr) -> Stmt:
                return self.element.store(tirx.BufferLoad(results, [lane]), last, start + lane)

            turns = _nest(self.reduced, vector_loop(width, step))
            return sequence(
                [on_stack(results), *self.clear(results, width, width), turns, vector_loop(width, store)]
            )

        return _nest(outer, sequence(in_chunks(0, extent, lanes, chunk)))

    def along_input(self, lanes: int) -> Stmt:
        """One result at a time, the innermost reduction axis in vectors of partial results."""
        *outer, (inner, length) = self.reduced
        chains = min(PARTIALS, max(1, length // lanes)) if lanes > 1 and length >= lanes else 1
        width = lanes if length >= lanes else 1
        count = chains * width
        results = self.partials(count)

        def take_lane(start: int, first: Expr, lane: Expr) -> Stmt:
            slot = index(start) + lane
            return self.take(results, slot, self.element.value_at(inner, first + slot))

        def vectors_from(first: Expr, used: int) -> Stmt:
            """Takes ``used`` vectors of the axis, from position ``first``, one to each chain."""
            return sequence(
                vector_loop(width, partial(take_lane, chain * width, first)) for chain in range(used)
            )

        def fold_lane(start: int, lane: Expr) -> Stmt:
            return self.take(results, lane, tirx.BufferLoad(results, [index(start) + lane]))

        whole, rest = divmod(length, count)
        vectors = rest // width
        body: list[Stmt] = []
        if whole:
            body.append(loop(whole, lambda turn: vectors_from(turn * index(count), chains), "k"))
        done = whole * count
        if vectors and width > 1:
            body.append(vectors_from(index(done), vectors))
            done += vectors * width
        if done < length:

            def take_one(turn: Expr) -> Stmt:
                return self.take(results, index(0), self.element.value_at(inner, index(done) + turn))

            body.append(loop(length - done, take_one, "k"))
        # Chains first, then halves of a vector: the combination stays in vectors as long as it can.
        fold = [vector_loop(width, partial(fold_lane, chain * width)) for chain in range(1, chains)]
        half = width // 2
        while half:
            fold.append(vector_loop(half, partial(fold_lane, half)))
            half //= 2
        store = tirx.BufferStore(
            self.element.target, tirx.BufferLoad(results, [index(0)]), [self.element.offset]
        )
        turns = _nest(outer, sequence(body))
        clear = self.clear(results, count, width)
        return _nest(self.spatial, sequence([on_stack(results), *clear, turns, *fold, store]))


def _nest(axes: list[tuple[Any, int]], body: Stmt) -> Stmt:
    for var, extent in reversed(axes):
        body = tirx.For(var, index(0), index(extent), tirx.ForKind.SERIAL, body)
    return body
