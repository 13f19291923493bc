"""Second pass over a panel: what each item's head is solved from, a few thousand numbers an item.

With the shared basis ``A [K, L]`` the embedding of a window is ``z = A (x - m)``, and a head ``C [H, r]`` on
its first r numbers needs of an item, for every fold,

    S = sum z z^T [K, K]      C = sum z (target - m)^T [K, H]      to be fitted
    S, C of the truth, and q = sum (y - m)^2 [H]                   to be judged

The basis is white in the windows of all items together, so these sums are well-conditioned: added up in
float64, they are kept in float32.  They lie in a memory-mapped file, so memory does not grow with the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.progress import Task
from ..data import Panel
from ..data.array_file import release
from .fleet_sums import ITEMS_AT_ONCE, Origin, Sample, Stretch
from .pieces import CHUNK_WINDOWS, Array

KINDS = ("fit", "judged")


@dataclass(frozen=True)
class Targets:
    """What is fitted: at every step ahead a share of the truth and a share of the teacher, together 1.

    Attributes:
        truth, teacher: ``[H]``.
        taught: ``[L, H]`` what the teacher is taken to say of a window without a label, or None.
        sample: its labels.
    """

    truth: Array
    teacher: Array
    taught: Array | None = None
    sample: Sample | None = None


@dataclass(frozen=True)
class Few:
    """The sums of some items in one fold, float64.

    Attributes:
        count: ``[M]`` windows.
        gram: ``[M, K, K]``; ``cross`` ``[M, K, H]``; ``square`` ``[M]``, of the truth, zero where not judged.
    """

    count: Tensor
    gram: Tensor
    cross: Tensor
    square: Tensor

    def total(self) -> Few:
        """All items as one."""
        return Few(
            self.count.sum()[None], self.gram.sum(0)[None], self.cross.sum(0)[None], self.square.sum()[None]
        )

    def of(self, rows: Tensor) -> Few:
        """Some of them."""
        return Few(self.count[rows], self.gram[rows], self.cross[rows], self.square[rows])

    def __add__(self, other: Few) -> Few:
        return Few(
            self.count + other.count,
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
        )


class ItemSums:
    """Sums of every item of a panel, fold by fold, in ``folder``.

    Attributes:
        fleet: fold -> the sums of all items that a fit may lean on, exact.
    """

    def __init__(
        self,
        folder: Path,
        panel: Panel,
        basis: Tensor,
        horizon: int,
        origins: Sequence[Origin],
        targets: Targets,
        task: Task,
    ) -> None:
        self.panel, self.items, self.origins = panel, len(panel.ids), list(origins)
        self._basis, self._targets = basis.numpy(), targets
        self._lookback, self._horizon = basis.shape[1], horizon
        self._width = len(basis)
        folds = len(self.origins)
        shape = (folds, self.items, self._width, self._width + horizon)
        self._sums = {
            kind: np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.dtype("<f4"), shape)
            for kind in KINDS
        }
        self._counts = {kind: np.zeros((folds, self.items)) for kind in KINDS}
        self._squares = np.zeros((folds, self.items))
        self.fleet: list[Few] = []
        self._labelled = _by_item(targets.sample, self.items)
        self._fill(task)

    def few(self, fold: int, kind: str, items: npt.NDArray[np.int64] | slice) -> Few:
        """The sums of some items."""
        both = torch.from_numpy(np.asarray(self._sums[kind][fold, items], dtype=np.float64))
        self._release()
        squares = self._squares[fold, items] if kind == "judged" else np.zeros(len(both))
        return Few(
            torch.from_numpy(self._counts[kind][fold, items]),
            both[..., : self._width],
            both[..., self._width :],
            torch.from_numpy(squares),
        )

    def _release(self) -> None:
        for array in (*self._sums.values(), self.panel.values):
            release(array)

    def _fill(self, task: Task) -> None:
        folds = range(len(self.origins))
        size = (self._lookback, self._horizon)
        ranges = [
            [self.panel.between(each.low, each.high, size[0], each.until, size[1]) for each in stretches]
            for stretches in ([o.more for o in self.origins], [o.judged for o in self.origins])
        ]
        totals = np.zeros((len(self.origins), self._width, self._width + self._horizon))
        for item in range(self.items):
            running, count = np.zeros(totals.shape[1:]), 0
            for fold in folds:
                fit, judged = (_range(ranges[at][fold], item) for at in (0, 1))
                running = running + self._of_windows(item, *fit, judge=False)[0]
                count += fit[1]
                self._sums["fit"][fold, item], self._counts["fit"][fold, item] = running, count
                totals[fold] += running
                found, square = self._of_windows(item, *judged, judge=True)
                self._sums["judged"][fold, item], self._counts["judged"][fold, item] = found, judged[1]
                self._squares[fold, item] = square
            if not item % ITEMS_AT_ONCE:
                self._release()
            task.advance(1)
        for fold in folds:
            both = torch.from_numpy(totals[fold])[None]
            count_of_all = torch.tensor([self._counts["fit"][fold].sum()])
            cross = both[..., self._width :]
            self.fleet.append(Few(count_of_all, both[..., : self._width], cross, torch.zeros(1)))

    def _of_windows(self, item: int, row: int, count: int, *, judge: bool) -> tuple[Array, float]:
        """``[K, K + H]`` sums over windows, and the square of the truth."""
        total, square = np.zeros((self._width, self._width + self._horizon)), 0.0
        if not count:
            return total, square
        span = self._lookback + self._horizon
        values = self.panel.scaled(item, row, row + count + span - 1)
        view = np.lib.stride_tricks.sliding_window_view(values - values.mean(), span)
        for start in range(0, count, CHUNK_WINDOWS):
            windows = view[start : start + CHUNK_WINDOWS].copy()
            windows -= windows[:, : self._lookback].mean(axis=1, keepdims=True)
            past, future = windows[:, : self._lookback], windows[:, self._lookback :]
            embedding = past @ self._basis.T
            target = future if judge else self._target(item, row + start, past, future)
            total += embedding.T @ np.concatenate([embedding, target], axis=1)
            square += float((future**2).sum())
        return total, square

    def _target(self, item: int, row: int, past: Array, future: Array) -> Array:
        """``[n, H]`` the blend of the truth and of the teacher, less the window's mean."""
        aims = self._targets
        if aims.taught is None:
            return future
        teacher = past @ aims.taught
        if aims.sample is not None and item in self._labelled:
            mine = self._labelled[item]
            rows = aims.sample.rows[mine]
            inside = (rows >= row) & (rows < row + len(past))
            level = self._levels(item, rows[inside])
            teacher[rows[inside] - row] = aims.sample.labels[mine[inside]] - level[:, None]
        return aims.truth * future + aims.teacher * teacher

    def _levels(self, item: int, rows: npt.NDArray[np.int64]) -> Array:
        """Means of windows, scaled: what a label is taken less."""
        mean, std = self.panel.scales[item]
        raw = np.asarray(self.panel.values)[rows[:, None] + np.arange(self._lookback), 0]
        levels: Array = (raw.mean(axis=1) - mean) / std
        return levels


def _range(found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], item: int) -> tuple[int, int]:
    rows, counts = found
    return int(rows[item]), int(counts[item])


def _by_item(sample: Sample | None, items: int) -> dict[int, npt.NDArray[np.int64]]:
    """Places in the sample of each item's labels."""
    if sample is None:
        return {}
    order = np.argsort(sample.items, kind="stable")
    found, first = np.unique(sample.items[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, first[1:]), strict=True))


def stretch_of_all(panel: Panel) -> Stretch:
    """All of training."""
    return Stretch(0, panel.splits.train, panel.splits.train)
