"""One block of memory for all intermediate values, planned by liveness.

The block is the caller's scratch memory.  A value lives from the step that writes it to the last step that
reads it; the input and the output have memory of their own.  Values are placed largest first at the lowest
offset where no placed value that lives at the same time overlaps: the usual greedy plan, within a few percent
of the optimum on straight-line programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .program import Program

ALIGNMENT = 64
"""Bytes; kernels may use aligned vector loads."""


@dataclass(frozen=True)
class Arena:
    """Byte offset of each value (absent where a value is never used), and the total."""

    offsets: dict[int, int]
    size_bytes: int


def size_of(program: Program, value: int) -> int:
    """Bytes of a value, rounded up to the alignment."""
    each = program.values[value]
    size = each.size * np.dtype(each.dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def lifetimes(program: Program) -> dict[int, tuple[int, int]]:
    """Value -> (first step, last step), both included."""
    found: dict[int, tuple[int, int]] = {program.input: (0, 0)}
    for position, step in enumerate(program.steps):
        for operand in step.operands:
            if operand.value is not None:
                first, _ = found.get(operand.value, (position, position))
                found[operand.value] = (first, position)
    found[program.output] = (found[program.output][0], len(program.steps))
    return found


def plan(program: Program) -> Arena:
    """Places every value."""
    outside = (program.input, program.output)
    lives = {value: life for value, life in lifetimes(program).items() if value not in outside}
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets: dict[int, int] = {}
    for value in sorted(lives, key=lambda each: (-size_of(program, each), each)):
        size, (first, last) = size_of(program, value), lives[value]
        taken = sorted((start, end) for start, end, (born, died) in placed if born <= last and first <= died)
        offset = 0
        for start, end in taken:
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[value] = offset
        placed.append((offset, offset + size, (first, last)))
    return Arena(offsets, max((end for _, end, _ in placed), default=0))
