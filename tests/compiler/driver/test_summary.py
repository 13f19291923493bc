"""What a person reads of a manifest, also of one that has less in it."""

from __future__ import annotations

from typing import Any

from tsfmc.compiler.driver.summary import accuracy_table, verdict_lines

TEST: dict[str, Any] = {
    "student": {"mse": 0.9, "mae": 0.5, "mase": 0.8, "windows": 9},
    "teacher": {"mse": 1.0, "mae": 0.6, "mase": None, "windows": 9},
}
AGAINST = {
    "relative": -0.1,
    "relative_interval": [-0.15, 0.05],
    "method": "paired circular block bootstrap, blocks of 264 windows",
}


def test_rows_and_what_the_artifact_has_over_them() -> None:
    manifest = {"accuracy": {"test": TEST, "comparisons": {"teacher": AGAINST}}}
    assert [line.split() for line in accuracy_table(manifest)] == [
        ["test", "accuracy", "MSE", "MAE", "MASE", "artifact", "against", "it"],
        ["artifact", "0.9000", "0.5000", "0.8000"],
        ["teacher", "1.0000", "0.6000", "-", "-10.0", "%", "[-15.0,", "+5.0]"],
    ]


def test_an_artifact_from_before_there_were_comparisons() -> None:
    manifest = {"accuracy": {"test": TEST}}
    assert accuracy_table(manifest)[2].split() == ["teacher", "1.0000", "0.6000", "-"]
    assert verdict_lines(manifest) == []


def test_words_then_how_they_were_found() -> None:
    accuracy = {
        "test": TEST,
        "comparisons": {"teacher": AGAINST, "seasonal_naive": AGAINST},
        "verdict": ["first", "second"],
        "judged": "the student before",
    }
    assert verdict_lines({"accuracy": accuracy}) == [
        "verdict    first",
        "verdict    second",
        "judged     the student before",
        "interval   paired circular block bootstrap, blocks of 264 windows",
    ]
