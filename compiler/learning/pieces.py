"""Training windows in pieces: the tasks that sums over windows are made of.

Sums of pieces are added in the order of the pieces, so where a piece was summed leaves no trace in the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..data import Dataset, SyntheticData, Windows

Array = npt.NDArray[np.float64]
Labels = Callable[[int, int], npt.NDArray[np.float32]]
"""``labels(first, last)``: a teacher's forecasts ``[last - first, D, H]`` of training windows, scaled."""
CHUNK_WINDOWS = 1024
"""Windows that are multiplied at once."""
PIECE_WINDOWS = 1 << 14
"""Windows of a series that are read at once: memory does not grow with the series."""


@dataclass(frozen=True)
class _Carried:
    """Labels that have been read, by the chunks that they will be asked for."""

    read: Mapping[tuple[int, int], npt.NDArray[np.float32]]

    def __call__(self, first: int, last: int) -> npt.NDArray[np.float32]:
        return self.read[first, last]


@dataclass(frozen=True)
class _Labelled:
    """Windows ``begin .. end-1`` and the labels of several teachers, by name.

    In this process labels are read from their files when they are summed; a piece that is sent to another
    takes along what it will be asked for.
    """

    begin: int
    end: int
    labels: tuple[tuple[str, Labels], ...]

    def __getstate__(self) -> dict[str, Any]:
        chunks = chunked(self.begin, self.end)
        read = [(name, {chunk: np.array(labels(*chunk)) for chunk in chunks}) for name, labels in self.labels]
        return {**self.__dict__, "labels": tuple((name, _Carried(found)) for name, found in read)}


@dataclass(frozen=True)
class SeriesPiece(_Labelled):
    """Windows of gap-free series with stride 1: ``series [end - begin + L + H - 1, D]``, scaled."""

    series: Array
    lookback: int
    horizon: int


@dataclass(frozen=True)
class IndependentPiece(_Labelled):
    """Windows that have no rows in common: ``past [n, D, L]``, ``future [n, D, H]``."""

    past: Tensor
    future: Tensor


Piece = SeriesPiece | IndependentPiece


def chunked(begin: int, end: int, size: int = CHUNK_WINDOWS) -> list[tuple[int, int]]:
    """``begin .. end`` cut into chunks of ``size``, the last one shorter."""
    return [(start, min(start + size, end)) for start in range(begin, end, size)]


def pieces_of(data: Dataset, begin: int, end: int) -> list[tuple[int, int]]:
    """The pieces that ``begin .. end`` of a data set is summed in."""
    return chunked(begin, end, CHUNK_WINDOWS if isinstance(data, SyntheticData) else PIECE_WINDOWS)


def series_pieces(
    data: Dataset,
    lookback: int,
    horizon: int,
    begin: int,
    end: int,
    labels: Sequence[tuple[str, Labels]] = (),
) -> Iterator[Piece]:
    """The windows that start in the rows ``begin .. end-1``, read a piece at a time."""
    for start, stop in pieces_of(data, begin, end):
        series = scaled_rows(data, start, stop + lookback + horizon - 1)
        yield SeriesPiece(start, stop, tuple(labels), series, lookback, horizon)


def independent_pieces(
    windows: Windows, begin: int, end: int, labels: Sequence[tuple[str, Labels]] = ()
) -> Iterator[Piece]:
    """The windows ``begin .. end-1`` of those that have no rows in common, read a piece at a time."""
    for start, stop in pieces_of(windows.data, begin, end):
        yield IndependentPiece(start, stop, tuple(labels), *windows.batch(range(start, stop)))


def scaled_rows(data: Dataset, first: int, last: int) -> Array:
    """``[last - first, D]`` float64."""
    return np.ascontiguousarray(data.scaling.scale(data.values[first:last].T).T)
