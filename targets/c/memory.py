"""One block of scratch memory for all intermediate values, planned by liveness.

A value lives from the step that writes it to the last step that reads it.  Values are placed largest first
at the lowest offset where nothing that lives at the same time overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .steps import Step

ALIGNMENT = 16
"""Elements: 64 bytes, a vector of the widest processors."""


def plan(steps: Sequence[Step], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Offset of every block of ``sizes`` and the total, in elements."""
    lives: dict[str, tuple[int, int]] = {}
    for position, step in enumerate(steps):
        for view in (step.out, *step.reads()):
            if view.block in sizes:
                first, _ = lives.get(view.block, (position, position))
                lives[view.block] = (first, position)
    offsets: dict[str, int] = {}
    for block in sorted(lives, key=lambda name: (-sizes[name], lives[name], name)):
        first, last = lives[block]
        taken = sorted(
            (offsets[other], offsets[other] + _rounded(sizes[other]))
            for other in offsets
            if lives[other][0] <= last and lives[other][1] >= first
        )
        offset = 0
        for start, end in taken:
            if offset + _rounded(sizes[block]) <= start:
                break
            offset = max(offset, end)
        offsets[block] = offset
    total = max((offsets[block] + _rounded(sizes[block]) for block in offsets), default=0)
    return offsets, total


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
