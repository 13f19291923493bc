"""A panel: many series of different length and start, as one data set of windows of one series each.

    values   [sum T_i, 1]   all series one after the other, memory-mapped, in their own units
    item i   rows begins[i] .. ends[i]-1, whose first row stands at step ``starts[i]`` of the calendar

Every series is scaled by the mean and deviation of its own training rows.  The calendar is the common time
axis of all series, and the splits are stretches of it: what is judged lies after what is learnt from, for
every series alike.  So a panel has one variate, and a window ``[1, L]`` belongs to one item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError, UsageError
from ..base.spread import spread
from .dataset import Array, Dataset, Windows, checked_windows
from .splits import PARTS, Part

if TYPE_CHECKING:
    from torch import Tensor

Places = npt.NDArray[np.int64]
MOST_JUDGED = 100_000
"""Windows of the validation and of the test part, evenly spread over all items: with more of them an error
is not known any better, since those of one item are alike."""


@dataclass(frozen=True)
class PanelColumns:
    """The columns of the long format: one row a series and time."""

    id: str
    time: str
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Panel(Dataset):
    """N items.

    Attributes:
        ids: ``[N]`` names of the items; with several value columns ``id/column``.
        begins, ends: ``[N]`` rows of ``values``.
        starts: ``[N]`` steps of the calendar at which the items start.
        scales: ``[N, 2]`` mean and deviation of the training rows, the deviation 1 for a constant item.
        first: the time of step 0 of the calendar.
        columns: of the source.
        held: the items that were kept out of everything, to be judged at the end.
    """

    ids: tuple[str, ...] = ()
    begins: Places = None  # type: ignore[assignment]
    ends: Places = None  # type: ignore[assignment]
    starts: Places = None  # type: ignore[assignment]
    scales: Array = None  # type: ignore[assignment]
    first: np.datetime64 | None = None
    columns: PanelColumns = PanelColumns("", "", ())
    held: Panel | None = None

    def windows(self, part: Part, lookback: int, horizon: int) -> PanelWindows:
        """All windows of one part, item by item; of validation and test at most ``MOST_JUDGED``, spread.

        Raises:
            UsageError: lookback or horizon is not positive.
            DataError: some part has no such window.
        """
        if lookback < 1 or horizon < 1:
            raise UsageError(f"lookback {lookback} and horizon {horizon} must be positive")
        for each in PARTS:
            if not self.futures(each, lookback, horizon)[1].sum():
                raise DataError(
                    f"{self.name}: no item has a window of {lookback} + {horizon} steps in the {each} part "
                    f"of the calendar, {self.splits.span(each)[1] - self.splits.span(each)[0]} steps long",
                    hint="use a shorter lookback or horizon, or another split",
                )
        return PanelWindows(self, part, lookback, horizon)

    def futures(self, part: Part, lookback: int, horizon: int) -> tuple[Places, Places]:
        """Row of each item at which its first future in ``part`` starts, and how many there are: ``[N]``."""
        begin, end = self.splits.span(part)
        return self.between(begin, end - horizon + 1, lookback, end, horizon)

    def between(self, low: int, high: int, lookback: int, until: int, horizon: int) -> tuple[Places, Places]:
        """The windows whose future starts at ``low <= step < high`` of the calendar, ending before ``until``.

        Returns:
            the first row ``[N]`` of each item's first window, and how many windows it has.
        """
        length = self.ends - self.begins
        begin = np.maximum(low - self.starts, lookback)
        end = np.minimum(np.minimum(high, until - horizon + 1) - self.starts, length - horizon + 1)
        return self.begins + begin - lookback, np.maximum(end - begin, 0)

    def scaled(self, item: int, first: int, last: int) -> Array:
        """Rows ``first .. last-1`` of ``values``, which are rows of ``item``, scaled: ``[last - first]``."""
        mean, std = self.scales[item]
        rows: Array = (np.asarray(self.values[first:last, 0], dtype=np.float64) - mean) / std
        return rows

    def subset(self, items: Sequence[int] | Places) -> Panel:
        """The panel of some of the items, over the same values and the same calendar."""
        chosen = np.asarray(items, dtype=np.int64)
        return replace(
            self,
            ids=tuple(self.ids[item] for item in chosen),
            begins=self.begins[chosen],
            ends=self.ends[chosen],
            starts=self.starts[chosen],
            scales=self.scales[chosen],
            rows=int((self.ends - self.begins)[chosen].sum()),
        )

    def seasonal_change(self) -> Array:
        """``[1]`` mean absolute seasonal difference of the training rows of all items, scaled."""
        total, count, season = 0.0, 0, self.seasonality
        for item, (begin, end, start) in enumerate(zip(self.begins, self.ends, self.starts, strict=True)):
            stop = min(int(end), int(begin) + max(0, self.splits.train - int(start)))
            if stop - begin > season:
                rows = self.scaled(item, int(begin), stop)
                total += float(np.abs(rows[season:] - rows[:-season]).sum())
                count += len(rows) - season
        return np.array([total / max(count, 1)])

    def __str__(self) -> str:
        return (
            f"{self.name} sha256={self.sha256[:16]} items={len(self.ids)} rows={self.rows} "
            f"freq={self.frequency or '?'} split={self.splits} "
            f"held_out={0 if self.held is None else len(self.held.ids)}"
        )


@dataclass(frozen=True, eq=False)
class PanelWindows(Windows):
    """Windows ``[1, L]`` of the items of a panel, one item after the other, each in the order of time."""

    data: Panel

    @cached_property
    def _rows(self) -> Places:
        """Row of each item's first window."""
        return self.data.futures(self.part, self.lookback, self.horizon)[0]

    @cached_property
    def _before(self) -> Places:
        """``[N + 1]`` windows of the items before each, and of all."""
        counts = self.data.futures(self.part, self.lookback, self.horizon)[1]
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def _chosen(self) -> Places | None:
        total = int(self._before[-1])
        most = total if self.part == "train" else MOST_JUDGED
        return spread(total, most) if most < total else None

    @property
    def first(self) -> int:
        """There is no one row where window 0 starts that others follow from."""
        return 0

    def __len__(self) -> int:
        return int(self._before[-1]) if self._chosen is None else len(self._chosen)

    def items(self, indices: Sequence[int] | Places) -> Places:
        """The items that windows belong to."""
        return self._place(np.asarray(indices, dtype=np.int64))[0]

    def starts(self, indices: Places) -> Places:
        """Rows of ``values`` where windows start."""
        return self._place(indices)[1]

    def batch(self, indices: Sequence[int] | npt.NDArray[np.integer] | Tensor) -> tuple[Tensor, Tensor]:
        """The windows ``indices`` in this order: past ``[B, 1, L]`` and future ``[B, 1, H]``, float32.

        Raises:
            IndexError: an index is outside ``0 ... len(self) - 1``.
        """
        import torch

        chosen = checked_windows(indices, len(self), self.part)
        items, rows = self._place(chosen)
        span = np.arange(self.lookback + self.horizon)
        raw = np.asarray(self.data.values)[rows[:, None] + span, 0]
        mean, std = self.data.scales[items].T
        window = torch.from_numpy(((raw - mean[:, None]) / std[:, None]).astype(np.float32))[:, None]
        return window[..., : self.lookback].contiguous(), window[..., self.lookback :].contiguous()

    def _place(self, indices: Places) -> tuple[Places, Places]:
        """Item and first row of windows."""
        if self._chosen is not None:
            indices = self._chosen[indices]
        items = np.searchsorted(self._before, indices, side="right") - 1
        return items, self._rows[items] + indices - self._before[items]
