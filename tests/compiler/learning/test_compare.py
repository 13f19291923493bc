"""Intervals that hold what they promise on series whose errors depend on their neighbours."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from tsfmc.compiler.data import Dataset
from tsfmc.compiler.data.timeline import steps_per_season
from tsfmc.compiler.learning.compare import block_windows, compare, resampled_means, student_quantile

HORIZON = 96
WEEK = 168


def paired_errors(generator: np.random.Generator, windows: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of two forecasters on overlapping windows; the first is truly better by ``gain``.

    Errors per step follow an AR(1) with a memory of ten steps; a window is the mean over its horizon.
    """
    steps = windows + HORIZON
    noise = generator.standard_normal((2, steps + 200))
    common, own = scipy.signal.lfilter([1], [1, -0.9], noise, axis=1)[:, 200:]
    second = 10 + common
    first = second - gain + 0.3 * own
    sums = np.cumsum(np.stack([first, second]), axis=1)
    means = (sums[:, HORIZON:] - sums[:, :-HORIZON]) / HORIZON
    return means[0], means[1]


def coverage(windows: int, block: int, trials: int = 300) -> float:
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(trials):
        first, second = paired_errors(generator, windows, gain=0.05)
        found = compare(first, second, block, resamples=400, seed=trial)
        assert found.difference_interval is not None
        low, high = found.difference_interval
        covered += low <= -0.05 <= high
    return covered / trials


def test_covers_what_it_promises() -> None:
    assert 0.91 <= coverage(2785, WEEK + HORIZON) <= 0.99


def test_covers_with_few_blocks() -> None:
    assert 0.9 <= coverage(1000, WEEK + HORIZON) <= 0.995


def test_blocks_of_a_day_would_be_too_narrow() -> None:
    assert coverage(2785, 24, trials=150) < 0.8


def test_the_pairing_is_used() -> None:
    """The common part of the errors is large; only the pair shows a difference this small."""
    first, second = paired_errors(np.random.default_rng(0), 8000, gain=0.3)
    paired = compare(first, second, WEEK + HORIZON)
    shifted = compare(first, np.roll(second, 4000), WEEK + HORIZON)
    assert paired.better and not paired.worse and paired.relative == pytest.approx(-0.03, abs=0.01)
    assert not shifted.better
    swapped = compare(second, first, WEEK + HORIZON)
    assert swapped.worse and swapped.difference == pytest.approx(-paired.difference)


def test_constant_difference_has_no_width() -> None:
    errors = np.abs(np.random.default_rng(0).standard_normal(3000))
    found = compare(errors + 0.5, errors, 264)
    assert found.difference == pytest.approx(0.5)
    assert found.difference_interval == pytest.approx((0.5, 0.5))
    assert found.relative == pytest.approx((errors.mean() + 0.5) / errors.mean() - 1)
    same = compare(errors, errors, 264)
    assert same.relative == 0 and same.relative_interval == (0, 0) and not same.better and not same.worse


@pytest.mark.parametrize(("windows", "block"), [(10, 3), (12, 3), (7, 7), (5, 1)])
def test_resamples_are_the_circular_blocks(windows: int, block: int) -> None:
    """Against blocks copied one by one, from the same draws."""
    series = np.random.default_rng(3).random((2, windows))
    found = resampled_means(series, block, 50, seed=4)
    generator = np.random.default_rng(4)
    whole, rest = divmod(windows, block)
    starts = generator.integers(windows, size=(50, whole))
    lasts = generator.integers(windows, size=50) if rest else np.zeros(50, dtype=int)
    for sample in range(50):
        places = [(start + step) % windows for start in starts[sample] for step in range(block)]
        places += [(lasts[sample] + step) % windows for step in range(rest)]
        assert len(places) == windows
        assert found[:, sample] == pytest.approx(series[:, places].mean(axis=1))


def test_same_seed_same_interval() -> None:
    first, second = paired_errors(np.random.default_rng(0), 1500, gain=0.05)
    assert compare(first, second, 264) == compare(first, second, 264)
    assert compare(first, second, 264) != compare(first, second, 264, seed=1)


def test_too_few_blocks_give_no_interval_and_say_so() -> None:
    errors = np.random.default_rng(0).random(500)
    found = compare(errors, errors + 0.1, 264)
    assert found.relative_interval is None and found.difference_interval is None
    assert found.method == "no interval: 500 windows are 1.9 blocks of 264, fewer than 3"
    assert not found.better and not found.worse and found.difference == pytest.approx(-0.1)


def test_errors_of_other_windows_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(np.ones(5), np.ones(6), 1)


def test_a_rival_without_error() -> None:
    found = compare(np.full(1000, 0.5), np.zeros(1000), 100)
    assert found.worse and np.isfinite(found.relative)


@dataclass
class Series:
    frequency: str | None

    @property
    def seasonality(self) -> int:
        return steps_per_season(self.frequency)


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [("h", 168 + 96), ("15min", 672 + 96), ("D", 7 + 96), ("B", 5 + 96), ("MS", 12 + 96), ("W", 52 + 96),
     ("5h", 34 + 96), (None, 512 + 96)],
)  # fmt: skip
def test_a_block_is_at_least_a_week(frequency: str | None, expected: int) -> None:
    assert block_windows(cast(Dataset, Series(frequency)), 512, 96) == expected


@pytest.mark.parametrize(
    ("degrees", "tolerance"), [(2, 0.04), (3, 0.01), (5, 2e-3), (9.5, 1e-4), (100, 1e-6)]
)
def test_student_quantile(degrees: float, tolerance: float) -> None:
    expected: Any = scipy.stats.t.ppf(0.975, degrees)
    assert student_quantile(scipy.stats.norm.ppf(0.975), degrees) == pytest.approx(expected, rel=tolerance)


def test_a_year_of_quarter_hours_takes_no_second() -> None:
    errors = np.random.default_rng(0).random((2, 11425))
    started = time.process_time()
    compare(errors[0], errors[1], 768)
    assert time.process_time() - started < 1
