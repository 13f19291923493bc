"""A device's record: the loop on this machine, what is refused, and what becomes of the manifest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SHAPE, make_artifact, make_model, make_windows

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import UsageError, VerificationError
from tsfmc.compiler.driver.recording import add_record
from tsfmc.compiler.driver.summary import latency_table
from tsfmc.compiler.ir.program import export_program
from tsfmc.targets.artifact.device.portable import PORTABLE
from tsfmc.targets.artifact.write import seal
from tsfmc.targets.forms import Model
from tsfmc.targets.onnx import TARGET

Record = dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact with its teacher beside it, and what its own run.py measured."""
    folder = tmp_path_factory.mktemp("device")
    manifest = make_artifact(folder / "art", latency=None)
    teacher = Model(make_model(), make_windows()).onnx_file()
    TARGET.add_teacher(folder / "art", teacher, make_windows())
    seal(folder / "art", {**manifest, "level": "compiled"})
    command = [sys.executable, "-I", "art/run.py", "bench", "--record", "latency.json", "--duration", "0.2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and "latency.json written" in done.stderr, done.stderr
    return folder / "art", folder / "latency.json"


@pytest.fixture
def here(measured: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies that a test may change."""
    art, record = measured
    shutil.copytree(art, tmp_path / "art")
    shutil.copy(record, tmp_path / "latency.json")
    return tmp_path / "art", tmp_path / "latency.json"


def test_the_record_has_both_scenarios_and_the_teacher_and_the_device(measured: tuple[Path, Path]) -> None:
    record: Record = json.loads(measured[1].read_text())
    assert record["host"]["machine"] and record["host"]["packages"]["onnxruntime"]
    assert record["selftest"]["passed"] and record["cold_start"]["load_ms"] > 0
    for scenario in ("stream", "interval"):
        found = record["scenarios"][scenario]
        assert found["teacher"]["name"] == "onnx" and "onnxruntime" in found["teacher"]["form"]
        low, high = found["speedup_interval"]
        assert low < found["speedup"] < high


def test_the_teacher_is_no_payload(measured: tuple[Path, Path]) -> None:
    manifest = api.inspect(measured[0])
    listed = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    assert PORTABLE in listed
    assert manifest["size"]["payload_bytes"] == sum(listed.values()) - listed[PORTABLE]


def test_it_becomes_the_latency_of_what_was_not_measured_at_home(here: tuple[Path, Path]) -> None:
    art, file = here
    before = {path.name: path.read_bytes() for path in art.rglob("*") if path.is_file()}
    manifest = add_record(art, file)
    assert manifest["level"] == "executed" and manifest["latency"]["measured_on"] == "device"
    assert manifest == api.inspect(art) and len(api.verify(art)) == 2
    assert manifest["cold_start"] == json.loads(file.read_text())["cold_start"]
    after = {path.name: path.read_bytes() for path in art.rglob("*") if path.is_file()}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json", "SHA256SUMS"}
    assert [path.name for path in art.parent.iterdir() if path.name.startswith(".")] == []
    lines = latency_table(manifest)
    assert any(line.startswith("measured   on the device") for line in lines)
    # The same again is the same; the payload, and with it the record, outlive the new manifest.
    assert add_record(art, file) == manifest


def test_beside_a_measurement_at_home_it_is_one_of_the_devices(here: tuple[Path, Path]) -> None:
    art, file = here
    record: Record = json.loads(file.read_text())
    home = {"scenarios": {"stream": record["scenarios"]["stream"]}, "host": {"cpu": "at home"}}
    seal(art, {**api.inspect(art), "latency": home})
    add_record(art, file)
    manifest = add_record(art, file)
    assert manifest["latency"]["scenarios"] == home["scenarios"]
    (device,) = manifest["latency"]["devices"]
    assert device["scenarios"] == record["scenarios"] and device["host"] == record["host"]
    file.write_text(json.dumps({**record, "measured_at": "2030-01-01T00:00:00+00:00"}))
    assert len(add_record(art, file)["latency"]["devices"]) == 2


def change(*path: str | int, to: Any) -> Callable[[Record], None]:
    def apply(record: Record) -> None:
        place: Any = record
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return apply


def slower_teacher(record: Record) -> None:
    """A speed-up ten times that of the medians, in every place where it stands."""
    found = record["scenarios"]["stream"]
    for row in (found, found["teacher"], *found["teachers"]):
        row["speedup"] *= 10
        row["speedup_interval"] = [10 * end for end in row["speedup_interval"]]


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (change("payload_sha256", to="0" * 64), VerificationError, "measured on another artifact"),
        (change("selftest", "passed", to=False), VerificationError, "self-test differs"),
        (change("selftest", "max_rel", to=0.5), VerificationError, "self-test differs"),
        (change("selftest", "tolerance", to=0.9), VerificationError, "self-test differs"),
        (change("format", to="other"), UsageError, "record: format is 'other'"),
        (change("more", to=1), UsageError, "record: more is 1"),
        (change("scenarios", to={}), UsageError, "there must be scenarios"),
        (change("scenarios", "stream", "artifact", "median_us", to=0), UsageError, "median_us"),
        (
            change("scenarios", "stream", "artifact", "median_us", to=float("nan")),
            UsageError,
            "NaN is not allowed",
        ),
        (change("scenarios", "stream", "artifact", "n", to=3), UsageError, r"artifact\.n"),
        (change("scenarios", "stream", "artifact", "p50_us", to=1e-3), UsageError, "percentiles must rise"),
        (change("scenarios", "stream", "artifact", "p90_us", to="1"), UsageError, "must be numbers"),
        (change("scenarios", "stream", "speedup", to=1e6), UsageError, "not that over the teacher"),
        (change("scenarios", "stream", "teachers", 0, "speedup", to=1e-6), UsageError, "lie in its interval"),
        (change("scenarios", "stream", "teachers", to=[]), UsageError, "none of the record's teachers"),
        (slower_teacher, UsageError, "does not agree with the medians"),
    ],
)
def test_what_cannot_be_true_of_this_artifact_is_refused(
    here: tuple[Path, Path], edit: Callable[[Record], None], error: type[Exception], message: str
) -> None:
    art, file = here
    record: Record = json.loads(file.read_text())
    edit(record)
    file.write_text(json.dumps(record))
    before = (art / "manifest.json").read_bytes()
    with pytest.raises(error, match=message):
        add_record(art, file)
    assert (art / "manifest.json").read_bytes() == before


def test_a_record_of_another_kind_of_machine_is_refused(here: tuple[Path, Path]) -> None:
    art, file = here
    manifest = api.inspect(art)
    seal(art, {**manifest, "target": {**manifest["target"], "machine": "aarch64"}})
    record: Record = json.loads(file.read_text())
    record["host"]["machine"] = "x86_64"
    file.write_text(json.dumps(record))
    with pytest.raises(VerificationError, match="measured on x86_64, the program is for aarch64"):
        add_record(art, file)


def test_a_broken_artifact_a_packed_one_and_no_record(here: tuple[Path, Path]) -> None:
    art, file = here
    with pytest.raises(UsageError, match="no such latency record"):
        add_record(art, art / "nothing.json")
    with pytest.raises(UsageError, match="unpack it first"):
        add_record(file, file)
    (file.parent / "text.json").write_text("{")
    with pytest.raises(UsageError, match=r"text\.json: latency record: not JSON"):
        add_record(art, file.parent / "text.json")
    (art / "model.onnx").write_bytes(b"")
    with pytest.raises(VerificationError, match=r"model\.onnx was changed"):
        add_record(art, file)


def test_a_device_without_the_teachers_runtime_measures_the_artifact_alone(
    here: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsfmc.targets.artifact.device import bench
    from tsfmc.targets.artifact.open import open_artifact

    class Missing:
        def __init__(self, *given: Any) -> None:
            raise ImportError("no onnxruntime here")

    monkeypatch.setattr(bench, "PortableTeacher", Missing)
    art, file = here
    record = bench.latency_file(open_artifact(art), 1, 64, 0.0)
    found = record["scenarios"]["stream"]
    assert "speedup" not in found and found["skipped"] == [{"name": "onnx", "reason": "no onnxruntime here"}]
    file.write_text(json.dumps(record))
    assert "teacher" not in add_record(art, file)["latency"]["scenarios"]["stream"]


def test_the_windows_of_the_device_are_the_artifacts(here: tuple[Path, Path]) -> None:
    """The same calls as at home: the engine alone, in scaled units."""
    forecaster = api.load(here[0])
    program = export_program(make_model(), SHAPE, make_windows())
    past = forecaster.example_windows(1)
    np.testing.assert_allclose(forecaster.engine(past), program(past), rtol=1e-4, atol=1e-5)
