"""Sufficient statistics of affine students: sums over windows, per variate, in float64.

With ``m`` the mean of a window ``x``, an instance-normalised linear student is ``y - m = W (x - m)``: the
standard deviation cancels.  Its squared error against any target is a quadratic form in

    G_d = sum (x - m)(x - m)^T  [L, L]      R_d = sum (x - m)(y - m)^T  [L, H]      s_d = sum (y - m)^2  [H]

so these sums are all that a least-squares student needs of the data, and they add: over blocks of time,
over processes, over data sets, over days of new rows.  A teacher's forecast in the place of the truth gives
the same sums of its own.

Windows with stride 1 overlap.  The uncentred Gram of ``z = [x; y]`` over windows ``a .. b-1`` of a series
``v`` is a Hankel product, and follows from its first row:

    K[i+1, j+1] = K[i, j] + v[b+i] v[b+j] - v[a+i] v[a+j]

in O(N (L+H) + (L+H)^2) instead of O(N (L+H)^2).  Centring is linear in ``x``, so it is applied to K.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, pairwise

import numpy as np
import torch
from torch import Tensor

from ..base.content import content_key
from ..base.executors import Executor, Local
from ..data import Dataset, SyntheticData
from ..data.splits import Part
from .pieces import (
    CHUNK_WINDOWS,
    Array,
    Labels,
    Piece,
    SeriesPiece,
    chunked,
    independent_pieces,
    pieces_of,
    series_pieces,
)

TOO_FEW = "too few windows for rolling origins"
TUNED = "the teacher was tuned on the training windows, on which rolling origins would overrate it"
STATES = "states"
"""The target that is no forecast: a teacher's states, see ``in_window_coordinates``."""
MOST_BYTES = 768 << 20
"""Largest sums of every variate by itself; beyond them the average variate's alone are kept."""
VARIATES_AT_ONCE = 32
LOST_DIGITS = 1e5
"""Largest ratio of uncentred to centred sums that leaves ten digits after centring."""


@dataclass(frozen=True)
class Sums:
    """Sums over ``count`` windows, centred by each window's mean.

    Attributes:
        count: windows; every variate has as many.
        gram: ``[D, L, L]``, sum of ``(x - m)(x - m)^T``.
        cross: target -> ``[D, L, H]``, sum of ``(x - m)(target - m)^T``; the truth is ``"truth"``.  A
            teacher's states are ``"states"`` ``[D, L, K]``, see ``in_window_coordinates``.
        square: target -> ``[D, H]``, sum of ``(target - m)^2``.
    """

    count: int
    gram: Tensor
    cross: dict[str, Tensor]
    square: dict[str, Tensor]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count,
            self.gram + other.gram,
            {name: value + other.cross[name] for name, value in self.cross.items()},
            {name: value + other.square[name] for name, value in self.square.items()},
        )

    def accumulate(self, other: Sums) -> Sums:
        """``self + other`` in the memory of ``self``."""
        self.gram.add_(other.gram)
        for name in self.cross:
            self.cross[name].add_(other.cross[name])
            self.square[name].add_(other.square[name])
        return Sums(self.count + other.count, self.gram, self.cross, self.square)

    def without(self, target: str) -> Sums:
        """The same without one of the targets, if it is there."""
        cross = {name: value for name, value in self.cross.items() if name != target}
        square = {name: value for name, value in self.square.items() if name != target}
        return Sums(self.count, self.gram, cross, square)

    def with_prior(self, prior: Sums | None, windows: float) -> Sums:
        """As if ``windows`` more windows of every variate had been seen, on which all agree with the prior.

        The prior's windows have no scale of their own; they are brought to each variate's, so that
        one of them weighs as much as one of its windows, as measured by the trace of the Gram:

            G + v G0,  R + v T0,  T + v T0        v = windows * (trace(G) / count) / trace(G0)

        Args:
            prior: sums of one variate, with one target.
        """
        if prior is None or windows == 0:
            return self
        traces = self.gram.diagonal(dim1=1, dim2=2).sum(1) / max(self.count, 1)
        unit = float(prior.gram[0].trace()) / prior.count
        # Without a window of its own a variate takes the prior as it is; a constant one stays constant.
        scale = windows / prior.count * (traces / unit if self.count else torch.ones_like(traces))
        scale = scale[:, None, None]
        (cross,), (square,) = prior.cross.values(), prior.square.values()
        own = self.without(STATES)  # nobody has recorded those of the prior's windows
        return Sums(
            self.count + round(windows),
            self.gram + scale * prior.gram,
            {name: value + scale * cross for name, value in own.cross.items()},
            {name: value + scale[..., 0] * square for name, value in own.square.items()},
        )

    def blended(self, pooling: float) -> Sums:
        """Each variate's own sums with ``pooling`` times those of the average variate, scaled to its count.

        Partial pooling: 0 leaves every variate to itself, and the larger the weight, the more alike the maps.
        """
        if pooling == 0 or len(self.gram) == 1:
            return self

        def blend(value: Tensor) -> Tensor:
            # In one copy: the sums of many variates are what takes the memory.
            return (value + pooling * value.mean(0, keepdim=True)).div_(1 + pooling)

        return Sums(
            self.count,
            blend(self.gram),
            {name: blend(value) for name, value in self.cross.items()},
            {name: blend(value) for name, value in self.square.items()},
        )

    def averaged(self) -> Sums:
        """The average variate's: ``D = 1``, with the windows of one."""
        return replace(self.pooled().times(1 / len(self.gram)), count=self.count)

    def times(self, factor: float) -> Sums:
        """Every sum times a number, over as many windows."""
        return Sums(
            self.count,
            self.gram * factor,
            {name: value * factor for name, value in self.cross.items()},
            {name: value * factor for name, value in self.square.items()},
        )

    def pooled(self) -> Sums:
        """All variates as one: ``D = 1``."""
        return Sums(
            self.count * self.gram.shape[0],
            self.gram.sum(0, keepdim=True),
            {name: value.sum(0, keepdim=True) for name, value in self.cross.items()},
            {name: value.sum(0, keepdim=True) for name, value in self.square.items()},
        )


def hankel_sums(series: Array, lookback: int, horizon: int) -> Sums:
    """Sums over all windows of gap-free series with stride 1.

    Args:
        series: ``[N + L + H - 1, D]``.
    """
    span = lookback + horizon
    count = len(series) - span + 1
    variates = series.shape[1]
    gram = torch.empty(variates, lookback, lookback, dtype=torch.float64)
    cross = torch.empty(variates, lookback, horizon, dtype=torch.float64)
    square = torch.empty(variates, horizon, dtype=torch.float64)
    for variate in range(variates):
        # Sums of centred windows do not depend on the level; without it they cancel fewer digits.  Taken from
        # the first value on, so that a constant variate becomes exactly zero.
        values = np.ascontiguousarray(series[:, variate] - series[0, variate])
        values -= values.mean()
        products = _hankel(values, count, span)
        sums = centred(products, lookback)
        # Centring loses the digits by which uncentred sums exceed centred ones (a level that drifts far
        # against the spread inside a window); such a segment goes through plain products.
        if np.trace(products[:lookback, :lookback]) > LOST_DIGITS * float(sums[0].trace()):
            sums = window_products(values, lookback, horizon)
        gram[variate], cross[variate], square[variate] = sums
    return Sums(count, gram, {"truth": cross}, {"truth": square})


def window_products(values: Array, lookback: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """The centred sums of one series by products of its windows, some thousand at a time."""
    view = np.lib.stride_tricks.sliding_window_view(values, lookback + horizon)
    total: Sums | None = None
    for start in range(0, len(view), CHUNK_WINDOWS):
        piece = torch.from_numpy(view[start : start + CHUNK_WINDOWS, None].copy())
        piece -= piece[..., :1].clone()
        sums = window_sums(piece[..., :lookback], piece[..., lookback:])
        total = sums if total is None else total.accumulate(sums)
    assert total is not None
    return total.gram[0], total.cross["truth"][0], total.square["truth"][0]


def bytes_of_each(variates: int, lookback: int, horizon: int) -> int:
    """What the sums of every variate by itself take."""
    return 8 * variates * lookback * (lookback + horizon)


def in_window_coordinates(name: str, target: Tensor, past: Tensor, mean: Tensor) -> Tensor:
    """A target ``[..., H]`` as a student that is centred by the window's mean ``[..., 1]`` is to meet it.

    A forecast is taken less the mean.  States have no level; the embedding that meets them is that of the
    normalised window, ``A (x - m) / s`` with its deviation ``s``, and they are taken times ``s``: the loss
    of a window then weighs ``s^2``, as that of its forecast does, and both are regressions on one Gram.
    """
    if name != STATES:
        return target - mean
    return target * (past - mean).square().mean(-1, keepdim=True).sqrt()


def window_sums(past: Tensor, target: Tensor, name: str = "truth") -> Sums:
    """Sums over given windows, whatever their order: ``past [B, D, L]``, ``target [B, D, H]``."""
    past, target = past.double(), target.double()
    # From the first value on: the mean of equal large numbers is not exactly that number.
    start = past[..., :1]
    past, target = past - start, target if name == STATES else target - start
    mean = past.mean(dim=-1, keepdim=True)
    x, y = (past - mean).transpose(0, 1), in_window_coordinates(name, target, past, mean).transpose(0, 1)
    return Sums(len(past), x.mT @ x, {name: x.mT @ y}, {name: y.square().sum(1)})


def piece_sums(piece: Piece, average: bool = False) -> Sums:
    """Sums over the windows of a piece, and of its labels: the task of an executor.

    Args:
        average: those of the average variate, some variates at a time.
    """
    if isinstance(piece, SeriesPiece) and average:
        return _average_sums(piece)
    if isinstance(piece, SeriesPiece):
        sums = hankel_sums(piece.series, piece.lookback, piece.horizon)
        for name, labels in piece.labels:
            sums.cross[name], sums.square[name] = _label_sums(name, piece, labels)
        return sums
    sums = window_sums(piece.past, piece.future)
    for name, labels in piece.labels:
        taught = window_sums(piece.past, torch.from_numpy(np.array(labels(piece.begin, piece.end))), name)
        sums.cross[name], sums.square[name] = taught.cross[name], taught.square[name]
    return sums


def _average_sums(piece: SeriesPiece) -> Sums:
    variates = piece.series.shape[1]
    total: Sums | None = None
    for first in range(0, variates, VARIATES_AT_ONCE):
        some = slice(first, min(first + VARIATES_AT_ONCE, variates))
        labels = tuple((name, _of_variates(teacher, some)) for name, teacher in piece.labels)
        sums = piece_sums(replace(piece, series=piece.series[:, some], labels=labels))
        share = sums.averaged().times((some.stop - some.start) / variates)
        total = share if total is None else replace(total.accumulate(share), count=share.count)
    assert total is not None
    return total


def _of_variates(labels: Labels, some: slice) -> Labels:
    return lambda first, last: labels(first, last)[:, some]


def series_sums(
    data: Dataset,
    lookback: int,
    horizon: int,
    begin: int,
    end: int,
    labels: Sequence[tuple[str, Labels]] = (),
    *,
    average: bool = False,
) -> Sums:
    """Sums over the windows of a data set that start in the rows ``begin .. end-1``, and of their labels.

    Memory does not grow with ``end - begin``; nor does it with the variates where the ``average`` one is
    asked for.

    Raises:
        ValueError: there are none.
    """
    if begin >= end:
        raise ValueError(f"no windows in {begin}..{end}")
    pieces = series_pieces(data, lookback, horizon, begin, end, labels)
    return added(map(partial(piece_sums, average=average), pieces))


def added(sums: Iterable[Sums], total: Sums | None = None) -> Sums:
    """``total`` and ``sums``, of which there are some, added in this order in the memory of the first."""
    for more in sums:
        total = more if total is None else total.accumulate(more)
    assert total is not None
    return total


def _hankel(values: Array, count: int, span: int) -> Array:
    """The uncentred Gram ``[L+H, L+H]`` of all windows of one series."""
    first = np.correlate(values, values[:count], mode="valid")  # lag 0 .. span - 1
    step = np.outer(values[count:], values[count:]) - np.outer(values[: span - 1], values[: span - 1])
    return along_diagonals(first, step)


def along_diagonals(first: Array, step: Array) -> Array:
    """``K [n, n]`` from its first row ``[n]`` and ``K[i+1, j+1] - K[i, j]``, ``step [n-1, n-1]``."""
    gram = np.empty((len(first), len(first)))
    gram[0] = gram[:, 0] = first
    for row in range(len(first) - 1):
        gram[row + 1, 1:] = gram[row, :-1] + step[row]
    return gram


def centred(gram: Array, lookback: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the centred windows from the uncentred Gram of ``[x; y]``."""
    xx, xy, yy = gram[:lookback, :lookback], gram[:lookback, lookback:], np.diag(gram)[lookback:]
    x_mean, mean_y = xx.mean(axis=1), xy.mean(axis=0)
    mean_mean = x_mean.mean()
    centred = xx - x_mean[:, None] - x_mean[None, :] + mean_mean
    cross = xy - x_mean[:, None] - mean_y[None, :] + mean_mean
    return torch.from_numpy(centred), torch.from_numpy(cross), torch.from_numpy(yy - 2 * mean_y + mean_mean)


def _label_sums(name: str, piece: SeriesPiece, labels: Labels) -> tuple[Tensor, Tensor]:
    """``sum (x - m)(label - m)^T [D, L, H]`` and ``sum (label - m)^2 [D, H]``."""
    cross: Tensor | None = None
    square: Tensor | None = None
    for start, stop in chunked(piece.begin, piece.end):
        rows = piece.series[start - piece.begin : stop - piece.begin + piece.lookback - 1]
        past = np.lib.stride_tricks.sliding_window_view(rows, piece.lookback, axis=0)  # [n, D, L]
        x = torch.from_numpy(np.ascontiguousarray(past.transpose(1, 0, 2)))
        mean = x.mean(dim=-1, keepdim=True)
        y = torch.from_numpy(labels(start, stop).astype(np.float64)).transpose(0, 1)
        y = in_window_coordinates(name, y, x, mean)
        product, norm = (x - mean).mT @ y, y.square().sum(1)
        cross, square = (
            (product, norm) if cross is None or square is None else (cross + product, square + norm)
        )
    assert cross is not None and square is not None
    return cross, square


@dataclass(frozen=True)
class Fold:
    """One judgement of a rolling origin: fitted on windows before it, judged on a block after them.

    ``prior`` is what a fit may lean on besides, see ``Sums.with_prior``.  The fit's windows start at rows
    ``0 .. until - 1``, those of the judged block at ``starts[0] .. starts[1] - 1``.
    """

    name: str
    fit: Sums
    judged: Sums
    prior: Sums | None = None
    until: int = 0
    starts: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Span:
    """Windows ``begin .. end-1`` of a part that are summed together, with their labels."""

    part: Part
    begin: int
    end: int
    labels: tuple[tuple[str, Labels], ...] = ()


class WindowStatistics:
    """The statistics of a unit: where the sums come from, block by block.

    Blocks cut the training windows into equal stretches of time; the validation split is one more.  A fit
    uses only windows whose future ends before the first future that is judged.

    Args:
        data: handle on the series.
        labels: name -> a teacher's forecasts of the training windows, or its ``"states"``.
        blocks: stretches of training.
        key: of everything the sums depend on.
        tuned: whether a teacher was fitted to the training windows: what it says of a block is then no
            forecast, and validation alone is judged.
        average: keep the sums of the average variate alone: all that one map for all variates needs, in
            memory that does not grow with them.
        executor: where the blocks are summed; by default here.

    Attributes:
        prior: sums of synthetic windows with a teacher's labels, once a pass has added them.
    """

    def __init__(
        self,
        data: Dataset,
        lookback: int,
        horizon: int,
        labels: Sequence[tuple[str, Labels]] = (),
        *,
        blocks: int = 8,
        key: str = "",
        tuned: bool = False,
        average: bool = False,
        executor: Executor | None = None,
    ) -> None:
        self.data, self.lookback, self.horizon, self.average = data, lookback, horizon, average
        self.labels, self.blocks, self.key, self.tuned = tuple(labels), blocks, key, tuned
        self.executor = executor or Local()
        self.windows = len(data.windows("train", lookback, horizon))
        self.final: Sums | None = None
        self.prior: Sums | None = None

    def with_prior(self, prior: Sums, key: str) -> WindowStatistics:
        """The same statistics and a prior; ``key`` is that of the prior."""
        other = copy(self)
        other.prior, other.key = prior, content_key(self.key, key)
        return other

    @property
    def alone(self) -> str:
        """Why the validation split alone is judged; empty where blocks of training are, too."""
        if self._shortest <= self.horizon:  # the windows before a block have no future that ends before it
            return TOO_FEW
        return TUNED if self.tuned else ""

    @property
    def targets(self) -> tuple[str, ...]:
        """``"truth"``, the teachers' names, and ``"states"`` where there are any."""
        return ("truth", *(name for name, _ in self.labels))

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers' names, in order."""
        return tuple(name for name, _ in self.labels if name != STATES)

    def folds(self) -> Iterator[Fold]:
        """The folds in order of time, one at a time; afterwards ``final`` holds all of training.

        The sums of a fold may be overwritten once the next one is asked for.
        """
        edges, fitted = self._edges, self._fitted()
        judged = [_Span("train", edges[block], edges[block + 1]) for block in range(2, 1 + len(fitted))] + [
            _Span("val", 0, self._validations)
        ]
        names = [*(f"block {block}" for block in range(2, 1 + len(fitted))), "validation"]
        sums = self._sums([span for pair in zip(fitted, judged, strict=True) for span in pair])
        total: Sums | None = None
        for name, fit, block in zip(names, fitted, judged, strict=True):
            total = added(islice(sums, 1), total)
            if name == names[-1]:
                self.final = total
            first = self.data.windows(block.part, *self._size).first
            starts = (first + block.begin, first + block.end)
            yield Fold(name, total, next(sums), self.prior, fit.end, starts)

    def stretches(self) -> list[Fold]:
        """The validation split cut into stretches of time, each longer than a horizon, at most ``blocks``.

        For training too short for blocks: what differs from stretch to stretch says how far to trust a mean.
        """
        count = max(1, min(self.blocks, self._validations // (self.horizon + 1)))
        edges = [self._validations * stretch // count for stretch in range(count + 1)]
        judged = self._sums([_Span("val", begin, end) for begin, end in pairwise(edges)])
        return [
            Fold(f"validation {number}", self.all(), sums, self.prior)
            for number, sums in enumerate(judged, 1)
        ]

    @property
    def _edges(self) -> list[int]:
        return [self.windows * block // self.blocks for block in range(self.blocks + 1)]

    @property
    def _shortest(self) -> int:
        return min(b - a for a, b in pairwise(self._edges))

    def all(self) -> Sums:
        """Sums over all of training: to the bit the same whether or not ``folds`` has been through them."""
        if self.final is None:
            self.final = added(self._sums(self._fitted()))
        return self.final

    def _fitted(self) -> list[_Span]:
        """What each fold has to fit on more than the one before it; all of training together."""
        inner = [] if self.alone else [edge - self.horizon + 1 for edge in self._edges[2:-1]]
        return [_Span("train", begin, end, self.labels) for begin, end in pairwise((0, *inner, self.windows))]

    @property
    def _validations(self) -> int:
        return len(self.data.windows("val", *self._size))

    def _sums(self, spans: Sequence[_Span]) -> Iterator[Sums]:
        """Sums over each span, in this order; with an engine, those of the next ones are under way."""
        pieces = chain.from_iterable(self._pieces(span) for span in spans)
        found = self.executor.map(partial(piece_sums, average=self.average), pieces)
        for span in spans:
            yield added(islice(found, len(pieces_of(self.data, span.begin, span.end))))

    def _pieces(self, span: _Span) -> Iterator[Piece]:
        windows = self.data.windows(span.part, *self._size)
        if isinstance(self.data, SyntheticData):
            return independent_pieces(windows, span.begin, span.end, span.labels)
        begin, end = windows.first + span.begin, windows.first + span.end
        return series_pieces(self.data, *self._size, begin, end, span.labels)

    @property
    def _size(self) -> tuple[int, int]:
        return self.lookback, self.horizon
