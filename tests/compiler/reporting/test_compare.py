"""Comparing artifacts: the same windows, paired intervals, and what counts as a regression."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import make_artifact

from tsfmc.compiler.api import compare
from tsfmc.compiler.base.errors import BudgetError, UsageError
from tsfmc.compiler.cli import cli
from tsfmc.compiler.learning.compare import Comparison
from tsfmc.compiler.reporting import compare as side_by_side
from tsfmc.compiler.reporting.compare import Outcome, Side, Speed

MANIFEST = {"size": {"payload_bytes": 1000}, "level": "executed", "parity": {"max_rel": 1e-7}}


@pytest.fixture(scope="module")
def pair(compiled: Path) -> tuple[Path, Path]:
    return compiled / "out/good/onnx", compiled / "out/worse/onnx"


@pytest.fixture(scope="module")
def outcome(compiled: Path, pair: tuple[Path, Path]) -> Outcome:
    return compare(pair, data=str(compiled / "series.csv"), latency=False)


def change(low: float, high: float) -> Comparison:
    return Comparison(0.1, (low + high) / 2, (low, high), (low, high), 100, 10, "paired")


def side(name: str = "b", **more: Any) -> Side:
    return Side(name, MANIFEST, **more)


def test_the_errors_are_those_of_the_compile(outcome: Outcome) -> None:
    for found in outcome.sides:
        assert found.accuracy is not None
        recorded = found.manifest["accuracy"]["test"]["student"]
        assert found.accuracy.mse == pytest.approx(recorded["mse"], rel=1e-5)
        assert found.accuracy.windows == recorded["windows"]


def test_a_worse_forecaster_is_a_regression_and_a_better_one_is_none(
    outcome: Outcome, compiled: Path, pair: tuple[Path, Path]
) -> None:
    assert outcome.sides[1].change is not None and outcome.sides[1].change.worse
    with pytest.raises(BudgetError, match="worse/onnx: error"):
        outcome.check()
    compare(pair[::-1], data=str(compiled / "series.csv"), latency=False).check()


def test_the_interval_is_that_of_paired_windows(outcome: Outcome) -> None:
    """Unpaired, the weeks of a series would drown a difference as small as this."""
    found = outcome.sides[1].change
    assert found is not None and "paired circular block bootstrap" in found.method
    assert found.windows == outcome.sides[0].accuracy.windows  # type: ignore[union-attr]
    assert any("paired circular" in method for method in outcome.methods)


def test_latency_is_measured_in_one_run(pair: tuple[Path, Path]) -> None:
    found = compare(pair, duration_s=0.1)
    first, second = (each.speed for each in found.sides)
    assert first is not None and second is not None
    assert first.ratio == 1.0 and first.interval[0] <= 1.0 <= first.interval[1]
    assert second.interval[0] <= second.ratio <= second.interval[1]
    assert "interleaved" in found.methods[0]
    assert found.methods[0].startswith("latency: single-stream")
    assert "give --data" in found.notes[0]  # the manifest names a file, which is never looked for


def test_latency_in_the_other_scenario(pair: tuple[Path, Path]) -> None:
    found = compare(pair, scenario="interval", duration_s=0.1)
    assert "interval" in found.methods[0] and "MiB read and written" in found.methods[0]
    with pytest.raises(UsageError, match="unknown scenario 'both'"):
        compare(pair, scenario="both")


@pytest.mark.parametrize(
    ("found", "regresses"),
    [
        (side(change=change(0.001, 0.1)), True),
        (side(change=change(-0.001, 0.1)), False),
        (side(change=change(1e-7, 2e-7)), False),  # rounding of another target
        (side(change=replace(change(0.1, 0.2), relative_interval=None)), False),
        (side(speed=Speed(10.0, 1.2, (1.06, 1.3))), True),
        (side(speed=Speed(10.0, 1.2, (1.04, 1.3))), False),
        (side(), False),
    ],
)
def test_the_rule(found: Side, regresses: bool) -> None:
    outcome = Outcome((side("a"), found))
    assert bool(outcome.regressions()) is regresses
    if regresses:
        with pytest.raises(BudgetError) as error:
            outcome.check()
        assert error.value.exit_code == 4


def test_a_noisy_run_fails_unless_it_is_allowed() -> None:
    outcome = Outcome((side("a"), side()), noisy=True)
    outcome.check(allow_noisy=True)
    with pytest.raises(BudgetError, match="noisy"):
        outcome.check()


def test_markdown_is_a_table_whatever_names_are_like() -> None:
    text = Outcome((side("a"), side("x|y`<img src=x>\n# no"))).markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "<img" not in text and "\n# no" not in text and "no regression" in text


def test_other_variates_cannot_be_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    make_artifact(tmp_path / "other")
    with pytest.raises(UsageError, match="variates"):
        compare([pair[0], tmp_path / "other"])
    with pytest.raises(UsageError, match="two artifacts"):
        compare([pair[0]])


def test_what_differs_is_said() -> None:
    one = {"teacher": {"sha256": "a" * 64}, "environment": {"numpy": "1"}}
    other = {"teacher": {"sha256": "b" * 64}, "environment": {"numpy": "2", "tvm": "3"}}
    assert list(side_by_side._differs(one, other)) == [
        "teacher: bbbbbbbbbbbbbbbb, the first has aaaaaaaaaaaaaaaa",
        "numpy: 2, the first has 1",
        "tvm: 3, the first has None",
    ]


def test_the_command_prints_json_and_exits_with_4(
    compiled: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", *map(str, pair), "--data", str(compiled / "series.csv"), "--no-latency", "--json"]
    with pytest.raises(BudgetError):
        cli.main(arguments, standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [each["accuracy"]["windows"] for each in found["artifacts"]] == [789, 789]
    assert found["regressions"] and found["artifacts"][1]["change"]["relative_interval"][0] > 0
