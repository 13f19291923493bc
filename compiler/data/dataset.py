"""A data set on disk and its windows.

Nothing here holds the series in memory: values are memory-mapped and a batch copies only its windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.spread import spread
from .scaling import Scaling
from .splits import Part, Splits, require_windows
from .timeline import Stamps, steps_per_season

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Filled:
    """What the stated policies made of a file: cells invented, rows merged, moved or left out.

    Attributes:
        cells: empty cells that were filled, those of rows for missing timestamps aside.
        rows: rows that were put in for missing timestamps.
        share: of all cells of the most filled variate, missing rows included.
        variate: that one.
        merged: rows that went into another one of their time.
        moved: rows that came after a later one and were put in order.
        trimmed: rows left out: at the start, until each variate has begun, at the end where all are empty.
        begun_by: the variate that begins last, empty where none begins late.
    """

    cells: int = 0
    rows: int = 0
    share: float = 0.0
    variate: str = ""
    merged: int = 0
    moved: int = 0
    trimmed: tuple[int, int] = (0, 0)
    begun_by: str = ""

    def sentences(self) -> list[str]:
        """Each of them that is not none, for a person."""
        start, end = self.trimmed
        return [
            text
            for count, text in (
                (
                    self.cells or self.rows,
                    f"filled {self.cells:,} empty cells and {self.rows:,} missing rows",
                ),
                (self.merged, f"merged {self.merged:,} rows into others of their time"),
                (self.moved, f"put {self.moved:,} rows in order"),
                (start, f"trimmed {start:,} rows at the start, before {self.begun_by!r} begins"),
                (end, f"trimmed {end:,} empty rows at the end"),
            )
            if count
        ]


NOTHING_FILLED = Filled()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A multivariate series with its splits and scaling.  T rows, D variates.

    Attributes:
        name: published name, or the file's name without suffixes.
        sha256: of the file's bytes, unpacked.
        variates: names of the D columns of ``values``.
        frequency: pandas offset alias of the step, or None for a file without timestamps.
        rows: T.
        splits: rows of train, val and test.
        mean: ``[D]`` mean of the train split.
        std: ``[D]`` population standard deviation of the train split, 1 for a constant variate.
        values: ``[T, D]`` memory-mapped, in the units of the file.
        timestamps: ``[T]`` memory-mapped, or None.
        filled: what was filled in, merged, moved and trimmed.
        reading: how the file was read, where not as usual, in one line.
        notes: remarks for the user, one line each.
        unmeasured: why no accuracy is measured on it, empty where the test split is real and unseen.
        known, past: names of columns that are read and not forecast: known ahead, and up to now.
        beside: ``[T, K]`` memory-mapped, the values of ``known`` and ``past`` in this order, in their units.
    """

    name: str
    sha256: str
    variates: tuple[str, ...]
    frequency: str | None
    rows: int
    splits: Splits
    mean: Array
    std: Array
    values: Array
    timestamps: Stamps | None = None
    filled: Filled = NOTHING_FILLED
    reading: str = ""
    notes: tuple[str, ...] = ()
    unmeasured: str = ""
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    beside: Array = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def overlap_name(self) -> str:
        """The key under which teacher cards say whether pre-training may have seen this data."""
        return self.name

    @property
    def scaling(self) -> Scaling:
        """From the units of the file to those of the model, and back."""
        return Scaling(self.mean, self.std)

    @property
    def seasonality(self) -> int:
        """Steps per season (24 for hours, 96 for 15 minutes, 7 for days, ...), 1 when unknown."""
        return steps_per_season(self.frequency)

    def windows(self, part: Part, lookback: int, horizon: int) -> Windows:
        """All windows of one part with stride 1 (LTSF convention).

        Raises:
            UsageError: lookback or horizon is not positive.
            DataError: some part has no such window.
        """
        require_windows(self.splits, self.name, lookback, horizon)
        return Windows(self, part, lookback, horizon)

    def __str__(self) -> str:
        text = (
            f"{self.name} sha256={self.sha256[:16]} rows={self.rows} variates={len(self.variates)} "
            f"freq={self.frequency or '?'} split={self.splits}"
        )
        if self.filled != NOTHING_FILLED:
            text += f" filled={self.filled.cells} cells, {self.filled.rows} rows"
        return f"{text} read={self.reading}" if self.reading else text


NO_DATA = Dataset("none", "", (), None, 0, Splits(0, 0, 0), np.empty(0), np.empty(0), np.empty((0, 0)))
"""Before any are loaded."""


def checked_windows(
    indices: Sequence[int] | npt.NDArray[np.integer] | Tensor, count: int, part: Part
) -> npt.NDArray[np.int64]:
    """``indices`` as an array.

    Raises:
        IndexError: one is outside ``0 ... count - 1``.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
        raise IndexError(f"window {chosen.min()}..{chosen.max()} of {count} {part} windows")
    return chosen


@dataclass(frozen=True, eq=False)
class Windows:
    """Scaled windows of one part: stride 1, none dropped.

    Window ``i`` looks at rows ``first + i ... first + i + L - 1`` and is to forecast the H rows after
    them; val and test windows may look back into the previous part, their futures never do.
    """

    data: Dataset
    part: Part
    lookback: int
    horizon: int

    @property
    def first(self) -> int:
        """Row where window 0 starts."""
        return self.data.splits.first_start(self.part, self.lookback)

    def __len__(self) -> int:
        return self.data.splits.window_count(self.part, self.lookback, self.horizon)

    def starts(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows where windows start."""
        return self.first + indices

    def batch(self, indices: Sequence[int] | npt.NDArray[np.integer] | Tensor) -> tuple[Tensor, Tensor]:
        """The windows ``indices`` in this order: past ``[B, D, L]`` and future ``[B, D, H]``, float32.

        Raises:
            IndexError: an index is outside ``0 ... len(self) - 1``.
        """
        import torch

        chosen = checked_windows(indices, len(self), self.part)
        span = self.lookback + self.horizon
        # [T - span + 1, D, span]: a view of the file; indexing copies the chosen windows alone.
        view = np.lib.stride_tricks.sliding_window_view(np.asarray(self.data.values), span, axis=0)
        scaled = self.data.scaling.scale(view[self.starts(chosen)])
        window = torch.from_numpy(scaled.astype(np.float32))
        return window[..., : self.lookback].contiguous(), window[..., self.lookback :].contiguous()

    def spread(self, count: int) -> npt.NDArray[np.float32]:
        """The pasts of ``count`` windows spread evenly over the part, repeated where it is shorter:
        ``[count, D, L]``."""
        past, _ = self.batch(spread(len(self), count))
        pasts: npt.NDArray[np.float32] = past.numpy()
        return pasts


class SpreadWindows:
    """At most ``limit`` windows of a part, evenly spread over it; all of them for ``limit = 0``."""

    def __init__(self, windows: Windows, limit: int) -> None:
        count = min(limit, len(windows)) if limit else len(windows)
        self.windows = windows
        self.chosen = spread(len(windows), count)

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.integer] | Tensor) -> tuple[Tensor, Tensor]:
        """The windows at ``indices`` of the chosen ones: past ``[B, D, L]`` and future ``[B, D, H]``."""
        return self.windows.batch(self.chosen[np.asarray(indices, dtype=np.int64)])
