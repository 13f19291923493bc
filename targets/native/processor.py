"""A processor as a choice of kernels sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """What the tile choice needs to know.

    Attributes:
        lanes: float32 lanes of a vector register; 1 where there are none.
        registers: architectural vector registers.
        pipes: vector multiply-adds started per cycle.
        loads: vector loads per cycle.
        latency: cycles until a multiply-add's result can be added to.
        broadcast_operand: whether a multiply-add broadcasts a scalar from memory or a lane by itself.
        way_bytes: size of one way of the first-level cache; rows at a multiple of it evict each other.
    """

    lanes: int
    registers: int
    pipes: float
    loads: float
    latency: int
    broadcast_operand: bool = False
    way_bytes: int = 4096
    ways: int = 8
