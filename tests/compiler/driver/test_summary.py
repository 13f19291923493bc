"""What a person reads of a manifest, also of one that has less in it."""

from __future__ import annotations

from typing import Any

from tsfmc.compiler.driver.summary import accuracy_table, latency_table, verdict_lines

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


def latency(**more: Any) -> dict[str, Any]:
    row = {"p50_us": 10.04, "p90_us": 11.0, "cpu_median_us": 10.0, "median_us": 10.0}
    eager = {**row, "name": "eager", "p50_us": 500.0, "speedup": 50.0, "speedup_interval": [48.0, 52.5]}
    record = {
        "artifact": row,
        "teacher": eager,
        "teachers": [eager],
        "speedup": 50.0,
        "speedup_interval": [48.0, 52.5],
        "skipped": [{"name": "onnx", "reason": "no such operator"}],
        "noisy": False,
        "method": "by the rule",
    }
    return {"scenarios": {"stream": {**record, **more}}, "host": {"cpu": "a processor", "machine": "x86_64"}}


def test_latency_by_scenario_with_every_form_of_the_teacher() -> None:
    assert [line.split() for line in latency_table({"latency": latency()})] == [
        ["latency,", "stream", "p50", "us", "p90", "us", "cpu", "us", "speed-up", "over", "it"],
        ["artifact", "10.0", "11.0", "10.0"],
        ["teacher,", "eager", "500.0", "11.0", "10.0", "50.0x", "[48.0,", "52.5]"],
        ["teacher,", "onnx", "not", "run:", "no", "such", "operator"],
        [
            "speed-up",
            "50.0x",
            "[48.0,",
            "52.5]",
            *["over", "the", "teacher", "in", "its", "fastest", "form,", "eager"],
        ],
        ["method", "by", "the", "rule"],
    ]
    assert latency_table({}) == ["latency    not measured here"] == latency_table({"latency": None})


def test_noise_and_modes_are_said() -> None:
    row = {"median_us": 1.0, "modes": [{"us": 10.0, "share": 0.7}, {"us": 15.0, "share": 0.3}]}
    lines = latency_table({"latency": latency(artifact=row, noisy=True)})
    assert "modes      artifact: 10.0 us (70%), 15.0 us (30%)" in lines
    assert any(line.startswith("noisy") for line in lines)


def test_what_devices_measured_stands_with_their_names() -> None:
    found = latency()
    device = {**latency(), "host": {"board": "Raspberry Pi 4", "cpu": "Cortex-A72", "machine": "aarch64"}}
    lines = latency_table({"latency": {**found, "devices": [device]}})
    assert "measured   on Raspberry Pi 4, Cortex-A72, aarch64" in lines
    assert sum(line.startswith("latency, stream") for line in lines) == 2
    assert "measured   on the device, a processor, x86_64" in latency_table(
        {"latency": {**found, "measured_on": "device"}}
    )
