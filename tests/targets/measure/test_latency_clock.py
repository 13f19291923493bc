"""The latency rule by a clock that only candidates move: what is measured, to the nanosecond."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tsfmc.compiler.base.errors import UsageError, VerificationError
from tsfmc.targets.measure import latency
from tsfmc.targets.measure.latency import (
    MIN_ROUNDS,
    NOISY,
    PERCENTILES,
    LatencyReport,
    Ratio,
    Row,
    github_action_benchmark,
    measure,
    torch_candidate,
)

WINDOWS = np.random.default_rng(0).standard_normal((70, 2, 16)).astype(np.float32)


class Clock:
    """Nanoseconds that pass only while a candidate runs."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.calls: list[tuple[str, int]] = []

    def candidate(self, name: str, nanoseconds: int, first: int = 0):  # type: ignore[no-untyped-def]
        """Takes ``nanoseconds`` a call, ``first`` more in its first one; notes which window it got."""

        def call(past: np.ndarray) -> np.ndarray:
            assert past.shape == (1, 2, 16) and past.dtype == np.float32 and past.flags.c_contiguous
            place = int(np.flatnonzero((past[0] == WINDOWS).all(axis=(1, 2)))[0])
            fresh = not any(other == name for other, _ in self.calls)
            self.calls.append((name, place))
            self.now += nanoseconds + (first if fresh else 0)
            return past[..., :4]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter_ns=lambda: clock.now))
    return clock


def run(clock: Clock, slow_ns: int = 500_000, fast_ns: int = 100_000, **options: object) -> LatencyReport:
    candidates = {
        "artifact": clock.candidate("artifact", fast_ns, first=50 * fast_ns),
        "teacher": clock.candidate("teacher", slow_ns, first=50 * slow_ns),
    }
    return measure(candidates, WINDOWS, **{"warmup_calls": 5, "warmup_s": 0.0, **options})  # type: ignore[arg-type]


def counts(report: LatencyReport) -> dict[str, tuple[int, ...]]:
    return {name: row.samples_ns.shape for name, row in report.rows.items()}


def test_samples_are_the_times_of_the_calls(clock: Clock) -> None:
    """The slow first call belongs to the warm-up: it is in no sample and moves no plan."""
    report = run(clock, duration_s=0.06, min_queries=90)
    assert set(report.rows["artifact"].samples_ns.ravel()) == {100_000}
    assert set(report.rows["teacher"].samples_ns.ravel()) == {500_000}
    assert counts(report) == {"artifact": (100, 1), "teacher": (100, 1)}
    assert report.rows["artifact"].median_us == 100 and report.rows["artifact"].spread == 0
    ratio = report.ratio("teacher", "artifact")
    assert ratio == Ratio(5, 5, 5) and report.ratio("artifact", "teacher").value == 0.2


@pytest.mark.parametrize(
    ("calls", "seconds", "expected"), [(5, 0.0, 5), (1, 0.0, 1), (5, 0.0105, 61), (0, 0.0, 1)]
)
def test_warm_up_by_calls_and_by_seconds(clock: Clock, calls: int, seconds: float, expected: int) -> None:
    """Both must be reached: 10.5 ms at 0.1 ms a call, whose first one takes 5.1 ms."""
    candidate = clock.candidate("artifact", 100_000, first=5_000_000 if seconds else 0)
    if seconds:
        expected = 1 + round((seconds - 0.0051) / 0.0001)
    report = measure({"artifact": candidate}, WINDOWS, duration_s=0.0, warmup_calls=calls, warmup_s=seconds)
    assert f"warm-up {expected}," in report.method
    assert len(clock.calls) == expected + MIN_ROUNDS


def test_windows_rotate_and_candidates_alternate(clock: Clock) -> None:
    run(clock, duration_s=0.06, min_queries=90)
    assert [place for name, place in clock.calls[:5]] == list(range(5))
    assert [place for name, place in clock.calls[5:10]] == list(range(5))
    measured = clock.calls[10:]
    assert [name for name, _ in measured] == ["artifact", "teacher"] * 100
    for which in ("artifact", "teacher"):
        assert [place for name, place in measured if name == which] == [i % 70 for i in range(100)]


def test_a_slow_teacher_gets_64_rounds_and_the_fast_one_its_queries(clock: Clock) -> None:
    """5 ms against 10 us: 64 rounds, and 16 calls a round make 1024."""
    report = run(clock, 5_000_000, 10_000, duration_s=0.01)
    assert counts(report) == {"artifact": (64, 16), "teacher": (64, 1)}
    assert [name for name, _ in clock.calls[10:27]] == ["artifact"] * 16 + ["teacher"]
    assert "n 1024 artifact / 64 teacher" in report.method
    assert "calls a round 16 artifact / 1 teacher" in report.method and "70 windows" in report.method


def test_no_more_calls_a_round_than_the_slowest_takes(clock: Clock) -> None:
    """The teacher takes three calls of the artifact: more would make the artifact the slow part."""
    report = run(clock, 3_000_000, 1_000_000, duration_s=0.01)
    assert counts(report) == {"artifact": (64, 3), "teacher": (64, 1)}


@pytest.mark.parametrize(
    ("duration", "rounds"), [(0.0, 64), (0.0384, 64), (0.0385, 65), (0.06, 100), (1e9, 16384)]
)
def test_rounds_by_duration_between_their_bounds(clock: Clock, duration: float, rounds: int) -> None:
    """0.6 ms a round."""
    report = run(clock, duration_s=duration, min_queries=1)
    assert counts(report) == {"artifact": (rounds, 1), "teacher": (rounds, 1)}


def test_fewer_rounds_on_request(clock: Clock) -> None:
    report = run(clock, duration_s=0.0, min_rounds=5, min_queries=5)
    assert counts(report) == {"artifact": (5, 1), "teacher": (5, 1)}
    assert "n 5, 5 windows" in report.method and report.method.endswith("too few calls for percentiles")


def test_the_method_in_words(clock: Clock) -> None:
    report = run(clock, duration_s=0.0, threads=3, precision="int8")
    assert report.method == (
        "single-stream, batch 1, L 16, H 4, D 2, int8, 3 threads, warm-up 5, n 320 artifact / 64 teacher, "
        "70 windows, host copies in, interleaved with teacher, calls a round 5 artifact / 1 teacher, "
        "percentiles are upper bounds at confidence 0.99"
    )
    alone = measure({"x": clock.candidate("x", 10)}, WINDOWS, duration_s=0.0, warmup_calls=2, warmup_s=0)
    assert (
        "interleaved" not in alone.method
        and "1 thread," in alone.method
        and "n 64, 64 windows" in alone.method
    )
    both = measure(
        {name: clock.candidate(name, 10) for name in ("a", "b")},
        WINDOWS,
        duration_s=0.0,
        warmup_calls=2,
        warmup_s=0,
    )
    assert "interleaved with a and b" in both.method


def test_records(clock: Clock) -> None:
    report = run(clock, duration_s=0.0, forms={"teacher": "fp32, inference_mode"})
    record = report.to_manifest()
    assert record["speedup"] == 5 and record["speedup_interval"] == [5, 5] and record["noisy"] is False
    assert record["teacher"] == {
        "p50_us": 500,
        "p90_us": 500,
        "median_us": 500,
        "n": 64,
        "spread": 0,
        "noisy": False,
        "form": "fp32, inference_mode",
    }
    assert record["artifact"].keys() == {"p50_us", "p90_us", "p95_us", "median_us", "n", "spread", "noisy"}
    assert record["method"] == report.method and record["host"] == dict(report.host)
    alone = LatencyReport({"artifact": report.rows["artifact"]}, "m").to_manifest()
    assert "speedup" not in alone and alone["host"] == {}


def test_entries_for_continuous_benchmarks(clock: Clock) -> None:
    report = run(clock, duration_s=0.0)
    entries = {entry["name"]: entry for entry in github_action_benchmark(report, "demo")}
    assert entries.keys() == {
        "demo artifact p50",
        "demo artifact p90",
        "demo teacher p50",
        "demo teacher p90",
        "demo artifact / teacher",
    }
    assert entries["demo teacher p90"] == {
        "name": "demo teacher p90",
        "unit": "us",
        "value": 500,
        "range": "± 0.0%",
        "extra": report.method,
    }
    assert entries["demo artifact / teacher"]["value"] == 0.2
    assert entries["demo artifact / teacher"]["unit"] == "ratio"
    assert entries["demo artifact / teacher"]["range"] == "0.2 to 0.2"
    teacher = LatencyReport({"teacher": report.rows["teacher"]}, "m")
    assert len(github_action_benchmark(teacher, "demo")) == 2


def test_a_row() -> None:
    row = Row("x", np.array([[100_000.0], [101_000.0], [120_000.0], [90_000.0], [99_000.0]]))
    assert row.median_us == 100 and row.spread == pytest.approx(0.01)
    assert all(row.percentile_us(name) is None for name in PERCENTILES)
    assert row.to_dict() == {"median_us": 100, "n": 5, "spread": pytest.approx(0.01), "noisy": False}
    loud = Row("x", np.array([[1.0 - 1.02 * NOISY, 1.0, 1.0 + 1.02 * NOISY]]))
    quiet = Row("x", np.array([[1.0 - 0.98 * NOISY, 1.0, 1.0 + 0.98 * NOISY]]))
    assert loud.to_dict()["noisy"] and not quiet.to_dict()["noisy"]
    assert LatencyReport({"a": quiet, "b": loud}, "").noisy and not LatencyReport({"a": quiet}, "").noisy
    exact = Row("x", np.array([[1.0 - NOISY, 1.0, 1.0 + NOISY]]) * 2**20)
    assert exact.to_dict()["noisy"] == (exact.spread > NOISY)


def test_the_interval_is_of_the_ratio_and_repeats() -> None:
    """The true ratio is 4: the 95 % interval nearly always holds it, is narrow, and the same twice."""
    held = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = {
            "slow": Row("slow", rng.normal(4e5, 4e4, (400, 1))),
            "fast": Row("fast", rng.normal(1e5, 1e4, (400, 3))),
        }
        ratio = LatencyReport(rows, "").ratio("slow", "fast")
        if seed == 0:  # as it was when its blocks, resamples and percentiles were last looked at
            assert ratio == LatencyReport(rows, "").ratio("slow", "fast")
            assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
                (3.98590, 3.90284, 4.03856), abs=1e-5
            )
        assert ratio.low < ratio.value < ratio.high and 0.02 < ratio.high - ratio.low < 0.25
        held += ratio.low <= 4 <= ratio.high
    assert held >= 6


def test_blocks_of_rounds_keep_what_follows_each_other() -> None:
    """A time that drifts makes a wider interval than the same samples in any order."""
    rng = np.random.default_rng(0)
    slow = 1e5 * (1 + 0.3 * np.sin(np.arange(900) / 30))[:, None]
    steady = Row("fast", np.full((900, 1), 1e5))
    widths = []
    for samples in (slow, rng.permutation(slow)):
        ratio = LatencyReport({"slow": Row("slow", samples), "fast": steady}, "").ratio("slow", "fast")
        widths.append(ratio.high - ratio.low)
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize("windows", [WINDOWS[:63], WINDOWS[0], np.zeros_like(WINDOWS)])
def test_refusals(clock: Clock, windows: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"at least 64 windows|only zeros"):
        measure({"artifact": clock.candidate("artifact", 1)}, windows)
    assert not clock.calls
    measure({"artifact": clock.candidate("artifact", 1)}, WINDOWS[:64], duration_s=0.0, warmup_s=0.0)


def test_torch_candidates_take_no_gradient() -> None:
    import torch

    model = torch.nn.Linear(16, 4)
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(torch.is_inference_mode_enabled()))
    forecast = torch_candidate(model)(WINDOWS[:1])
    np.testing.assert_allclose(forecast, model(torch.from_numpy(WINDOWS[:1])).detach().numpy(), rtol=1e-6)
    assert seen[0] is True


def test_a_process_that_fails_says_why() -> None:
    import sys

    with pytest.raises(VerificationError, match=r"does not start in a fresh process: .*oh no"):
        latency._run_json([sys.executable, "-c", "raise SystemExit('oh no')"])
    assert latency._run_json([sys.executable, "-c", "print('{\"a\": 1}')"]) == {"a": 1}
