"""Gates of bench: the lower end counts, noise passes nothing, a ratio regresses or does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tsfmc.compiler.base.errors import BudgetError, UsageError
from tsfmc.compiler.driver.bench import Bench
from tsfmc.compiler.driver.budgets import check_budgets
from tsfmc.compiler.driver.gates import Gates, check_gates
from tsfmc.compiler.driver.recipe import BudgetSection


def record(speedup: float = 10.0, *, p90: float | None = 20.0, noisy: bool = False) -> dict[str, Any]:
    """A scenario whose speed-up may be a tenth less or more."""
    interval = [0.9 * speedup, 1.1 * speedup]
    teacher = {"name": "eager", "median_us": 100.0, "speedup": speedup, "speedup_interval": interval}
    artifact = {"median_us": 10.0, **({} if p90 is None else {"p90_us": p90})}
    return {
        "artifact": artifact,
        "teacher": teacher,
        "teachers": [teacher],
        "speedup": speedup,
        "speedup_interval": interval,
        "noisy": noisy,
        "method": "m",
    }


def bench(against: str | None = "teacher", **scenarios: Any) -> Bench:
    entry = {"name": "out/onnx", "target": "onnx", "level": "executed", "against": against}
    elsewhere = {"name": "pi/tvm", "target": "tvm", "level": "emulated", "not_measured": "other machine"}
    return Bench(({**entry, "scenarios": scenarios}, elsewhere))


def test_the_lower_end_of_the_interval_is_judged() -> None:
    check_gates(bench(stream=record(10)), Gates(min_speedup=8.9))
    with pytest.raises(BudgetError) as missed:
        check_gates(bench(stream=record(10)), Gates(min_speedup=9.5))
    assert missed.value.exit_code == 4
    assert missed.value.what == (
        "out/onnx, stream: speed-up 10.00x [9.00, 11.00], its lower end must be at least 9.5x"
    )


def test_every_scenario_that_was_measured_is_judged() -> None:
    with pytest.raises(BudgetError, match=r"out/onnx, interval: speed-up 2\.00x"):
        check_gates(bench(stream=record(10), interval=record(2)), Gates(min_speedup=5))


def test_a_slow_or_unknown_p90_misses_its_gate() -> None:
    check_gates(bench(stream=record(p90=20)), Gates(max_p90_us=20))
    with pytest.raises(BudgetError, match=r"p90 20\.1 us, budget 20 us"):
        check_gates(bench(stream=record(p90=20.1)), Gates(max_p90_us=20))
    with pytest.raises(BudgetError, match="too few times"):
        check_gates(bench(stream=record(p90=None)), Gates(max_p90_us=20))


@pytest.mark.parametrize("gates", [{"min_speedup": 1.0}, {"max_p90_us": 1e9}])
def test_a_noisy_measurement_passes_no_gate_unless_it_may(gates: dict[str, float]) -> None:
    noisy = bench(stream=record(noisy=True))
    with pytest.raises(BudgetError, match="the measurement is noisy"):
        check_gates(noisy, Gates(**gates))
    check_gates(noisy, Gates(**gates, allow_noisy=True))
    check_gates(noisy, Gates())


def test_gates_that_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="needs --against"):
        check_gates(bench(against=None, stream={"artifact": {"p90_us": 1.0}}), Gates(min_speedup=1))
    with pytest.raises(BudgetError, match="none of the artifacts runs here"):
        check_gates(Bench(bench().entries[1:]), Gates(max_p90_us=1))


def write(path: Path, baseline: Any) -> Path:
    path.write_text(json.dumps(baseline.to_dict() if isinstance(baseline, Bench) else baseline))
    return path


def test_a_regression_is_a_ratio_that_is_certainly_lower(tmp_path: Path) -> None:
    before = write(tmp_path / "base.json", bench(stream=record(10), interval=record(5)))
    gates = Gates(baseline=before)
    check_gates(bench(stream=record(8.3), interval=record(50)), gates)  # [7.5, 9.1] touches [9, 11]
    with pytest.raises(BudgetError) as missed:
        check_gates(bench(stream=record(8), interval=record(5)), gates)  # [7.2, 8.8] does not
    assert missed.value.what == (
        "out/onnx, stream: speed-up 8.00x [7.20, 8.80], the baseline had [9.00, 11.00]"
    )
    with pytest.raises(BudgetError, match="noisy"):
        check_gates(bench(stream=record(10, noisy=True)), gates)
    check_gates(bench(stream=record(10, noisy=True)), Gates(baseline=before, allow_noisy=True))


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ([{"name": "other/onnx", "against": "teacher", "scenarios": {"stream": record()}}], "none of these"),
        ([{"name": "out/onnx", "against": "plain", "scenarios": {"stream": record()}}], "against plain"),
        ([{"name": "out/onnx", "against": "teacher", "scenarios": {"interval": record()}}], "none of these"),
        ({"speedup": 3}, "output of tsfmc bench: the whole is"),
        ([3], "output of tsfmc bench: 0 is 3"),
    ],
)
def test_a_baseline_of_something_else(tmp_path: Path, baseline: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_gates(bench(stream=record()), Gates(baseline=write(tmp_path / "base.json", baseline)))


def test_a_baseline_that_is_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such output of tsfmc bench"):
        check_gates(bench(stream=record()), Gates(baseline=tmp_path / "base.json"))
    (tmp_path / "base.json").write_text("{")
    with pytest.raises(UsageError, match="output of tsfmc bench: not JSON"):
        check_gates(bench(stream=record()), Gates(baseline=tmp_path / "base.json"))


def manifest(**scenarios: Any) -> dict[str, Any]:
    return {
        "accuracy": {"test": {"student": {}}, "comparisons": {}},
        "size": {"payload_bytes": 1},
        "latency": {"scenarios": scenarios},
    }


def test_budgets_of_a_recipe_say_in_which_scenario() -> None:
    found = {"onnx": manifest(stream=record(10), interval=record(2))}
    check_budgets(BudgetSection(min_speedup=8.9), found)
    with pytest.raises(BudgetError, match=r"onnx: interval: speed-up 2\.00x"):
        check_budgets(BudgetSection(min_speedup=8.9, scenario="both"), found)
    with pytest.raises(BudgetError, match=r"onnx: stream: speed-up 10\.00x"):
        check_budgets(BudgetSection(min_speedup=9.5), found)
    noisy = {"onnx": manifest(stream=record(10, noisy=True))}
    with pytest.raises(BudgetError, match="noisy"):
        check_budgets(BudgetSection(min_speedup=1), noisy)
    check_budgets(BudgetSection(min_speedup=1, allow_noisy=True), noisy)
    check_budgets(BudgetSection(max_payload_bytes=5), noisy)
    with pytest.raises(BudgetError, match="cannot be judged"):
        check_budgets(BudgetSection(max_p90_us=5), {"tvm": {**manifest(), "latency": None}})
