"""First pass over a panel: sums over the windows of all items together, in float64.

The Gram of the windows of one series is a Hankel product (``statistics.py``), and so is a sum of such
products over series of any length:

    K[0, j] = sum_i corr_i(j)          K[a+1, b+1] = K[a, b] + sum_i e_i[a] e_i[b] - s_i[a] s_i[b]

with ``s_i`` and ``e_i`` the rows at the start and after the end of item i's windows.  So one recursion serves
all items, and an item costs its correlations and a row of two matrix products.

A teacher that has labelled a sample of the windows is met by the regression estimator of survey sampling:
on the sample its labels, on the other windows what its own linear student says, fitted on the sample,

    T = T_S + (G - G_S) W_T          W_T = (G_S + ridge)^-1 T_S

which is the sum over all labels where all windows are labelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data import Panel
from ..data.array_file import release
from ..data.panel import Places
from .affine import DEFAULT_RIDGE, factor
from .pieces import CHUNK_WINDOWS, Array
from .statistics import (
    LOST_DIGITS,
    Fold,
    Sums,
    along_diagonals,
    centred,
    hankel_sums,
    window_products,
    window_sums,
)

TEACHER = "teacher"
ITEMS_AT_ONCE = 256


@dataclass(frozen=True)
class Stretch:
    """Windows of every item whose future starts at ``low <= step < high`` and ends by ``until``."""

    low: int
    high: int
    until: int


@dataclass(frozen=True)
class Origin:
    """A fold: what is added to the windows that it is fitted on, and what it is judged on."""

    name: str
    more: Stretch
    judged: Stretch


def origins(panel: Panel, lookback: int, horizon: int, blocks: int) -> list[Origin]:
    """The folds in the order of time, the validation split the last; alone where blocks are too short."""
    train, (begin, end) = panel.splits.train, panel.splits.span("val")
    count = train - horizon + 1 - lookback
    edges = [lookback + count * block // blocks for block in range(blocks + 1)]
    found: list[Origin] = []
    fitted = 0
    if min(b - a for a, b in zip(edges, edges[1:])) > horizon:  # noqa: B905, RUF007
        for block in range(2, blocks):
            until = edges[block] - horizon + 1
            judged = Stretch(edges[block], edges[block + 1], train)
            found.append(Origin(f"block {block}", Stretch(fitted, until, train), judged))
            fitted = until
    found.append(Origin("validation", Stretch(fitted, train, train), Stretch(begin, end, end)))
    return found


def pooled_sums(panel: Panel, stretch: Stretch, lookback: int, horizon: int) -> Sums:
    """Sums of the truth over the windows of all items in a stretch: ``D = 1``."""
    span = lookback + horizon
    rows, counts = panel.between(stretch.low, stretch.high, lookback, stretch.until, horizon)
    first, step = np.zeros(span), np.zeros((span - 1, span - 1))
    there = np.flatnonzero(counts)
    for at in range(0, len(there), ITEMS_AT_ONCE):
        chunk = there[at : at + ITEMS_AT_ONCE]
        starts, ends = np.empty((len(chunk), span - 1)), np.empty((len(chunk), span - 1))
        for place, item in enumerate(chunk):
            count = int(counts[item])
            values = _level_free(panel, int(item), int(rows[item]), count + span - 1)
            first += np.correlate(values, values[:count], mode="valid")
            starts[place], ends[place] = values[: span - 1], values[count:]
        step += ends.T @ ends - starts.T @ starts
        release(panel.values)
    products = along_diagonals(first, step)
    gram, cross, square = centred(products, lookback)
    if np.trace(products[:lookback, :lookback]) > LOST_DIGITS * float(gram.trace()):
        parts = [
            window_products(
                _level_free(panel, int(i), int(rows[i]), int(counts[i]) + span - 1), lookback, horizon
            )
            for i in there
        ]
        gram, cross, square = (torch.stack(list(each)).sum(0) for each in zip(*parts, strict=True))
    return Sums(int(counts.sum()), gram[None], {"truth": cross[None]}, {"truth": square[None]})


def item_sums(panel: Panel, item: int, stretch: Stretch, lookback: int, horizon: int) -> Sums | None:
    """The same of one item; None where it has no window there."""
    rows, counts = panel.between(stretch.low, stretch.high, lookback, stretch.until, horizon)
    count = int(counts[item])
    if not count:
        return None
    values = panel.scaled(item, int(rows[item]), int(rows[item]) + count + lookback + horizon - 1)
    return hankel_sums(values[:, None], lookback, horizon)


def _level_free(panel: Panel, item: int, first: int, length: int) -> Array:
    """Rows less their level, on which centred sums do not depend; exactly zero where they are constant."""
    values = panel.scaled(item, first, first + length)
    values -= values[0]
    values -= values.mean()
    return values


@dataclass(frozen=True, eq=False)
class Sample:
    """Training windows that a teacher has labelled.

    Attributes:
        items, rows: ``[n]`` item and first row of each.
        labels: ``[n, H]``, scaled as the item.
    """

    items: Places
    rows: Places
    labels: npt.NDArray[np.float32]

    def sums(self, panel: Panel, stretch: Stretch, lookback: int) -> Sums | None:
        """Sums of the labelled windows of a stretch."""
        future = panel.starts[self.items] + self.rows - panel.begins[self.items] + lookback
        inside = np.flatnonzero((future >= stretch.low) & (future < stretch.high))
        total: Sums | None = None
        for at in range(0, len(inside), CHUNK_WINDOWS):
            chunk = inside[at : at + CHUNK_WINDOWS]
            raw = np.asarray(panel.values)[self.rows[chunk][:, None] + np.arange(lookback), 0]
            mean, std = panel.scales[self.items[chunk]].T[..., None]
            past = torch.from_numpy((raw - mean) / std)[:, None]
            sums = window_sums(past, torch.from_numpy(self.labels[chunk])[:, None], TEACHER)
            total = sums if total is None else total + sums
        return total


class FleetFolds:
    """The folds of all items pooled, for ``rolling_origin.select``; afterwards what all of training gave.

    With one fold, the validation split, it is judged group by group of items: ``groups`` folds of one period.

    Attributes:
        pooled: sums of all of training, once ``folds`` is through.
        taught: ``[L, H]`` the teacher's own linear student ``W_T``, or None.
    """

    def __init__(
        self,
        panel: Panel,
        lookback: int,
        horizon: int,
        found: list[Origin],
        sample: Sample | None,
        groups: int,
    ) -> None:
        self.panel, self.size, self.origins, self.sample = panel, (lookback, horizon), found, sample
        self.groups = [np.arange(len(panel.ids))[start::groups] for start in range(groups)]
        self.pooled: Sums | None = None
        self.taught: Tensor | None = None

    def folds(self) -> Iterator[Fold]:
        """In the order of time."""
        total: Sums | None = None
        labelled: Sums | None = None
        for origin in self.origins:
            more = pooled_sums(self.panel, origin.more, *self.size)
            total = more if total is None else total + more
            if self.sample is not None:
                few = self.sample.sums(self.panel, origin.more, self.size[0])
                labelled = few if labelled is None else labelled if few is None else labelled + few
            fit = self._with_teacher(total, labelled)
            if len(self.origins) > 1:
                yield Fold(origin.name, fit, pooled_sums(self.panel, origin.judged, *self.size))
            else:
                for number, group in enumerate(self.groups):
                    judged = pooled_sums(self.panel.subset(group), origin.judged, *self.size)
                    yield Fold(f"validation of items {number}", fit, judged)
            self.pooled = fit

    def _with_teacher(self, total: Sums, labelled: Sums | None) -> Sums:
        if self.sample is None:
            return total
        if labelled is None:  # no label before this origin: the teacher says nothing else than the truth
            cross = total.cross["truth"]
        else:
            lower = factor(labelled.gram[0], DEFAULT_RIDGE / labelled.count)
            self.taught = torch.cholesky_solve(labelled.cross[TEACHER][0], lower)
            rest = (total.gram - labelled.gram) @ self.taught
            cross = labelled.cross[TEACHER] + rest
        return Sums(
            total.count,
            total.gram,
            {**total.cross, TEACHER: cross},
            {**total.square, TEACHER: torch.zeros_like(total.square["truth"])},
        )
