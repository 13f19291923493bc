"""Judging a branch beside an affine student by rolling origins: how long it trains and how far it is trusted.

For every fold the affine start is solved on the windows before the block, the branch is trained on the same
windows, and after each epoch the block's squared error is taken at every gain g at once,

    |y - affine - g c|^2 = |y - affine|^2 - 2 g (y - affine) c + g^2 |c|^2

summed over the block.  The judgement of (epochs, gain) is the mean over folds, less the best and the worst
one, of the logarithm of that error over the affine start's.  Nothing trained (0 epochs) is a candidate and
scores 0.  A gain below one is the average of the student with its start: what the branch learnt of one season
and not of all counts less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..data import Dataset, Windows
from ..students.residual import Residual
from .affine import Setting, solve
from .evaluate import BATCH_WINDOWS
from .rolling_origin import middle, standard_error
from .statistics import Sums, WindowStatistics

GAINS = (0.25, 0.5, 0.75, 1.0)
SAMPLE_WINDOWS = 512
"""Training windows, evenly spread, on which a branch's inputs are brought to unit spread."""


@dataclass(frozen=True)
class Origin:
    """One fold: the branch untrained beside the fold's own affine start.

    Attributes:
        name: of the block.
        student: what is trained.
        windows: number of training windows, from the first on.
        judged: the block's windows, indices into ``judged_of``.
        judged_of: the windows of the split that the block is in.
    """

    name: str
    student: Residual
    windows: int
    judged: Sequence[int]
    judged_of: Windows


@dataclass(frozen=True)
class Verdict:
    """The best of all (epochs, gain), or 0 epochs where none is better than the affine start.

    Attributes:
        log_ratio: mean over folds, as affine students are judged, of the log of its error over the start's.
        standard_error: of that mean; 0 for a single fold.
        ratios: of each fold.
    """

    epochs: int
    gain: float
    log_ratio: float
    standard_error: float
    ratios: tuple[float, ...]


@dataclass
class Judge:
    """Collects errors fold by fold; ``curves[k][e]`` has those of fold k after e epochs, one a gain."""

    gains: tuple[float, ...] = GAINS
    curves: list[list[Tensor]] = field(default_factory=list)

    def open(self) -> None:
        """A new fold begins."""
        self.curves.append([])

    @torch.inference_mode()
    def measure(self, origin: Origin, student: Residual) -> float:
        """Takes the block's error after one more epoch.

        Returns:
            the judgement of this epoch, at its best gain, over this fold and those before it.
        """
        pieces = torch.zeros(3, dtype=torch.float64)
        device = next(student.parameters()).device
        for at in range(0, len(origin.judged), BATCH_WINDOWS):
            past, future = origin.judged_of.batch(origin.judged[at : at + BATCH_WINDOWS])
            affine, correction, _ = (part.cpu().double() for part in student.parts(past.to(device)))
            error = future - affine
            pieces += torch.stack(
                [error.square().sum(), (error * correction).sum(), correction.square().sum()]
            )
        gains = torch.tensor(self.gains, dtype=torch.float64)
        errors = pieces[0] - 2 * gains * pieces[1] + gains.square() * pieces[2]
        self.curves[-1].append(((errors + 1e-12) / (pieces[0] + 1e-12)).log())
        return self.verdict(len(self.curves[-1]) - 1).log_ratio

    def verdict(self, epochs: int) -> Verdict:
        """The best gain after so many epochs."""
        ratios = torch.stack([curve[min(epochs, len(curve) - 1)] for curve in self.curves])
        means = [middle(ratios[:, gain]) for gain in range(len(self.gains))]
        gain = min(range(len(means)), key=means.__getitem__)
        mine = ratios[:, gain]
        return Verdict(epochs, self.gains[gain], means[gain], standard_error(mine), tuple(mine.tolist()))

    def best(self) -> Verdict:
        """The best of all epochs; of equals, the shortest training."""
        verdicts = (self.verdict(epochs) for epochs in range(len(self.curves[-1])))
        return min(verdicts, key=lambda verdict: verdict.log_ratio)


def branch_basis(
    sums: Sums, setting: Setting, size: int, prior: Sums | None = None
) -> tuple[Sequence[Tensor], Tensor]:
    """The solved arrays, and the branch's embedding ``[r, L]``.

    A low-rank student's basis serves both.  Otherwise the embedding is the basis of the low-rank student of
    ``size`` directions that is solved for the same target: those that matter for the forecast.
    """
    arrays = solve(sums, setting, prior).arrays()
    if setting.form == "low-rank":
        return arrays, arrays[0]
    variates, lookback, horizon = sums.cross["truth"].shape
    size = min(size, lookback - 1, variates * horizon)
    return arrays, solve(sums, replace(setting, form="low-rank", rank=size), prior).arrays()[0]


def sample(data: Dataset, lookback: int, horizon: int, count: int) -> Tensor:
    """Windows ``[N, D, L]`` evenly spread over the first ``count`` training windows."""
    spread = torch.linspace(0, count - 1, min(count, SAMPLE_WINDOWS)).round().long()
    return data.windows("train", lookback, horizon).batch(spread)[0]


def origins(statistics: WindowStatistics, setting: Setting, student: Residual) -> Iterator[Origin]:
    """The folds of the statistics in the order of time; the last one trains on all of training."""
    data, lookback, horizon = statistics.data, statistics.lookback, statistics.horizon
    train, validation = (data.windows(part, lookback, horizon) for part in ("train", "val"))  # type: ignore[arg-type]
    size = int(student.config["embedding"])
    for fold in statistics.folds():
        arrays, basis = branch_basis(fold.fit, setting, size, fold.prior)
        start = student.restarted(arrays, basis, sample(data, lookback, horizon, fold.fit.count))
        if fold.name == "validation":
            yield Origin(fold.name, start, fold.fit.count, range(len(validation)), validation)
        else:
            # A fit ends where its last future ends before the first one that is judged.
            begin = fold.fit.count + horizon - 1
            yield Origin(fold.name, start, fold.fit.count, range(begin, begin + fold.judged.count), train)


def percent(log_ratio: float) -> float:
    """How much lower an error is, in percent."""
    return 100 * (1 - math.exp(log_ratio))
