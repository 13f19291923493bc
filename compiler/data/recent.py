"""Rows in memory as a data set: what an updated artifact is checked and timed on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Windows
from .splits import Part, Splits

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RecentRows(Dataset):
    """Rows of which every part is all: nothing is held out, so nothing is measured on them."""

    def windows(self, part: Part, lookback: int, horizon: int) -> Windows:
        """All windows, whatever the part."""
        return Windows(self, "train", lookback, horizon)


def recent_rows(
    rows: Array, variates: Sequence[str], step: str | None, scale: Array, *, name: str, unmeasured: str
) -> RecentRows:
    """``rows [T, D]`` in their units, with ``scale [2, D]`` mean and deviation."""
    return RecentRows(
        name=name,
        sha256=hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest(),
        variates=tuple(variates),
        frequency=step,
        rows=len(rows),
        splits=Splits(len(rows), 0, 0),
        mean=scale[0],
        std=scale[1],
        values=rows,
        unmeasured=unmeasured,
    )
