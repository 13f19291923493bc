"""Everything that is not a matrix product: elementwise blocks and reductions, in vectors.

A block is vectorised along its last axis when every access moves by 0 or 1 element along it.  A sum
or maximum along contiguous data keeps several vectors of partial results, which are combined at the
end; one along another axis (pooling) keeps a vector of results.  What fits neither runs in scalars.
"""

from __future__ import annotations

from collections.abc import Callable
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
    chunks,
    flat_offset,
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


def vectorisable(value: Expr, offset: Expr, var: Any, domain: Domain) -> bool:
    """Whether reads of ``value`` (flat) and the store at ``offset`` move by 0 or 1 along ``var``."""
    if domain.stride(offset, var) != 1:
        return False
    return all(domain.stride(load.indices[0], var) in (0, 1) for load in loads_in(value))


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


def emit_spatial(block: Block, flat: Flat, lanes: int) -> Stmt:
    """``output[offset] = value`` over all axes, the last one in vectors where possible."""
    *outer, (last, extent) = block.spatial or ((variable("once"), 1),)
    outer_vars = {var: variable(f"i{position}") for position, (var, _) in enumerate(outer)}

    def innermost() -> Stmt:
        statements: list[Stmt] = []
        for start, stop in segments(block.value, last, extent):
            domain = Domain({outer_vars[var]: size for var, size in outer})
            inner = variable("inner")
            domain.bind(inner, stop - start)
            places = {**outer_vars, last: inner + index(start)}
            value = resolve_conditions(substitute(block.value, places), domain)
            value = expand(flatten(value, flat, domain))
            offset = domain.simplify(
                flat_offset(shape_of(block.buffer), [substitute(each, places) for each in block.indices])
            )
            target = flat(block.buffer)
            vector = vectorisable(value, offset, inner, domain) and not conditions_in(value)

            def body(
                position: Expr,
                value: Expr = value,
                offset: Expr = offset,
                inner: Any = inner,
                target: Any = target,
            ) -> Stmt:
                place = {inner: position}
                return tirx.BufferStore(target, substitute(value, place), [substitute(offset, place)])

            statements.extend(in_vectors(0, stop - start, lanes if vector else 1, body))
        return sequence(statements)

    return _nest([(outer_vars[var], size) for var, size in outer], innermost())


def emit_reduction(block: Block, flat: Flat, lanes: int) -> Stmt:
    """A sum, maximum or minimum."""
    spatial = [(variable(f"i{position}"), size) for position, (_, size) in enumerate(block.spatial)]
    reduced = [(variable(f"k{position}"), size) for position, (_, size) in enumerate(block.reduced)]
    domain = Domain(dict(spatial + reduced))
    places = {
        old: new for (old, _), (new, _) in zip(block.spatial + block.reduced, spatial + reduced, strict=True)
    }
    value = expand(flatten(substitute(block.value, places), flat, domain))
    offset = domain.simplify(
        flat_offset(shape_of(block.buffer), [substitute(each, places) for each in block.indices])
    )
    target = flat(block.buffer)
    assert block.reduction is not None  # the caller asks only for reductions
    initial = block.initial
    if block.reduction == "sum" and float(getattr(initial, "value", 1.0)) != 0.0:
        # It would enter every partial result.
        raise Unsupported(f"a sum that starts at {initial} in {block.name}")
    dtype = element_type(block.buffer)

    last, extent = spatial[-1] if spatial else (variable("once"), 1)
    if extent >= lanes and vectorisable(value, offset, last, domain) and not conditions_in(value):
        return _along_output(block.reduction, spatial, reduced, value, offset, target, initial, lanes, dtype)
    inner, _ = reduced[-1]
    contiguous = all(domain.stride(load.indices[0], inner) in (0, 1) for load in loads_in(value))
    width = lanes if contiguous and not conditions_in(value) else 1
    return _along_input(block.reduction, spatial, reduced, value, offset, target, initial, width, dtype)


def _along_output(
    reduction: Reduction,
    spatial: list[tuple[Any, int]],
    reduced: list[tuple[Any, int]],
    value: Expr,
    offset: Expr,
    target: Buffer,
    initial: Expr,
    lanes: int,
    dtype: str,
) -> Stmt:
    """One vector of results at a time."""
    *outer, (last, extent) = spatial

    def chunk(start: Expr, width: int) -> Stmt:
        results = tirx.decl_buffer((width,), dtype, "partial", scope="local")

        def over(body: Callable[[Expr], Stmt]) -> Stmt:
            return sequence(in_vectors(0, width, width, body))

        def step(lane: Expr) -> Stmt:
            read = substitute(value, {last: start + lane})
            return tirx.BufferStore(
                results, combine(reduction, tirx.BufferLoad(results, [lane]), read), [lane]
            )

        return sequence(
            [
                on_stack(results),
                over(lambda lane: tirx.BufferStore(results, initial, [lane])),
                _nest(reduced, over(step)),
                over(
                    lambda lane: tirx.BufferStore(
                        target, tirx.BufferLoad(results, [lane]), [substitute(offset, {last: start + lane})]
                    )
                ),
            ]
        )

    def chunk_at(first: int, width: int, turn: Expr) -> Stmt:
        return chunk(index(first) + turn * index(width), width)

    statements = [
        loop(turns, partial(chunk_at, first, width), "v") for first, turns, width in chunks(0, extent, lanes)
    ]
    return _nest(outer, sequence(statements))


def _along_input(
    reduction: Reduction,
    spatial: list[tuple[Any, int]],
    reduced: list[tuple[Any, int]],
    value: Expr,
    offset: Expr,
    target: Buffer,
    initial: Expr,
    lanes: int,
    dtype: str,
) -> Stmt:
    """One result at a time, the innermost reduction axis in vectors of partial results."""
    *outer_reduced, (inner, length) = reduced
    chains = min(PARTIALS, max(1, length // lanes)) if lanes > 1 and length >= lanes else 1
    width = lanes if length >= lanes else 1
    count = chains * width
    results = tirx.decl_buffer((count,), dtype, "partial", scope="local")

    def accumulate(slot: Expr, position: Expr) -> Stmt:
        read = substitute(value, {inner: position})
        return tirx.BufferStore(results, combine(reduction, tirx.BufferLoad(results, [slot]), read), [slot])

    def vectors_from(first: Expr, used: int) -> Stmt:
        """Adds ``used`` vectors of the axis, from position ``first``, one to each chain."""
        return sequence(
            vector_loop(width, partial(accumulate_lane, chain * width, first)) for chain in range(used)
        )

    def accumulate_lane(start: int, first: Expr, lane: Expr) -> Stmt:
        return accumulate(index(start) + lane, first + index(start) + lane)

    def fold_lane(start: int, lane: Expr) -> Stmt:
        pair = (tirx.BufferLoad(results, [lane]), tirx.BufferLoad(results, [index(start) + lane]))
        return tirx.BufferStore(results, combine(reduction, *pair), [lane])

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
        body.append(loop(length - done, lambda turn: accumulate(index(0), index(done) + turn), "k"))
    clear = in_vectors(0, count, width, lambda slot: tirx.BufferStore(results, initial, [slot]))
    # Chains first, then halves of a vector: the combination stays in vectors as long as it can.
    fold = [vector_loop(width, partial(fold_lane, chain * width)) for chain in range(1, chains)]
    half = width // 2
    while half:
        fold.append(vector_loop(half, partial(fold_lane, half)))
        half //= 2
    store = tirx.BufferStore(target, tirx.BufferLoad(results, [index(0)]), [offset])
    inner_body = sequence([on_stack(results), *clear, _nest(outer_reduced, sequence(body)), *fold, store])
    return _nest(spatial, inner_body)


def _nest(axes: list[tuple[Any, int]], body: Stmt) -> Stmt:
    for var, extent in reversed(axes):
        body = tirx.For(var, index(0), index(extent), tirx.ForKind.SERIAL, body)
    return body
