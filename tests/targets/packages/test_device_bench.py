"""``package --layout bench``: the loop of a device without Python, here and under qemu-aarch64."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import c_students
import numpy as np
import pytest
import torch
import tvm_students
from c_students import SHAPE, needs, windows

from tsfmc.compiler import api
from tsfmc.compiler.base.errors import UsageError, VerificationError
from tsfmc.compiler.driver.recording import add_record
from tsfmc.targets.artifact.write import seal, write_artifact
from tsfmc.targets.c import TARGET as C
from tsfmc.targets.tvm import TARGET as TVM

QEMU = "qemu-aarch64-static"
MEAN, STD = np.array([10.0, -1.0, 0.0]), np.array([2.0, 0.5, 1.0])


def make(final: Path, kind: str, device: str) -> Path:
    """A sealed artifact of a small student that was compiled for a device and not measured."""
    model = c_students.student("low_rank_map")

    def build(draft: Path) -> dict[str, Any]:
        if kind == "c":
            payload = c_students.lower(model, draft, device=device)
        else:
            with tvm_students.worker_here():
                payload = tvm_students.lower(model, draft, device=device)
        return {
            "target": {**payload.details, "kind": kind, "entry": payload.entry},
            "task": {
                "lookback": SHAPE.lookback,
                "horizon": SHAPE.horizon,
                "variates": ["a", "b", "c"],
                "frequency": "h",
                "step_seconds": 3600,
            },
            "input": {"mean": MEAN, "std": STD},
            "level": "compiled",
            "runtime_requirements": ("numpy",),
        }

    past = windows()[:3]
    with torch.no_grad():
        forecast = model(torch.from_numpy(past)).numpy()
    vectors = tuple(part.astype(np.float64) * STD[:, None] + MEAN[:, None] for part in (past, forecast))
    source = (C if kind == "c" else TVM).engine_source()
    write_artifact(final, build, engine_source=source, selftest=vectors)
    return final


def measure(package: Path, *command: str) -> Path:
    """``latency.json`` of the package's program."""
    done = subprocess.run(
        [*command, str(package / "bench"), "0.1"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "medians" in done.stderr, done.stderr
    file = package.parent / "latency.json"
    file.write_text(done.stdout)
    return file


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An artifact for this machine, its package, and what the program in it measured."""
    folder = tmp_path_factory.mktemp("bench")
    artifact = make(folder / "art", "c", "host")
    package = api.package(artifact, layout="bench", out=folder / "package")
    return artifact, package, measure(package)


def test_the_program_measures_both_scenarios_on_this_machine(
    here: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    artifact, package, file = here
    art = shutil.copytree(artifact, tmp_path / "art")
    manifest = add_record(art, file)
    assert manifest["level"] == "executed" and manifest["latency"]["measured_on"] == "device"
    assert manifest["latency"]["host"]["emulator"] is None
    assert manifest["latency"]["selftest"]["passed"] and manifest["latency"]["selftest"]["max_rel"] < 1e-5
    samples = json.loads(file.read_text())["samples"]["scenarios"]
    for name in ("stream", "interval"):
        row, turns = manifest["latency"]["scenarios"][name]["artifact"], samples[name]
        every = np.concatenate(turns["wall_ns"])
        assert row["n"] == len(every) == turns["calls"] * len(turns["cpu_ns"]) >= 64
        assert row["median_us"] == pytest.approx(float(np.median(every)) / 1e3) and row["p90_us"] > 0
        assert "H 12, D 3, fp32, 1 thread" in manifest["latency"]["scenarios"][name]["method"]
    assert samples["interval"]["calls"] == 1 and samples["stream"]["calls"] >= 4
    assert "MiB read and written" in manifest["latency"]["scenarios"]["interval"]["method"]
    assert manifest["cold_start"]["peak_rss_mb"] > 0 and api.verify(art) and api.verify(package / "artifact")


def test_cold_calls_are_slower_than_warm_ones(here: tuple[Path, Path, Path]) -> None:
    """The other work between calls does evict: a forecast takes a microsecond warm, and several cold."""
    samples = json.loads(here[2].read_text())["samples"]["scenarios"]
    stream, interval = (
        np.median(np.concatenate(samples[name]["wall_ns"])) for name in ("stream", "interval")
    )
    assert interval > 1.2 * stream


def test_the_makefile_builds_the_same_program(here: tuple[Path, Path, Path], tmp_path: Path) -> None:
    needs("make")
    package = shutil.copytree(here[1], tmp_path / "package")
    (package / "bench").unlink()
    subprocess.run(["make", "-C", str(package)], check=True, capture_output=True)
    assert (package / "bench").read_bytes() == (here[1] / "bench").read_bytes()


def edited(file: Path, to: Path, **changes: Any) -> Path:
    record = json.loads(file.read_text())
    record["samples"]["scenarios"]["stream"].update(changes)
    to.write_text(json.dumps(record))
    return to


def test_samples_that_are_none_are_refused(here: tuple[Path, Path, Path], tmp_path: Path) -> None:
    artifact, _, file = here
    for changes in ({"calls": 3}, {"cpu_ns": [1.0]}, {"wall_ns": []}, {"wall_ns": [[-1]]}):
        with pytest.raises(UsageError, match=r"latency\.json: latency record: samples"):
            add_record(artifact, edited(file, tmp_path / "latency.json", **changes))
    record = json.loads(file.read_text())
    del record["samples"]
    (tmp_path / "latency.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="there must be scenarios, or samples"):
        add_record(artifact, tmp_path / "latency.json")


def test_a_program_that_computes_something_else_says_so(
    here: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    package = shutil.copytree(here[1], tmp_path / "package")
    vectors = np.fromfile(package / "vectors.bin", dtype="<f4")
    vectors[-1] += 1
    vectors.tofile(package / "vectors.bin")
    with pytest.raises(VerificationError, match="the device's self-test differs"):
        add_record(here[0], measure(package))
    (package / "vectors.bin").write_bytes(b"")
    done = subprocess.run([package / "bench"], capture_output=True, text=True)
    assert done.returncode == 2 and "vectors.bin is not beside" in done.stderr


@pytest.mark.parametrize("kind", ["c", "tvm"])
def test_under_qemu_the_loop_holds_and_no_time_is_kept(tmp_path: Path, kind: str) -> None:
    needs(QEMU, "aarch64-linux-gnu-gcc")
    artifact = make(tmp_path / "art", kind, "raspberry-pi-4")
    before = api.inspect(artifact)
    file = measure(api.package(artifact, layout="bench", out=tmp_path / "package"), QEMU)
    record = json.loads(file.read_text())
    assert record["host"]["machine"] == "aarch64" and "qemu" in record["host"]["emulator"]
    manifest = add_record(artifact, file)
    assert manifest == api.inspect(artifact)
    assert manifest["level"] == "emulated" and manifest.get("latency") == before.get("latency")
    assert manifest["target"]["emulated_record"]["selftest"]["passed"]
    assert manifest["target"]["emulated_record"]["emulator"] == record["host"]["emulator"]
    # A better level stays, and so does what was measured on a device.
    seal(artifact, {**manifest, "level": "executed", "latency": {"measured_on": "device", "scenarios": {}}})
    again = add_record(artifact, file)
    assert again["level"] == "executed" and again["latency"]["scenarios"] == {}


def test_a_record_of_another_artifact_and_of_another_machine(
    here: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    art = shutil.copytree(here[0], tmp_path / "art")
    manifest = api.inspect(art)
    seal(art, {**manifest, "target": {**manifest["target"], "machine": "riscv64"}})
    with pytest.raises(VerificationError, match="the program is for riscv64"):
        add_record(art, here[2])


def test_a_device_without_an_operating_system_is_refused(tmp_path: Path) -> None:
    artifact = make(tmp_path / "art", "c", "host")
    manifest = api.inspect(artifact)
    seal(artifact, {**manifest, "target": {**manifest["target"], "device": "cortex-m7"}})
    with pytest.raises(UsageError, match="cortex-m7 has no Linux to measure on"):
        api.package(artifact, layout="bench", out=tmp_path / "package")
    assert not (tmp_path / "package").exists()
