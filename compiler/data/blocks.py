"""Rows on their way from a file to the regular axis: read, put in order, merged; a block at a time.

Nothing here grows with the file: what must be put in order goes through files of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError
from .timeline import Stamps

if TYPE_CHECKING:
    from .dataset import Array

_MOST_OF_ONE_TIME = 100_000


@dataclass(frozen=True)
class Block:
    """Some rows: their numbers ``[n]`` as a user counts them, times ``[n]`` or None, values ``[n, D]``."""

    rows: npt.NDArray[np.int64]
    stamps: Stamps | None
    values: Array

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Block:
        """The chosen rows, in the order in which they are chosen."""
        stamps = None if self.stamps is None else self.stamps[chosen]
        return Block(self.rows[chosen], stamps, self.values[chosen])


def joined(blocks: Sequence[Block]) -> Block:
    """One block of several with times."""
    return Block(
        np.concatenate([block.rows for block in blocks]),
        np.concatenate([stamps_of(block) for block in blocks]),
        np.concatenate([block.values for block in blocks]),
    )


def stamps_of(block: Block) -> Stamps:
    """The times of a block that has some."""
    assert block.stamps is not None
    return block.stamps


def batched(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """The same rows in blocks of at least ``rows``, the last aside: a step is told from a whole block."""
    held: list[Block] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= rows:
            yield joined(held)
            held = []
    if held:
        yield joined(held)


class Order:
    """Rows in the order of time: sorted runs in a folder, merged a few rows of each at a time.

    Attributes:
        moved: rows that came after a later one.
    """

    def __init__(self, folder: Path, variates: int, rows: int) -> None:
        self.moved = 0
        self._folder, self._rows = folder, rows
        self._record = np.dtype([("stamp", "<M8[us]"), ("row", "<i8"), ("values", "<f8", (variates,))])
        self._latest: np.datetime64 | None = None

    def sorted(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """All rows by time, those of one time in the order of the file."""
        runs = [self._write(number, block) for number, block in enumerate(blocks)]
        try:
            yield from self._merged([np.memmap(run, self._record, mode="r") for run in runs])
        finally:
            for run in runs:
                run.unlink(missing_ok=True)

    def _write(self, number: int, block: Block) -> Path:
        stamps = stamps_of(block)
        if self._latest is None:
            self._latest = stamps[0]
        latest = np.maximum.accumulate(np.concatenate([[self._latest], stamps]))
        self.moved += int((stamps < latest[:-1]).sum())
        self._latest = latest[-1]
        order = np.argsort(stamps, kind="stable")
        run = np.empty(len(block), self._record)
        run["stamp"], run["row"], run["values"] = stamps[order], block.rows[order], block.values[order]
        path = self._folder / f"run-{number}.bin"
        run.tofile(path)
        return path

    def _merged(self, runs: Sequence[npt.NDArray[np.void]]) -> Iterator[Block]:
        at = [0] * len(runs)
        step = max(1, self._rows // max(len(runs), 1))
        while any(place < len(run) for place, run in zip(at, runs, strict=True)):
            ends = [
                self._bound(run[place : place + step], run, place, step)
                for place, run in zip(at, runs, strict=True)
            ]
            cut = min((end for end in ends if end is not None), default=None)
            counts = [
                _before(run["stamp"][place : place + step], cut, "left")
                for place, run in zip(at, runs, strict=True)
            ]
            if not sum(counts):  # all that begin are of one time, and there may be more of it
                counts = [
                    _before(run["stamp"][place:], cut, "right") for place, run in zip(at, runs, strict=True)
                ]
            rows = np.concatenate([run[p : p + n] for p, n, run in zip(at, counts, runs, strict=True)])
            rows = rows[np.lexsort((rows["row"], rows["stamp"]))]
            at = [place + count for place, count in zip(at, counts, strict=True)]
            yield Block(rows["row"].copy(), rows["stamp"].copy(), rows["values"].copy())

    @staticmethod
    def _bound(
        head: npt.NDArray[np.void], run: npt.NDArray[np.void], place: int, step: int
    ) -> np.datetime64 | None:
        """The last time of a head whose run goes on after it: beyond, not all rows are in sight."""
        return head["stamp"][-1] if place + step < len(run) else None


def _before(stamps: Stamps, cut: np.datetime64 | None, side: Literal["left", "right"]) -> int:
    """How many of these ascending times are before ``cut``; all without one."""
    return len(stamps) if cut is None else int(np.searchsorted(stamps, cut, side=side))


class Merge:
    """Rows of one time, one after the other, become one row.

    Attributes:
        merged: rows that went into another.
    """

    def __init__(self, policy: str, file: str) -> None:
        self.merged = 0
        self._policy, self._file = policy, file

    def distinct(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """One row for each run of equal times: the mean of its known cells, or its first row."""
        held: Block | None = None
        for block in blocks:
            if held is not None:
                block = joined([held, block])
            stamps = stamps_of(block)
            changes = np.flatnonzero(stamps[1:] != stamps[:-1])
            last = int(changes[-1]) + 1 if changes.size else 0
            held = block.take(slice(last, None))  # this time may go on in the next block
            if len(held) > _MOST_OF_ONE_TIME:
                raise DataError(
                    f"{self._file}: more than {_MOST_OF_ONE_TIME:,} rows have the timestamp {stamps[-1]}",
                    hint="one row for each time is expected; of many series give one, or one column for each",
                )
            if last:
                yield self._merge(block.take(slice(0, last)))
        if held is not None:
            yield self._merge(held)

    def _merge(self, block: Block) -> Block:
        stamps = stamps_of(block)
        starts = np.flatnonzero(np.concatenate([[True], stamps[1:] != stamps[:-1]]))
        if len(starts) == len(block):
            return block
        self.merged += len(block) - len(starts)
        first = block.take(starts)
        if self._policy == "first":
            return first
        known = ~np.isnan(block.values)
        sums = np.add.reduceat(np.where(known, block.values, 0.0), starts, axis=0)
        counts = np.add.reduceat(known.astype(np.int64), starts, axis=0)
        with np.errstate(invalid="ignore"):
            return replace(first, values=np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
