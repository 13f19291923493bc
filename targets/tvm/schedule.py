"""From a legalised, fused PrimFunc to a kernel for one processor.

    read -> inline -> for each block: matrix product (with the block after it as epilogue), reduction,
    or elementwise loops -> one PrimFunc over flat buffers

A kernel's arguments are described, so that the caller can pack weights and plan scratch memory: no
kernel allocates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tvm import tirx

from ..native.processor import Processor
from .blocks import Block, Function, element_count, element_type, inline, read_function
from .loops import emit_reduction, emit_spatial, flatten, resolve_conditions
from .mathfun import expand
from .matmul import Product, emit_product, epilogue_of, matrix_number, packed_size, recognise
from .tiles import Tile, choose
from .tir import (
    Buffer,
    Domain,
    Expr,
    Stmt,
    flat_offset,
    index,
    is_load,
    loads_in,
    rewrite,
    sequence,
    shape_of,
    substitute,
    variable,
)

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel.

    Attributes:
        role: ``input`` (argument ``source`` of the call as it is), ``packed`` (that argument, a constant
            ``[..., k, n]``, packed for ``tile``), ``scale`` (its per-column factors), ``scratch`` or
            ``output`` (output number ``source``).
        size: elements.
        matrices: how many ``[k, n]`` matrices a packed constant holds.
    """

    role: Literal["input", "packed", "scale", "scratch", "output"]
    source: int
    size: int
    dtype: str
    tile: Tile | None = None
    matrices: int = 1


@dataclass(frozen=True)
class Kernel:
    """A scheduled PrimFunc and its arguments in order.

    Attributes:
        products: (m, k, n) of its matrix products and the tile of each.
    """

    name: str
    func: Any
    arguments: tuple[Argument, ...]
    products: tuple[tuple[Sizes, Tile], ...]


@dataclass(frozen=True)
class Choices:
    """What a schedule may be told: the processor, tiles that a measurement chose, and weight precision."""

    processor: Processor
    tiles: Mapping[Sizes, Tile]
    int8_weights: bool = False

    def tile(self, sizes: Sizes) -> Tile:
        """The measured tile of a product, or the estimate's."""
        return self.tiles.get(sizes) or choose(*sizes, self.processor)


def schedule(name: str, func: Any, constants: Sequence[bool], outputs: int, choices: Choices) -> Kernel:
    """Schedules one function.

    Args:
        constants: for each input, whether every call passes a constant.
        outputs: how many of the last parameters are outputs.

    Raises:
        Unsupported: a construct that the emitters do not know.
    """
    function = inline(read_function(name, func))
    return _Scheduler(function, constants, outputs, choices).kernel()


class _Scheduler:
    def __init__(self, function: Function, constants: Sequence[bool], outputs: int, choices: Choices) -> None:
        self.function, self.choices, self.outputs = function, choices, outputs
        self.inputs = len(function.params) - outputs
        self.constants = constants
        self.flat_buffers: dict[Any, Buffer] = {}
        self.packed: dict[int, tuple[Buffer, Buffer | None, Tile, int]] = {}
        self.products: list[tuple[Sizes, Tile]] = []

    def flat(self, buffer: Buffer) -> Buffer:
        """The one-dimensional stand-in of a buffer."""
        found = self.flat_buffers.get(buffer)
        if found is None:
            found = tirx.decl_buffer(
                # Element alignment: a caller's arrays are read and written where they lie.
                (element_count(buffer),),
                element_type(buffer),
                buffer.name,
                data_alignment=4,
            )
            self.flat_buffers[buffer] = found
        return found

    def kernel(self) -> Kernel:
        statements: list[Stmt] = []
        blocks = list(self.function.blocks)
        position = 0
        while position < len(blocks):
            block = blocks[position]
            product = recognise(block)
            if product is not None:
                following = blocks[position + 1] if position + 1 < len(blocks) else None
                statement, used = self.product(block, product, following, blocks[position + 2 :])
                statements.append(statement)
                position += used
                continue
            lanes = self.choices.processor.lanes
            emit = emit_reduction if block.reduction else emit_spatial
            statements.append(emit(block, self.flat, lanes))
            position += 1
        return self.finish(statements)

    def product(
        self, block: Block, product: Product, following: Block | None, later: Sequence[Block]
    ) -> tuple[Stmt, int]:
        """A matrix product, with the block that follows it as epilogue where that reads it alone."""
        variables = [var for var, _ in block.spatial]
        fused = None
        is_scratch = any(block.buffer.same_as(each) for each in self.function.scratch)
        if following is not None and is_scratch and not any(_reads(each, block.buffer) for each in later):
            fused = epilogue_of(following, block.buffer, variables)
            if fused is not None and shape_of(following.buffer) != shape_of(block.buffer):
                fused = None
        last = following if fused is not None and following is not None else block
        tile = self.choices.tile(product.sizes)
        self.products.append((product.sizes, tile))
        packed, scale = self.pack_argument(product, tile)

        batch_vars = {var: variable(f"batch{i}") for i, (var, _) in enumerate(product.batch)}
        units = [var for var, size in (*block.spatial, *block.reduced) if size == 1]
        kept = (product.column[0], product.k[0])
        moves = batch_vars | {var: index(0) for var in units if not any(var.same_as(each) for each in kept)}
        domain = Domain({batch_vars[var]: extent for var, extent in product.batch})
        moved = replace(product, left=_moved(product.left, moves), right=_moved(product.right, moves))

        def epilogue(value: Expr, axes: dict[Any, Expr]) -> Stmt:
            places = {**axes, **batch_vars}
            # Axes of extent one belong to neither rows nor columns.
            places |= {var: index(0) for var in variables if var not in places}
            if fused is not None:
                by_axis = {mine: places[theirs] for mine, theirs in zip(fused, variables, strict=True)}
                stored = self.with_product(last.value, block.buffer, value, by_axis, domain)
            else:
                by_axis, stored = places, value
            offset = flat_offset(shape_of(last.buffer), [substitute(each, by_axis) for each in last.indices])
            return tirx.BufferStore(self.flat(last.buffer), stored, [domain.simplify(offset)])

        number = matrix_number(product) if packed is not None and product.batch else None
        matrix = None if number is None else substitute(number, batch_vars)
        body = emit_product(
            moved, tile, self.choices.processor, self.flat, packed, epilogue, domain, scale, matrix
        )
        for var, extent in reversed(product.batch):
            body = tirx.For(batch_vars[var], index(0), index(extent), tirx.ForKind.SERIAL, body)
        return body, 2 if fused is not None else 1

    def with_product(
        self, value: Expr, buffer: Buffer, product: Expr, places: dict[Any, Expr], domain: Domain
    ) -> Expr:
        """The epilogue's expression with the accumulated element in place of its read."""
        element = tirx.Var("element", "float32")

        def replace(node: Expr) -> Expr | None:
            return element if is_load(node) and node.source.same_as(buffer) else None

        expression = substitute(rewrite(value, replace), places)
        expression = expand(flatten(resolve_conditions(expression, domain), self.flat, domain))
        return tirx.Let(element, product, expression)

    def pack_argument(self, product: Product, tile: Tile) -> tuple[Buffer | None, Buffer | None]:
        """Buffers of the packed weights and their scales, when the right operand is constant."""
        source = product.right.source
        place = next((i for i, each in enumerate(self.function.params) if each.same_as(source)), None)
        if place is None or place >= self.inputs or not self.constants[place]:
            return None, None
        # Only plain [k, n] matrices are packed, read in no other place.
        readers = sum(_reads(each, source) for each in self.function.blocks)
        if matrix_number(product) is None or readers != 1 or len(shape_of(source)) < 2:
            return None, None
        _, k, n = product.sizes
        matrices = element_count(source) // (k * n)
        size = matrices * packed_size(k, n, tile, self.choices.processor)
        int8 = self.choices.int8_weights
        packed = tirx.decl_buffer((size,), "int8" if int8 else "float32", f"packed{place}")
        scale = tirx.decl_buffer((matrices * n,), "float32", f"scale{place}") if int8 else None
        self.packed[place] = (packed, scale, tile, matrices)
        return packed, scale

    def finish(self, statements: list[Stmt]) -> Kernel:
        """The PrimFunc over the flat buffers, and what its parameters are."""
        buffers: list[Buffer] = []
        arguments: list[Argument] = []

        def add(
            buffer: Buffer,
            role: Any,
            source: int,
            size: int,
            dtype: str,
            tile: Tile | None = None,
            matrices: int = 1,
        ) -> None:
            buffers.append(buffer)
            arguments.append(Argument(role, source, size, dtype, tile, matrices))

        for place, param in enumerate(self.function.params[: self.inputs]):
            if place in self.packed:
                packed, scale, tile, matrices = self.packed[place]
                add(packed, "packed", place, _size(packed), element_type(packed), tile, matrices)
                if scale is not None:
                    add(scale, "scale", place, _size(scale), "float32", None, matrices)
            elif any(_reads(block, param) for block in self.function.blocks):
                add(self.flat(param), "input", place, element_count(param), element_type(param))
        for number, buffer in enumerate(self.function.scratch):
            if buffer in self.flat_buffers:
                add(self.flat(buffer), "scratch", number, element_count(buffer), element_type(buffer))
        for number, param in enumerate(self.function.params[self.inputs :]):
            add(self.flat(param), "output", number, element_count(param), element_type(param))
        func = tirx.PrimFunc(buffers, sequence(statements)).with_attr(
            {
                "global_symbol": self.function.name,
                "tirx.noalias": True,
                "s_tir": True,
                "tirx.is_scheduled": True,
            }
        )
        return Kernel(self.function.name, func, tuple(arguments), tuple(self.products))


def _size(buffer: Buffer) -> int:
    return int(buffer.shape[0])


def _moved(load: Expr, mapping: Mapping[Any, Expr]) -> Expr:
    return tirx.BufferLoad(load.source, [substitute(each, mapping) for each in load.indices])


def _reads(block: Block, buffer: Buffer) -> bool:
    return any(load.source.same_as(buffer) for load in loads_in(block.value))
