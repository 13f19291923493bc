"""Is one forecaster better than another?  Paired circular block bootstrap over windows in the order of time.

Both are evaluated on the same windows, and errors of neighbouring windows are alike: windows with stride 1
share all but one step, and a hard week is hard for both.  So whole stretches of neighbouring windows are
drawn, the same ones for both (Politis and Romano, "A circular block-resampling procedure for stationary
data"; Kuensch, "The jackknife and the bootstrap for general stationary observations").

Length of a block
    Windows closer than the horizon forecast some of the same steps, and demand and weather have a rhythm of a
    week.  A block is a week of windows plus a horizon; the season plus a horizon where a step is longer than
    a day; lookback plus horizon where the step is unknown.  On synthetic errors with these dependences a
    nominal 95 % interval from blocks of a day covers 60 %, from such blocks 90 to 95 %.

Few blocks
    A bootstrap of k blocks is too narrow: it treats the mean of all blocks as known, and a spread seen k
    times as certain.  Its deviations are therefore stretched by sqrt(k / (k - 1)), and by Student's t with
    k - 1 degrees of freedom over the normal quantile: 1.2 for 10 blocks, 1.9 for 4.  With fewer than three
    blocks there is no interval, and the record says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Dataset, Panel
from ..data.timeline import steps_per_week

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_BLOCKS = 3
SMALLEST_MSE = 1e-12
"""Below it an error on scaled data is rounding, and a ratio of two of them means nothing."""


@dataclass(frozen=True)
class Comparison:
    """What the first of two forecasters has over the second; negative where the first is better.

    Attributes:
        difference: of the mean squared errors, scaled data.
        relative: ratio of the mean squared errors, less 1.
        difference_interval: None where the windows span too few blocks.
        relative_interval: of ``relative``, from the same resamples.
        windows: how many were compared.
        block_windows: length of a block.
        method: how, in words.
    """

    difference: float
    relative: float
    difference_interval: Interval | None
    relative_interval: Interval | None
    windows: int
    block_windows: int
    method: str

    @property
    def better(self) -> bool:
        """The whole interval is on the side of the first."""
        return self.relative_interval is not None and self.relative_interval[1] < 0

    @property
    def worse(self) -> bool:
        """The whole interval is on the side of the second."""
        return self.relative_interval is not None and self.relative_interval[0] > 0

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "difference": self.difference,
            "difference_interval": self.difference_interval and list(self.difference_interval),
            "relative": self.relative,
            "relative_interval": self.relative_interval and list(self.relative_interval),
            "windows": self.windows,
            "block_windows": self.block_windows,
            "method": self.method,
        }


def block_windows(data: Dataset, lookback: int, horizon: int) -> int:
    """Windows in a block: see the head of this file."""
    if isinstance(data, Panel):  # item by item, in the order of time: a block is all of an item
        return -(-len(data.windows("test", lookback, horizon)) // len(data.ids))
    if data.frequency is None:
        return lookback + horizon
    return (steps_per_week(data.frequency) or data.seasonality) + horizon


def compare(
    first: Array, second: Array, block: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compares the errors of two forecasters on the same windows.

    Args:
        first: ``[N]`` mean squared error of each window, in the order of time, not negative.
        second: the same of the other forecaster.
        block: windows in a block, see ``block_windows``.
        resamples: how often the windows are drawn anew.
        seed: of the draws.

    Raises:
        ValueError: not the same number of windows.
    """
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"errors of {first.shape} and {second.shape} windows cannot be paired")
    means = np.array([first.mean(), second.mean()])
    blocks = len(first) / block
    method = f"paired circular block bootstrap, {resamples} resamples, seed {seed}, blocks of {block} windows"
    difference_interval = relative_interval = None
    if blocks < FEWEST_BLOCKS:
        method = (
            f"no interval: {len(first)} windows are {blocks:.1f} blocks of {block}, "
            f"fewer than {FEWEST_BLOCKS}"
        )
    else:
        stretch = _stretch(blocks)
        method += f", {CONFIDENCE:.0%} percentiles stretched by {stretch:.2f} for {blocks:.1f} blocks"
        drawn = resampled_means(np.stack([first, second]), block, resamples, seed)
        difference_interval = _interval(drawn[0] - drawn[1], means[0] - means[1], stretch)
        logs = _interval(_log_ratio(drawn), float(_log_ratio(means)), stretch)
        relative_interval = (math.expm1(logs[0]), math.expm1(logs[1]))
    return Comparison(
        difference=float(means[0] - means[1]),
        relative=math.expm1(float(_log_ratio(means))),
        difference_interval=difference_interval,
        relative_interval=relative_interval,
        windows=len(first),
        block_windows=block,
        method=method,
    )


def mean_interval(errors: Array, block: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Of the mean of ``errors [N]``, by the same rule; None for fewer than three blocks.

    How much the level of an error depends on the weeks that were tested.  It says nothing about a difference
    between two forecasters, which is paired: see ``compare``.
    """
    blocks = len(errors) / block
    if blocks < FEWEST_BLOCKS:
        return None
    drawn = resampled_means(errors[None], block, resamples, seed)[0]
    low, high = _interval(drawn, float(errors.mean()), _stretch(blocks))
    return max(low, 0.0), high


def resampled_means(series: Array, block: int, resamples: int, seed: int) -> Array:
    """Means ``[S, resamples]`` of series ``[S, N]``, the same windows drawn for all of them.

    Blocks start anywhere and go round the end, the last one is cut so that N windows are drawn.  A block's
    sum is a difference of two cumulative sums, so no window is copied.
    """
    count = series.shape[1]
    whole, rest = divmod(count, block)
    generator = np.random.default_rng(seed)
    total: Array = _window_sums(series, block)[:, generator.integers(count, size=(resamples, whole))].sum(
        axis=2
    )
    if rest:
        total += _window_sums(series, rest)[:, generator.integers(count, size=resamples)]
    total /= count
    return total


def _window_sums(series: Array, length: int) -> Array:
    """``[S, N]`` sums over ``length`` neighbours from every place on, round the end."""
    wrapped = np.concatenate([np.zeros((len(series), 1)), series, series[:, :length]], axis=1).cumsum(axis=1)
    sums: Array = wrapped[:, length : length + series.shape[1]] - wrapped[:, : series.shape[1]]
    return sums


def _log_ratio(means: Array) -> Array:
    """Logarithm of ``means[0] / means[1]``."""
    ratio: Array = np.log(np.maximum(means[0], SMALLEST_MSE) / np.maximum(means[1], SMALLEST_MSE))
    return ratio


def _interval(drawn: Array, point: float, stretch: float) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(point + stretch * (low - point)), float(point + stretch * (high - point))


def _stretch(blocks: float) -> float:
    """How much wider the interval of a mean of so many blocks is than its bootstrap says."""
    normal = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return student_quantile(normal, blocks - 1) / normal * math.sqrt(blocks / (blocks - 1))


def student_quantile(normal: float, degrees: float) -> float:
    """Student's t quantile from the normal one of the same probability (Abramowitz and Stegun, 26.7.5).

    Within 0.2 % for 5 degrees of freedom and more, 3 % too small for 2.
    """
    z, z2 = normal, normal * normal
    terms = (
        z * (z2 + 1) / 4,
        z * (5 * z2**2 + 16 * z2 + 3) / 96,
        z * (3 * z2**3 + 19 * z2**2 + 17 * z2 - 15) / 384,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
