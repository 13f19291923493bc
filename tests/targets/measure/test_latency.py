"""The latency rule: what is measured, what is refused, what a ratio says."""

from __future__ import annotations

import gc
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import make_artifact, make_model, make_windows

from tsfmc.compiler.base.errors import UsageError, VerificationError
from tsfmc.targets.artifact.device.bench import percentile_bound
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import (
    LatencyReport,
    Row,
    cold_start,
    github_action_benchmark,
    measure,
    torch_candidate,
)

WINDOWS = make_windows()
QUICK = {"warmup_calls": 3, "warmup_s": 0.0}


def sleeper(seconds: float, seen: list[tuple[str, float]] | None = None, name: str = ""):
    """A candidate that takes a known time and notes what it was called with."""

    def call(past: np.ndarray) -> np.ndarray:
        until = time.perf_counter() + seconds
        if seen is not None:
            seen.append((name, float(past.flat[0])))
        while time.perf_counter() < until:
            pass
        return past[..., :8]

    return call


@pytest.mark.parametrize(
    ("percentile", "needs"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)]
)
def test_a_percentile_needs_the_queries_that_mlperf_asks_for(percentile: float, needs: int) -> None:
    assert percentile_bound(range(needs - 1), percentile) is None
    assert percentile_bound(range(needs), percentile) == needs - 1


def test_the_estimate_is_an_upper_bound_as_often_as_it_claims() -> None:
    """Against an exact binomial tail, and by drawing samples whose true percentile is known."""
    n, percentile = 200, 0.9

    def tail(t: int) -> float:
        return sum(math.comb(n, k) * 0.1**k * 0.9 ** (n - k) for k in range(t + 1))

    t = n - percentile_bound(range(n), percentile)  # type: ignore[operator]
    assert tail(int(t)) <= 0.01 < tail(int(t) + 1)
    rng = np.random.default_rng(0)
    missed = sum(percentile_bound(rng.random(n).tolist(), percentile) < percentile for _ in range(1000))  # type: ignore[operator]
    assert missed <= 20


def test_candidates_alternate_and_windows_rotate() -> None:
    seen: list[tuple[str, float]] = []
    report = measure(
        {"artifact": sleeper(1e-5, seen, "a"), "teacher": sleeper(2e-5, seen, "b")},
        WINDOWS,
        duration_s=0.2,
        min_queries=64,
        **QUICK,
    )
    measured = seen[6:]
    assert {name for name, _ in measured[0::2]} == {"a"} and {name for name, _ in measured[1::2]} == {"b"}
    assert [value for name, value in measured if name == "a"][:128] == [*WINDOWS[:, 0, 0]] * 2
    assert "interleaved with teacher" in report.method and "calls a round" not in report.method


def test_a_slow_teacher_ends_after_64_rounds_and_the_artifact_still_gets_its_queries() -> None:
    began = time.perf_counter()
    report = measure({"artifact": sleeper(1e-5), "teacher": sleeper(5e-3)}, WINDOWS, duration_s=0.01, **QUICK)
    assert time.perf_counter() - began < 10
    rows = report.to_manifest()
    assert rows["teacher"]["n"] == 64 and rows["artifact"]["n"] == 1024
    assert "p90_us" in rows["teacher"] and "p95_us" not in rows["teacher"] and "p99_us" in rows["artifact"]
    assert "n 1024 artifact / 64 teacher" in report.method
    assert "calls a round 16 artifact / 1 teacher" in report.method


def test_models_of_seconds_a_call_may_have_fewer_rounds() -> None:
    candidates = {"ours": sleeper(5e-3), "upstream": sleeper(2e-2)}
    report = measure(candidates, WINDOWS, duration_s=0.0, min_queries=5, min_rounds=5, **QUICK)
    assert [row.to_dict()["n"] for row in report.rows.values()] == [5, 5]
    assert not any(name.startswith("p") for row in report.rows.values() for name in row.to_dict())
    assert "n 5, 5 windows" in report.method and report.method.endswith("too few calls for percentiles")
    assert report.ratio("upstream", "ours").value > 1


def test_manifest_has_the_promised_shape_and_a_true_ratio() -> None:
    report = measure(
        {"artifact": sleeper(1e-4), "teacher": sleeper(1e-3)}, WINDOWS, duration_s=0.3, threads=1, **QUICK
    )
    manifest = json.loads(json.dumps(report.to_manifest(), allow_nan=False))
    low, high = manifest["speedup_interval"]
    assert low <= manifest["speedup"] <= high
    assert manifest["speedup"] == pytest.approx(10, rel=0.2)
    assert manifest["artifact"]["p50_us"] >= manifest["artifact"]["median_us"] >= 100
    for part in ("single-stream", "batch 1", "L 32", "H 8", "D 3", "fp32", "1 thread", "64 windows"):
        assert part in manifest["method"]


def test_no_teacher_no_speedup() -> None:
    manifest = measure({"artifact": sleeper(1e-5)}, WINDOWS, duration_s=0.01, **QUICK).to_manifest()
    assert "speedup" not in manifest and "interleaved" not in manifest["method"]
    assert manifest["artifact"]["n"] >= 64


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    """Both candidates slow down threefold during the run: medians move, the ratio does not."""
    drift = np.linspace(1, 3, 512)[:, None]
    noise = np.random.default_rng(0).normal(1, 0.02, (2, 512, 1))
    rows = {
        "teacher": Row("teacher", 1e6 * drift * noise[0]),
        "artifact": Row("artifact", 1e5 * drift * noise[1]),
    }
    ratio = LatencyReport(rows, "").ratio("teacher", "artifact")
    assert ratio.low <= 10 <= ratio.high and ratio.high - ratio.low < 0.6
    assert LatencyReport(rows, "").noisy


def test_a_steady_run_is_not_noisy_and_a_shaky_one_is() -> None:
    rng = np.random.default_rng(0)
    steady = Row("artifact", rng.normal(1e5, 1e3, (256, 1)))
    shaky = Row("artifact", rng.normal(1e5, 2e4, (256, 1)))
    assert not steady.to_dict()["noisy"] and shaky.to_dict()["noisy"]


def test_collector_and_threads_are_as_before_even_after_a_failure() -> None:
    before = torch.get_num_threads()
    inside: list[tuple[bool, int]] = []

    def fails(past: np.ndarray) -> np.ndarray:
        inside.append((gc.isenabled(), torch.get_num_threads()))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure({"artifact": fails}, WINDOWS, threads=before + 1)
    assert inside == [(False, before + 1)]
    assert gc.isenabled() and torch.get_num_threads() == before


@pytest.mark.parametrize("windows", [WINDOWS[:63], WINDOWS[0], np.zeros_like(WINDOWS)])
def test_too_few_or_empty_windows_are_refused(windows: np.ndarray) -> None:
    with pytest.raises(UsageError):
        measure({"artifact": sleeper(0)}, windows)


def test_github_action_benchmark_entries() -> None:
    report = measure(
        {"artifact": torch_candidate(make_model()), "teacher": sleeper(5e-4)},
        WINDOWS,
        duration_s=0.1,
        **QUICK,
    )
    entries = json.loads(json.dumps(github_action_benchmark(report, "demo")))
    assert {"demo artifact p50", "demo artifact p90", "demo artifact / teacher"} <= {
        entry["name"] for entry in entries
    }
    for entry in entries:
        assert set(entry) == {"name", "unit", "value", "range", "extra"}
        assert entry["extra"] == report.method and entry["value"] > 0


def test_cold_start_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    result = cold_start(tmp_path / "art")
    assert result["load_ms"] > result["first_call_ms"] > 0
    assert 20 < result["peak_rss_mb"] < 400  # this process, which imported torch, is larger
    assert result["n"] == 3


def test_cold_start_never_runs_code_of_the_artifact(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    (tmp_path / "art/run.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(VerificationError, match=r"run\.py was changed"):
        cold_start(tmp_path / "art")
    assert not (tmp_path / "owned").exists()


def test_host_record_names_the_machine_but_not_its_owner() -> None:
    import platform

    record = host_record()
    text = json.dumps(record)
    assert record["cpu"] and record["cores"] >= 1 and record["packages"]["torch"]
    assert platform.node() not in text or len(platform.node()) < 4
    assert str(Path.home()) not in text
