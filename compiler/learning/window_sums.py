"""Sufficient statistics of least squares on windows: all that affine students learn from.

A shift-equivariant affine student forecasts ``m + W (x - m)`` with ``m`` the mean of the window ``x``.
Its squared error to a target ``y`` (the truth or a teacher's forecast) depends on the windows through
sums of products alone, which add over time, over processes and over data sets.

All sums are float64: in float32 the smallest eigenvalues of the Gram are rounding noise, and the solved
student measurably worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..data import Windows

Array = npt.NDArray[np.float64]
Teachers = Mapping[str, npt.NDArray[np.floating]]
"""Forecasts ``[N, D, H]`` of each teacher, by name; a memory-mapped array is read in pieces."""

HANKEL_WINDOWS = 16384
PRODUCT_CELLS = 1 << 21
VARIATES_AT_ONCE = 8
# The recursion loses the digits by which uncentred sums exceed centred ones; beyond this, products.
LOST_DIGITS = 1e5


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over windows, per variate, of windows and targets less the window's mean.

    Attributes:
        count: windows (a float, since sums may be weighted).
        gram: ``[D, L, L]`` sum of ``x x'``.
        truth: ``[D, L, H]`` sum of ``x y'``.
        truth_square: ``[D, H]`` sum of ``y^2``.
        teachers: ``[D, L, H]`` of each teacher, sum of ``x t'``.
        teacher_squares: ``[D, H]`` of each teacher, sum of ``t^2``.
    """

    count: float
    gram: Array
    truth: Array
    truth_square: Array
    teachers: Mapping[str, Array] = field(default_factory=dict)
    teacher_squares: Mapping[str, Array] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Variates, lookback, horizon."""
        variates, lookback, horizon = self.truth.shape
        return variates, lookback, horizon

    @classmethod
    def zeros(cls, variates: int, lookback: int, horizon: int, teachers: tuple[str, ...] = ()) -> Statistics:
        """The sums over no window."""
        return cls(
            0.0,
            np.zeros((variates, lookback, lookback)),
            np.zeros((variates, lookback, horizon)),
            np.zeros((variates, horizon)),
            {name: np.zeros((variates, lookback, horizon)) for name in teachers},
            {name: np.zeros((variates, horizon)) for name in teachers},
        )

    def __add__(self, other: Statistics) -> Statistics:
        result = self.copy()
        result.add_(other)
        return result

    def copy(self) -> Statistics:
        """Sums of their own memory."""
        return self.scaled(1.0)

    def scaled(self, weight: float) -> Statistics:
        """Every window counted ``weight`` times."""
        return Statistics(
            self.count * weight,
            self.gram * weight,
            self.truth * weight,
            self.truth_square * weight,
            {name: value * weight for name, value in self.teachers.items()},
            {name: value * weight for name, value in self.teacher_squares.items()},
        )

    def add_(self, other: Statistics) -> None:
        """Adds in place: a Gram of many variates is the largest thing in memory here.

        Raises:
            ValueError: the sums are of other shapes or other teachers.
        """
        if self.shape != other.shape or set(self.teachers) != set(other.teachers):
            raise ValueError(f"sums of {self.shape} {sorted(self.teachers)} and {other.shape} "
                             f"{sorted(other.teachers)} do not add")
        object.__setattr__(self, "count", self.count + other.count)
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine += theirs

    def _arrays(self) -> list[Array]:
        named = [values[name] for values in (self.teachers, self.teacher_squares) for name in sorted(values)]
        return [self.gram, self.truth, self.truth_square, *named]

    def pooled(self) -> Statistics:
        """The sums over all variates, as of one variate."""
        return Statistics(
            self.count * len(self.gram),
            self.gram.sum(axis=0, keepdims=True),
            self.truth.sum(axis=0, keepdims=True),
            self.truth_square.sum(axis=0, keepdims=True),
            {name: value.sum(axis=0, keepdims=True) for name, value in self.teachers.items()},
            {name: value.sum(axis=0, keepdims=True) for name, value in self.teacher_squares.items()},
        )


def statistics_of(past: npt.NDArray[np.floating], future: npt.NDArray[np.floating],
                  teachers: Teachers | None = None) -> Statistics:
    """Exact products over windows given as arrays.

    Args:
        past: ``[N, D, L]``.
        future: ``[N, D, H]``.
        teachers: forecasts ``[N, D, H]`` by name.
    """
    (_, variates, lookback), horizon = past.shape, future.shape[-1]
    total = Statistics.zeros(variates, lookback, horizon, tuple(teachers or ()))
    step = max(1, PRODUCT_CELLS // (variates * (lookback + horizon)))
    for begin in range(0, len(past), step):
        piece = slice(begin, begin + step)
        labels = {name: value[piece] for name, value in (teachers or {}).items()}
        _add_products(total, past[piece], future[piece], labels)
    return total


def window_statistics(
    windows: Windows,
    teachers: Teachers | None = None,
    *,
    begin: int = 0,
    stop: int | None = None,
    chosen: npt.NDArray[np.integer] | None = None,
) -> Statistics:
    """The sums over windows ``begin ... stop - 1`` of a part, or over those in ``chosen``.

    Runs of neighbouring windows go through a recursion that touches each row once.  The rows are read and
    scaled in pieces, so memory does not grow with the series.

    Args:
        windows: stride-1 windows of one part.
        teachers: forecasts by name; row ``i`` is of window ``i``, or of ``chosen[i]``.
        chosen: ascending window numbers, instead of ``begin`` and ``stop``.
    """
    data = windows.data
    total = Statistics.zeros(len(data.variates), windows.lookback, windows.horizon, tuple(teachers or ()))
    offset = 0
    if chosen is None:
        runs = [(begin, len(windows) if stop is None else stop)]
        offset = begin
    else:
        breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, breaks) if len(run)]
    for first, last in runs:
        for low in range(first, last, HANKEL_WINDOWS):
            count = min(HANKEL_WINDOWS, last - low)
            labels = {name: value[offset : offset + count] for name, value in (teachers or {}).items()}
            add_segment(total, _scaled_rows(windows, low, count), labels)
            offset += count
    return total


def _scaled_rows(windows: Windows, low: int, count: int) -> Array:
    """``[D, count + L + H - 1]`` the rows under some neighbouring windows."""
    begin = windows.first + low
    rows = np.asarray(windows.data.values[begin : begin + count + windows.lookback + windows.horizon - 1])
    return np.ascontiguousarray(((rows - windows.data.mean) / windows.data.std).T)


def add_segment(total: Statistics, series: Array, teachers: Teachers) -> None:
    """Adds all stride-1 windows of a series without gaps to ``total``, in place.

    Args:
        series: ``[D, N + L + H - 1]``.
        teachers: forecasts ``[N, D, H]`` by name.
    """
    variates, lookback, horizon = total.shape
    count = series.shape[1] - lookback - horizon + 1
    object.__setattr__(total, "count", total.count + count)
    # Shifts cancel exactly in centred sums; small numbers keep the digits.  From the first value on, so that
    # a constant variate becomes exactly zero.
    shifts = series[:, :1] + (series - series[:, :1]).mean(axis=1, keepdims=True)
    values = series - shifts
    for low in range(0, variates, VARIATES_AT_ONCE):
        group = slice(low, min(low + VARIATES_AT_ONCE, variates))
        if count > lookback // 2:
            gram, truth, square, kept = _hankel(values[group], count, lookback, horizon)
        else:
            kept = np.zeros(group.stop - group.start, dtype=bool)
        for index in range(group.start, group.stop):
            if kept[index - group.start]:
                total.gram[index] += gram[index - group.start]
                total.truth[index] += truth[index - group.start]
                total.truth_square[index] += square[index - group.start]
    # The variates that the recursion took are those whose sums are in; the rest go through products.
        left = np.flatnonzero(~kept) + group.start
        if len(left):
            _add_truth_products(total, values, left, count)
    _add_teachers(total, values, shifts[:, 0], teachers, count)


def _hankel(values: Array, count: int, lookback: int, horizon: int) -> tuple[Array, Array, Array, npt.NDArray[np.bool_]]:
    """Gram, truth and truth_square of a segment, and for which variates they keep enough digits.

    The uncentred Gram ``K`` of windows ``[x; y]`` obeys
    ``K[i+1, j+1] = K[i, j] + v[N+i] v[N+j] - v[i] v[j]``: O(N (L+H)) for its first row, then O(L (L+H)).
    """
    span = lookback + horizon
    first = np.stack([np.correlate(row, row[:count], mode="valid") for row in values])
    products = np.empty((len(values), lookback, span))
    products[:, 0] = first
    head, tail = values[:, : span - 1], values[:, count : count + span - 1]
    for row in range(1, lookback):
        products[:, row, 0] = first[:, row]
        products[:, row, 1:] = products[:, row - 1, :-1]
        products[:, row, 1:] += tail[:, row - 1, None] * tail
        products[:, row, 1:] -= head[:, row - 1, None] * head
    changes = tail**2 - head**2
    squares = first[:, :1] + np.concatenate([np.zeros((len(values), 1)), np.cumsum(changes, axis=1)], axis=1)
    uncentred = np.trace(products[:, :, :lookback], axis1=1, axis2=2)
    # m = 1'x / L is linear in x: x - m = P x and y - m = y - 1 1'x / L.
    gram, truth = products[:, :, :lookback], products[:, :, lookback:]
    mean_gram = gram.mean(axis=1)  # [V, L] sum of m x
    mean_square = mean_gram.mean(axis=1)  # [V] sum of m^2
    mean_truth = truth.mean(axis=1)  # [V, H] sum of m y
    square = squares[:, lookback:] - 2 * mean_truth + mean_square[:, None]
    truth = truth - mean_truth[:, None, :] - mean_gram[:, :, None] + mean_square[:, None, None]
    gram = gram - mean_gram[:, None, :] - mean_gram[:, :, None] + mean_square[:, None, None]
    centred = np.trace(gram, axis1=1, axis2=2)
    return gram, truth, np.maximum(square, 0.0), uncentred <= LOST_DIGITS * centred


def _pieces(count: int, width: int) -> list[tuple[int, int]]:
    step = max(64, PRODUCT_CELLS // width)
    return [(low, min(low + step, count)) for low in range(0, count, step)]


def _centred(values: Array, low: int, high: int, lookback: int, horizon: int) -> tuple[Array, Array, Array]:
    """Windows ``low ... high - 1`` of one variate: past less mean ``[n, L]``, future less mean, mean."""
    view = np.lib.stride_tricks.sliding_window_view(values, lookback + horizon)[low:high]
    means = view[:, :lookback].mean(axis=1, keepdims=True)
    return view[:, :lookback] - means, view[:, lookback:] - means, means


def _add_truth_products(
    total: Statistics, values: Array, variates: npt.NDArray[np.integer], count: int
) -> None:
    _, lookback, horizon = total.shape
    for index in variates:
        for low, high in _pieces(count, lookback + horizon):
            past, future, _ = _centred(values[index], low, high, lookback, horizon)
            total.gram[index] += past.T @ past
            total.truth[index] += past.T @ future
            total.truth_square[index] += (future**2).sum(axis=0)


def _add_teachers(total: Statistics, values: Array, shifts: Array, teachers: Teachers, count: int) -> None:
    variates, lookback, horizon = total.shape
    if not teachers:
        return
    for low, high in _pieces(count, variates * horizon * (1 + len(teachers)) + lookback):
        labels = {name: np.asarray(value[low:high], dtype=np.float64) for name, value in teachers.items()}
        for index in range(variates):
            past, _, means = _centred(values[index], low, high, lookback, horizon)
            for name, label in labels.items():
                target = (label[:, index] - shifts[index]) - means
                total.teachers[name][index] += past.T @ target
                total.teacher_squares[name][index] += (target**2).sum(axis=0)


def _add_products(
    total: Statistics, past: npt.NDArray[np.floating], future: npt.NDArray[np.floating], teachers: Teachers
) -> None:
    object.__setattr__(total, "count", total.count + len(past))
    start = np.asarray(past[..., :1], dtype=np.float64)
    shifted = past - start
    means = shifted.mean(axis=-1, keepdims=True)
    centred = np.ascontiguousarray((shifted - means).transpose(1, 0, 2))  # [D, N, L]
    transposed = centred.transpose(0, 2, 1)
    total.gram[:] += transposed @ centred
    target = ((future - start) - means).transpose(1, 0, 2)
    total.truth[:] += transposed @ target
    total.truth_square[:] += (target**2).sum(axis=1)
    for name, forecast in teachers.items():
        target = ((forecast - start) - means).transpose(1, 0, 2)
        total.teachers[name][:] += transposed @ target
        total.teacher_squares[name][:] += (target**2).sum(axis=1)
