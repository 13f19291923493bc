"""Matrix products: register tiles over packed constant weights.

    for panel of columns:                  weights packed to [panel, k, column], read front to back
      for tile of rows:
        accumulators[rows, vectors] = 0    in registers: constant indices only
        for k:
          accumulators[r, v] += input[r, k] * weights[panel, k, v]
        output = epilogue(accumulators)    bias, residual, activation, fused by the importer

Rows are every spatial axis that the weights do not vary along, merged into one, so that a batch of
windows makes a taller product and not more products.  Constant weights that differ along an axis, a matrix
for each variate, are packed one behind the other and read front to back too.  A product of two activations
(attention) runs the same loops on the unpacked operand, once per head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from ..native.processor import Processor
from .blocks import Block
from .tiles import Tile, column_panels, row_tiles
from .tir import (
    Buffer,
    Domain,
    Expr,
    Stmt,
    constant,
    flat_offset,
    index,
    is_load,
    loop,
    on_stack,
    ramp,
    rewrite,
    sequence,
    shape_of,
    splat,
    substitute,
    unrolled_vectors,
    variable,
)


@dataclass(frozen=True)
class Product:
    """A block recognised as ``out[batch, rows, column] += left[batch, rows, k] * right[batch, k, column]``.

    Attributes:
        batch: axes that both operands vary along; rows: axes of the left operand alone.
    """

    left: Expr
    right: Expr
    batch: tuple[tuple[Any, int], ...]
    rows: tuple[tuple[Any, int], ...]
    column: tuple[Any, int]
    k: tuple[Any, int]

    @property
    def m(self) -> int:
        """Rows of one product."""
        return int(np.prod([extent for _, extent in self.rows], dtype=np.int64))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(m, k, n)."""
        return self.m, self.k[1], self.column[1]


def offset_of(load: Expr) -> Expr:
    """Flat offset of a read."""
    return flat_offset(shape_of(load.source), load.indices)


def recognise(block: Block) -> Product | None:
    """The product that a block computes, or None."""
    long_reductions = [each for each in block.reduced if each[1] > 1]
    if block.reduction != "sum" or len(long_reductions) > 1 or type(block.value).__name__ != "Mul":
        return None
    left, right = block.value.a, block.value.b
    if not (is_load(left) and is_load(right)) or left.source.same_as(right.source):
        return None
    k = (long_reductions or list(block.reduced))[-1]
    wide = [axis for axis in block.spatial if axis[1] > 1]
    column = wide[-1] if wide else block.spatial[-1]
    domain = Domain(block.extents)
    for a, b in ((left, right), (right, left)):
        steps_a = {var: domain.stride(offset_of(a), var) for var, _ in (*wide, column, k)}
        steps_b = {var: domain.stride(offset_of(b), var) for var, _ in (*wide, column, k)}
        if None in steps_a.values() or None in steps_b.values():
            return None
        if steps_a[column[0]] == 0 and steps_b[column[0]] == 1:
            others = [axis for axis in wide if axis[0] is not column[0] and not axis[0].same_as(column[0])]
            rows = tuple(axis for axis in others if steps_b[axis[0]] == 0)
            batch = tuple(axis for axis in others if steps_b[axis[0]] != 0)
            return Product(a, b, batch, rows, column, k)
    return None


def pack(weights: np.ndarray, tile: Tile, cpu: Processor) -> np.ndarray:
    """``[k, n]`` to the panels that the kernel reads, flat; a partial last panel is filled up with zeros."""
    k, n = weights.shape
    panels, start = [], 0
    for width in column_panels(n, tile, cpu):
        panel = np.zeros((k, width), weights.dtype)
        part = weights[:, start : start + width]
        panel[:, : part.shape[1]] = part
        panels.append(panel.reshape(-1))
        start += width
    return np.concatenate(panels)


def matrix_number(product: Product) -> Expr | None:
    """Which ``[k, n]`` matrix of ``right`` a batch index reads: an expression in the batch's variables.

    None unless ``right`` is such matrices, row-major, one behind the other, each read by one batch index.
    """
    _, k, n = product.sizes
    offset = offset_of(product.right)
    domain = Domain(dict([product.column, product.k, *product.rows, *product.batch]))
    steps = {var: domain.stride(offset, var) for var, _ in (product.k, *product.batch)}
    number, behind = index(0), k * n
    for var, extent in reversed(product.batch):
        if steps[var] != behind:
            return None
        number = var * index(behind // (k * n)) + number
        behind *= extent
    whole = int(np.prod(shape_of(product.right.source), dtype=np.int64)) == behind
    return number if whole and steps[product.k[0]] == n else None


def packed_size(k: int, n: int, tile: Tile, cpu: Processor) -> int:
    """Elements of the packed weights."""
    return k * sum(column_panels(n, tile, cpu))


def emit_product(
    product: Product,
    tile: Tile,
    cpu: Processor,
    flat: Callable[[Buffer], Buffer],
    packed: Buffer | None,
    epilogue: Callable[[Expr, dict[Any, Expr]], Stmt],
    simplify_with: Domain,
    scale: Buffer | None = None,
    matrix: Expr | None = None,
) -> Stmt:
    """The loops of one product.

    Args:
        flat: the flat buffer of an operand.
        packed: packed weights in place of the right operand, float32 or int8, or None.
        epilogue: ``(accumulated value, axis variable -> index)`` to the statement that stores one element.
        scale: with int8 weights, one factor per column.
        matrix: which of several packed matrices to read, one behind the other; the first by default.
    """
    m, k_extent, n = product.sizes
    packed_start = scale_start = index(0)
    if matrix is not None:
        packed_start = matrix * index(packed_size(k_extent, n, tile, cpu))
        scale_start = matrix * index(n)
    row = variable("row")
    simplify_with.bind(row, max(m, 1))
    row_map = _unravel(row, product.rows)
    left_offset = simplify_with.simplify(substitute(offset_of(product.left), row_map))
    right_offset = offset_of(product.right)
    left_buffer = flat(product.left.source)
    right_buffer = packed if packed is not None else flat(product.right.source)

    def one_tile(first_row: Expr, rows: int, first_column: Expr, columns: Sequence[int], base: Expr) -> Stmt:
        """``columns``: widths of the vectors, at most ``cpu.lanes`` each."""
        starts = [sum(columns[:i]) for i in range(len(columns))]
        width = sum(columns)
        # One small buffer per row: TVM moves local buffers beyond 1 KB to the heap.
        accumulators = [tirx.decl_buffer((width,), "float32", f"acc{r}", scope="local") for r in range(rows)]
        statements: list[Stmt] = [on_stack(each) for each in accumulators]
        slots = [ramp(index(start), lanes) for start, lanes in zip(starts, columns, strict=True)]
        for each in accumulators:
            for slot, lanes in zip(slots, columns, strict=True):
                statements.append(tirx.BufferStore(each, splat(constant(0.0), lanes), [slot]))

        def turn(k: Expr) -> Stmt:
            parts: list[Stmt] = []
            for r in range(rows):
                place = substitute(left_offset, {row: first_row + index(r), product.k[0]: k})
                value = tirx.BufferLoad(left_buffer, [place])
                for v, lanes in enumerate(columns):
                    if packed is not None:
                        start = base + k * index(width) + index(starts[v])
                    else:
                        column = first_column + index(starts[v])
                        start = substitute(right_offset, {product.k[0]: k, product.column[0]: column})
                    weight = tirx.BufferLoad(right_buffer, [ramp(start, lanes)])
                    if packed is not None and scale is not None:
                        weight = tirx.Cast("float32" if lanes == 1 else f"float32x{lanes}", weight)
                    old = tirx.BufferLoad(accumulators[r], [slots[v]])
                    parts.append(
                        tirx.BufferStore(accumulators[r], old + splat(value, lanes) * weight, [slots[v]])
                    )
            return sequence(parts)

        statements.append(loop(k_extent, turn, "k"))
        return sequence([*statements, *finish(accumulators, first_row, rows, first_column, columns)])

    def finish(
        accumulators: list[Buffer], first_row: Expr, rows: int, first_column: Expr, columns: Sequence[int]
    ) -> list[Stmt]:
        width = sum(columns)
        valid = width
        if packed is not None and isinstance(first_column, tirx.IntImm):
            valid = min(width, n - int(first_column))

        def element(r: int, position: Expr) -> Stmt:
            value = tirx.BufferLoad(accumulators[r], [position])
            column = first_column + position
            if scale is not None:
                value = value * tirx.BufferLoad(scale, [scale_start + column])
            axes = dict(_unravel(first_row + index(r), product.rows))
            axes[product.column[0]] = column
            return epilogue(value, axes)

        return [
            each for r in range(rows) for each in unrolled_vectors(0, valid, cpu.lanes, partial(element, r))
        ]

    def rows_of(first_column: Expr, columns: Sequence[int], base: Expr) -> Stmt:
        sizes = row_tiles(m, tile.rows)

        def tile_at(start: int, size: int, turn: Expr) -> Stmt:
            return one_tile(index(start) + turn * index(size), size, first_column, columns, base)

        parts, done = [], 0
        for size in sorted(set(sizes), reverse=True):
            count = sizes.count(size)
            parts.append(loop(count, partial(tile_at, done, size), "rows"))
            done += count * size
        return sequence(parts)

    def panel_at(column: int, width: int, turn: Expr) -> Stmt:
        vectors = [cpu.lanes] * (width // cpu.lanes) or [width]
        base = packed_start + index(k_extent * column) + turn * index(width * k_extent)
        return rows_of(index(column) + turn * index(width), vectors, base)

    whole = n // (tile.vectors * cpu.lanes)
    panels = column_panels(n, tile, cpu)
    if packed is None:
        # Nothing may be read beyond the operand: a partial vector is cut into powers of two.
        panels = _exact_panels(panels, n)
    statements, column, position = [], 0, 0
    while position < len(panels):
        width = panels[position]
        count = max(whole, 1) if position == 0 else 1
        statements.append(loop(count, partial(panel_at, column, width), "panel"))
        column += width * count
        position += count
    return sequence(statements)


def _exact_panels(panels: list[int], n: int) -> list[int]:
    """The last panel, where it is wider than what is left, in powers of two."""
    *whole, last = panels
    left = n - sum(whole)
    if last <= left:
        return panels
    return whole + [1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1]


def _unravel(flat_index: Expr, axes: Sequence[tuple[Any, int]]) -> dict[Any, Expr]:
    """Axis variable -> index, for a row-major flat index over ``axes``."""
    found: dict[Any, Expr] = {}
    rest = flat_index
    for position, (var, extent) in enumerate(reversed(axes)):
        last = position == len(axes) - 1
        found[var] = rest if last else tirx.FloorMod(rest, index(extent))
        rest = rest if last else tirx.FloorDiv(rest, index(extent))
    return found


def epilogue_of(block: Block, product_buffer: Buffer, axes: Sequence[Any]) -> tuple[Any, ...] | None:
    """The variables of ``block`` in the order of the product's axes, where it reads each element once."""
    reads = []

    def visit(node: Expr) -> None:
        if is_load(node) and node.source.same_as(product_buffer):
            reads.append(node)

    rewrite(block.value, visit)
    if block.reduction or len(block.spatial) != len(axes) or not reads:
        return None
    variables = tuple(var for var, _ in block.spatial)
    for load in reads:
        for place, var, (_, extent) in zip(load.indices, variables, block.spatial, strict=True):
            if not place.same_as(var) and extent != 1:
                return None
    return variables
