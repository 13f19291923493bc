"""What samples say: percentiles, modes, noise, and a ratio with its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tsfmc.targets.artifact.device.modes import find_modes
from tsfmc.targets.artifact.device.timings import (
    BETWEEN_RUNS,
    NOISY,
    PERCENTILES,
    Ratio,
    Row,
    percentile_bound,
    ratio_of,
)


def row(turn_medians: np.ndarray, *, calls: int = 4, cpu: np.ndarray | None = None) -> Row:
    """A row of turns with equal calls; wall and core agree unless ``cpu`` is given."""
    turns = [np.full(calls, value) for value in turn_medians]
    return Row("x", turns, np.asarray(turn_medians if cpu is None else cpu, dtype=float))


@pytest.mark.parametrize(
    ("percentile", "needs"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_a_percentile_needs_the_queries_that_mlperf_asks_for(percentile: float, needs: int) -> None:
    assert percentile_bound(range(needs - 1), percentile) is None
    assert percentile_bound(range(needs), percentile) == needs - 1
    assert percentile_bound([], percentile) is None


@pytest.mark.parametrize(("n", "percentile"), [(200, 0.9), (1000, 0.5), (64, 0.9), (20_000, 0.99)])
def test_the_estimate_is_the_exact_binomial_bound(n: int, percentile: float) -> None:
    def tail(t: int) -> float:
        return sum(
            math.exp(
                math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
                + k * math.log(1 - percentile) + (n - k) * math.log(percentile)
            )
            for k in range(t + 1)
        )  # fmt: skip

    t = n - int(percentile_bound(range(n), percentile))  # type: ignore[arg-type]
    assert tail(t) <= 0.01 < tail(t + 1)


def test_the_estimate_is_an_upper_bound_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    missed = sum(percentile_bound(rng.random(200), 0.9) < 0.9 for _ in range(1000))  # type: ignore[operator]
    assert missed <= 20


def test_percentiles_of_millions_of_samples_take_no_time() -> None:
    samples = np.arange(3_000_000)
    assert percentile_bound(samples, 0.5) == pytest.approx(1_500_000, rel=0.01)


def test_a_row_to_the_digit() -> None:
    one = Row(
        "x",
        [np.array([100_000.0, 101_000.0]), np.array([120_000.0, 90_000.0, 99_000.0])],
        np.array([9e4, 9e4]),
    )
    assert one.median_us == 100 and one.spread == pytest.approx(0.01)
    assert all(one.percentile_us(name) is None for name in PERCENTILES)
    record = one.to_dict()
    assert record.keys() == {"median_us", "n", "spread", "noisy", "cpu_median_us", "off_cpu"}
    assert record["n"] == 5 and record["cpu_median_us"] == 90
    assert record["off_cpu"] == pytest.approx(1 - 180 / (100.5 + 103))


def test_noise_is_variation_of_warm_calls_or_somebody_else_on_the_core() -> None:
    rng = np.random.default_rng(0)

    def drawn(deviation: float, cpu: float = 1.0) -> Row:
        # The median absolute deviation of a normal sample is 0.6745 of its standard deviation.
        turns = [rng.normal(1e5, deviation / 0.6745 * 1e5, 50) for _ in range(20)]
        return Row("x", turns, cpu * np.array([turn.mean() for turn in turns]))

    assert not drawn(0.8 * NOISY).noisy and drawn(1.25 * NOISY).noisy
    assert not drawn(0.01, cpu=0.96).noisy and drawn(0.01, cpu=0.94).noisy


def test_cold_calls_vary_by_themselves() -> None:
    rng = np.random.default_rng(0)

    def cold(deviation: float) -> Row:
        values = rng.normal(1e5, deviation * 1e5, 128)
        return Row("x", [np.array([value]) for value in values], values)

    assert not cold(0.12).noisy and cold(0.5).noisy


def test_one_mode_is_one_mode() -> None:
    rng = np.random.default_rng(0)
    for samples in (
        rng.normal(1e5, 2e3, 2000),
        rng.lognormal(11, 0.4, 2000),
        1e5 + rng.exponential(5e4, 2000),  # a tail thins out and never thickens again
        rng.uniform(1e5, 2e5, 2000),
        np.full(500, 1e5),
        np.concatenate([rng.normal(1e5, 2e3, 1990), rng.normal(4e5, 1e4, 10)]),  # outliers, half a per cent
        rng.normal(1e5, 2e3, 20),
    ):
        assert len(find_modes(samples)) == 1, find_modes(samples)


@pytest.mark.parametrize("n", [64, 500, 100_000])
def test_a_second_mode_is_found_with_its_share(n: int) -> None:
    rng = np.random.default_rng(1)
    second = rng.random(n) < 0.3
    samples = np.where(second, rng.normal(1.5e5, 4e3, n), rng.normal(1e5, 3e3, n))
    modes = find_modes(samples)
    assert [time for time, _ in modes] == pytest.approx([100, 150], rel=0.02)
    assert [share for _, share in modes] == pytest.approx([1 - second.mean(), second.mean()], abs=0.01)


def test_three_modes_and_the_record_that_has_them() -> None:
    rng = np.random.default_rng(2)
    samples = np.concatenate([rng.normal(centre, 2e3, 300) for centre in (1e5, 1.6e5, 3e5)])
    assert [round(time, -1) for time, _ in find_modes(samples)] == [100, 160, 300]
    record = Row("x", [samples], np.array([1e5])).to_dict()
    assert [mode["share"] for mode in record["modes"]] == pytest.approx([1 / 3] * 3)
    assert "modes" not in Row("x", [samples[:300]], np.array([1e5])).to_dict()


def test_equal_rounds_leave_the_variation_between_runs() -> None:
    ratio = ratio_of(row(np.full(64, 4e5)), row(np.full(64, 1e5)))
    edge = math.exp(1.96 * BETWEEN_RUNS)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((4, 4 / edge, 4 * edge))


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    """Both slow down threefold during the run: medians move, the ratio does not."""
    drift = np.linspace(1, 3, 512)
    noise = np.random.default_rng(0).normal(1, 0.02, (2, 512))
    ratio = ratio_of(row(1e6 * drift * noise[0]), row(1e5 * drift * noise[1]))
    assert ratio.low <= 10 <= ratio.high and ratio.high - ratio.low < 1.6


def test_drift_that_does_not_cancel_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    slow = 1e5 * (1 + 0.3 * np.sin(np.arange(900) / 30))
    widths = []
    for medians in (slow, rng.permutation(slow)):
        ratio = ratio_of(row(medians), row(np.full(900, 1e5)))
        widths.append(ratio.high - ratio.low)
    assert widths[0] > 1.5 * widths[1]


@pytest.mark.parametrize(("rounds", "seeds"), [(16, 60), (64, 40), (256, 20)])
def test_the_interval_holds_the_truth_as_often_as_it_says(rounds: int, seeds: int) -> None:
    """Rounds whose times wander (AR(1), 0.7), 10 % noise each: the true ratio is 4."""
    held = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.1, (2, rounds))
        for t in range(1, rounds):
            noise[:, t] = 0.7 * noise[:, t - 1] + 0.3 * noise[:, t]
        ratio = ratio_of(row(4e5 * np.exp(noise[0])), row(1e5 * np.exp(noise[1])))
        assert ratio.low < ratio.value < ratio.high
        held += ratio.low <= 4 <= ratio.high
    assert held >= 0.9 * seeds


def test_short_and_long_runs_of_one_machine_overlap() -> None:
    """Every run has its own offset, as memory lies elsewhere: 16 and 144 rounds agree nearly always."""
    rng = np.random.default_rng(5)

    def run(rounds: int) -> Ratio:
        offset = np.exp(rng.normal(0, BETWEEN_RUNS))
        medians = rng.normal(1, 0.01, (2, rounds))
        return ratio_of(row(4e5 * offset * medians[0]), row(1e5 * medians[1]))

    pairs = [(run(16), run(144)) for _ in range(30)]
    assert sum(a.low <= b.high and b.low <= a.high for a, b in pairs) >= 28


def test_load_widens_the_interval_and_leaves_the_ratio() -> None:
    rng = np.random.default_rng(0)
    core = 4e5 * rng.normal(1, 0.01, 64)
    loaded = row(core * rng.choice([1.0, 3.0], 64), cpu=core)
    ratio = ratio_of(loaded, row(np.full(64, 1e5)))
    assert ratio.value == pytest.approx(4, rel=0.01) and ratio.low < 4 and ratio.high > 10


def test_the_interval_repeats_and_has_no_randomness_of_its_own() -> None:
    rng = np.random.default_rng(3)
    slow, fast = row(rng.normal(4e5, 4e4, 400)), row(rng.normal(1e5, 1e4, 400))
    assert ratio_of(slow, fast) == ratio_of(slow, fast)


def test_a_clock_that_does_not_tick_is_not_divided_by() -> None:
    """Processor time of short turns is zero on some systems."""
    ratio = ratio_of(row(np.full(16, 4e5)), row(np.full(16, 1e5), cpu=np.zeros(16)))
    assert ratio.value == 4
    assert "cpu_median_us" not in row(np.full(16, 1e5), cpu=np.zeros(16)).to_dict()
