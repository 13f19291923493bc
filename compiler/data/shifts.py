"""Level shifts: where a series goes on at another level than it came from, told from drift and from noise.

Means of blocks of one season are taken, so that no cycle shows.  At each border the medians of some blocks on
either side are compared: a shift is a difference of at least ``_SIZE`` standard deviations of the series and
``_SCORE`` times the scatter of those blocks, most of which happens within three blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_SIZE, _SCORE, _SUDDEN = 0.75, 5.0, 0.7
_FEWEST_BLOCKS = 20


@dataclass(frozen=True)
class Shift:
    """A change of level at a row, in standard deviations of the variate."""

    row: int
    size: float


def level_shifts(means: Array, block: int, deviation: float, most: int = 3) -> list[Shift]:
    """The shifts of a series by the means ``[N]`` of its blocks of ``block`` rows, the largest first."""
    if len(means) < _FEWEST_BLOCKS or deviation <= 0:
        return []
    width = max(5, len(means) // 20)
    sides = np.lib.stride_tricks.sliding_window_view(means, width)  # [N - width + 1, width]
    medians = np.median(sides, axis=1)
    scatter = 1.4826 * np.median(np.abs(sides - medians[:, None]), axis=1)
    borders = np.arange(width, len(means) - width + 1)
    jumps = medians[borders] - medians[borders - width]
    noise = np.maximum((scatter[borders] + scatter[borders - width]) / 2, 1e-9 * deviation)
    near = np.array([np.median(means[b : b + 3]) - np.median(means[b - 3 : b]) for b in borders])
    stands_out = (
        (np.abs(jumps) >= _SIZE * deviation)
        & (np.abs(jumps) >= _SCORE * noise)
        & (near * np.sign(jumps) >= _SUDDEN * np.abs(jumps))
    )
    # Of neighbouring borders the one with the largest step from block to block is the place.
    steps = np.abs(means[borders] - means[borders - 1])
    found: list[Shift] = []
    for at in sorted(np.flatnonzero(stands_out), key=lambda at: -steps[at]):
        row = int(borders[at]) * block
        if all(abs(row - other.row) > width * block for other in found):
            found.append(Shift(row, float(jumps[at] / deviation)))
    return sorted(found, key=lambda shift: -abs(shift.size))[:most]
