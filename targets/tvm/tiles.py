"""The choice of register tiles for a processor.

A register tile holds ``rows x vectors`` accumulators.  Per turn of the k loop it issues
``rows * vectors`` multiply-adds, loads ``vectors`` vectors of the weights and broadcasts ``rows``
elements of the input.  Its time per turn is the largest of

    multiply-adds / pipes,   loads / load ports,   latency (one multiply-add must follow the previous one)

and a tile is worth its multiply-adds over that time.  The sum over all tiles of a product, whole and
partial ones, plus a fixed cost per tile, ranks the candidates.  A measured sweep may overrule the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..native.processor import Processor


@dataclass(frozen=True)
class Tile:
    """A register tile: ``rows`` rows of the output by ``vectors`` vector registers of columns."""

    rows: int
    vectors: int


TILE_OVERHEAD = 12.0
"""Cycles to start and finish a tile beyond its multiply-adds: clearing, epilogue, loop control."""


def fits(tile: Tile, cpu: Processor) -> bool:
    """Whether the accumulators, one row of weights and a broadcast stay in registers."""
    needed = tile.rows * tile.vectors + tile.vectors + (0 if cpu.broadcast_operand else 1)
    return needed <= cpu.registers


def turn_cycles(rows: int, vectors: int, cpu: Processor) -> float:
    """Cycles of one turn of the k loop."""
    fmas = rows * vectors
    loads = vectors + rows
    # A broadcast that is not part of the multiply-add takes an issue slot beside it.
    issue = (fmas + (0 if cpu.broadcast_operand else 0.25 * rows)) / cpu.pipes
    return max(issue, loads / cpu.loads, float(cpu.latency))


def row_tiles(m: int, rows: int) -> list[int]:
    """``m`` rows in the fewest tiles of at most ``rows``, as even as they can be; larger ones first."""
    count = -(-m // rows)
    base, extra = divmod(m, count)
    return [base + 1] * extra + [base] * (count - extra)


def column_panels(n: int, tile: Tile, cpu: Processor) -> list[int]:
    """Widths in columns: whole tiles, whole vectors, then a partial vector rounded up to a power of two."""
    width = tile.vectors * cpu.lanes
    panels = [width] * (n // width)
    rest = n % width
    if rest >= cpu.lanes:
        panels.append(rest // cpu.lanes * cpu.lanes)
        rest %= cpu.lanes
    if rest:
        panels.append(1 << (rest - 1).bit_length())
    return panels


def cycles(m: int, k: int, n: int, tile: Tile, cpu: Processor) -> float:
    """Estimated cycles of ``[m, k] x [k, n]``."""
    total = 0.0
    for columns in column_panels(n, tile, cpu):
        vectors = -(-columns // cpu.lanes)
        for rows in row_tiles(m, tile.rows):
            total += k * turn_cycles(rows, vectors, cpu) + TILE_OVERHEAD
    # Rows whose distance is a multiple of a cache way compete for the same few lines.
    if tile.rows > cpu.ways and k * 4 % (cpu.way_bytes // 2) == 0:
        total *= 1.3
    return total


def candidates(cpu: Processor, m: int, n: int) -> Iterator[Tile]:
    """Every tile that fits and is not larger than the product needs."""
    most = max(1, -(-n // cpu.lanes))
    for vectors in range(1, min(8, most) + 1):
        for rows in range(1, min(m, cpu.registers) + 1):
            tile = Tile(rows, vectors)
            if fits(tile, cpu):
                yield tile


def ranked(m: int, k: int, n: int, cpu: Processor) -> list[Tile]:
    """Candidates, best estimate first; ties go to fewer rows, which reads fewer streams at once."""
    return sorted(
        candidates(cpu, m, n), key=lambda tile: (round(cycles(m, k, n, tile, cpu)), tile.rows, tile.vectors)
    )


def choose(m: int, k: int, n: int, cpu: Processor) -> Tile:
    """The tile with the best estimate."""
    return ranked(m, k, n, cpu)[0]
