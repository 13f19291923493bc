"""The artifact format: written in one step, equal bytes for equal input, read with checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import MEAN, STD, make_artifact, make_model, make_windows, raw, reference

from tsfmc.compiler.base.errors import DataError, MissingError, UsageError, VerificationError
from tsfmc.targets.artifact.archive import pack_zip, unpack_zip
from tsfmc.targets.artifact.hashes import payload_sha256
from tsfmc.targets.artifact.open import open_artifact, read_manifest, verify_artifact
from tsfmc.targets.artifact.write import seal, write_artifact, write_selftest
from tsfmc.targets.onnx import TARGET

WINDOWS = make_windows()


def write(final: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    return write_artifact(
        final, build, engine_source=TARGET.engine_source(), selftest=(WINDOWS, WINDOWS[..., :8])
    )


def test_a_directory_has_its_parts_and_the_manifest_lists_them(tmp_path: Path) -> None:
    manifest = make_artifact(tmp_path / "art", latency=None, parity={"max_rel": np.float32(0.5)})
    names = sorted(
        path.relative_to(tmp_path / "art").as_posix() for path in tmp_path.rglob("*") if path.is_file()
    )
    payload = ["model.onnx", "run.py", "selftest/forecast.npy", "selftest/past.npy"]
    assert names == ["SHA256SUMS", "manifest.json", *payload]
    assert sorted(manifest["files"]) == payload
    assert manifest["size"]["payload_bytes"] == sum(
        (tmp_path / "art" / name).stat().st_size for name in payload
    )
    assert manifest["schema"] == 1 and manifest["parity"] == {"max_rel": 0.5} and manifest["latency"] is None
    assert manifest["input"]["mean"] == list(MEAN) and manifest["input"]["std"] == list(STD)
    assert (
        read_manifest(tmp_path / "art")
        == manifest
        == json.loads((tmp_path / "art/manifest.json").read_text())
    )
    assert len(verify_artifact(tmp_path / "art")) == 2


def test_sums_are_those_of_the_usual_tool(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "art", check=True)


def test_two_equal_compiles_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_artifact(tmp_path / name)
        pack_zip(tmp_path / name, tmp_path / f"{name}.tsfmc")
    assert payload_sha256(tmp_path / "one") == payload_sha256(tmp_path / "two")
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()
    assert (tmp_path / "one.tsfmc").read_bytes() == (tmp_path / "two.tsfmc").read_bytes()
    make_artifact(tmp_path / "two", environment={"seconds": 1})
    assert payload_sha256(tmp_path / "one") == payload_sha256(tmp_path / "two"), "measurements are no payload"


def test_open_artifact_forecasts_in_the_units_of_the_data(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    pack_zip(tmp_path / "art", tmp_path / "art.tsfmc")
    with zipfile.ZipFile(tmp_path / "art.tsfmc") as archive:  # no time of its own: the first a zip can say
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    expected = raw(reference(make_model(), WINDOWS))
    for path in (tmp_path / "art", tmp_path / "art.tsfmc"):
        forecaster = open_artifact(path)
        for got, want in (
            (forecaster.forecast(raw(WINDOWS)), expected),
            (forecaster.forecast(raw(WINDOWS)[5]), expected[5]),
        ):
            assert got.dtype == np.float64
            np.testing.assert_allclose((got - want) / STD[:, None], 0, atol=1e-5)
        assert forecaster.selftest()["passed"] and forecaster.verify() == []


def test_an_unpacked_file_is_removed_with_its_forecaster(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    pack_zip(tmp_path / "art", tmp_path / "art.tsfmc")
    forecaster = open_artifact(tmp_path / "art.tsfmc")
    directory = forecaster.directory
    assert directory.is_dir()
    del forecaster
    assert not directory.exists()


def test_errors_of_the_runner_become_those_of_the_compiler(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    forecaster = open_artifact(tmp_path / "art")
    with pytest.raises(DataError, match=r"\[3, 31\], expected .* \[3, 32\]") as caught:
        forecaster.forecast(np.zeros((3, 31)))
    assert caught.value.exit_code == 2
    with pytest.raises(MissingError, match="no artifact at"):
        open_artifact(tmp_path / "nothing")


def test_loading_never_executes_code_of_the_artifact(tmp_path: Path) -> None:
    """An artifact whose hashes agree with its own, hostile ``run.py``."""
    make_artifact(tmp_path / "art")
    owned = tmp_path / "owned"
    (tmp_path / "art/run.py").write_text(f"open({str(owned)!r}, 'w')")
    seal(tmp_path / "art", read_manifest(tmp_path / "art"))
    forecaster = open_artifact(tmp_path / "art")
    assert forecaster.selftest()["passed"]
    assert not owned.exists()


def test_a_failing_build_leaves_the_old_artifact(tmp_path: Path) -> None:
    final = tmp_path / "out" / "art"
    make_artifact(final)
    before = payload_sha256(final)

    def build(directory: Path) -> dict[str, Any]:
        (directory / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(final, build)
    assert payload_sha256(final) == before and verify_artifact(final)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out" / "other", build)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["art"]


def test_a_failing_rename_puts_the_old_artifact_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "art"
    make_artifact(final)
    before = payload_sha256(final)
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="disk full"):
        make_artifact(final)
    assert payload_sha256(final) == before
    assert [path.name for path in tmp_path.iterdir()] == ["art"]


def test_what_a_killed_process_left_is_tidied_and_an_old_artifact_comes_back(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "art").rename(tmp_path / f".art.{dead.pid}.0123abcd.old")
    (tmp_path / f".art.{dead.pid}.0123abcd.new").mkdir()
    (tmp_path / f".art.{os.getpid()}.0123abcd.new").mkdir()  # of a process that lives

    def build(directory: Path) -> dict[str, Any]:
        assert verify_artifact(tmp_path / "art")
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        write(tmp_path / "art", build)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".art.{os.getpid()}.0123abcd.new", "art"]


def test_a_directory_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "file").write_text("")
    for name in ("home", "link", "file"):
        with pytest.raises(UsageError, match=name):
            make_artifact(tmp_path / name)
    assert (tmp_path / "home/thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    make_artifact(tmp_path / "empty")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": {"lookback": 0, "horizon": 8, "variates": ["a"]}}, "field task.lookback"),
        ({"level": None}, "field level"),
        (
            {"accuracy": {"test": {"mse": float("nan")}}},
            "field accuracy.test.mse: expected a finite number, got nan",
        ),
        ({"invented": 1}, "field invented"),
        ({"licence": {"commercial": True}}, "field licence.spdx"),
    ],
)
def test_a_wrong_manifest_is_refused_when_it_is_written(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(VerificationError, match=says):
        make_artifact(tmp_path / "art", **fields)
    assert not list(tmp_path.iterdir())


def test_a_file_name_that_readers_refuse_is_refused_when_it_is_written(tmp_path: Path) -> None:
    def build(directory: Path) -> dict[str, Any]:
        (directory / ".hidden").write_text("")
        return {}

    with pytest.raises(ValueError, match=r"\.hidden"):
        write(tmp_path / "art", build)


def test_fields_that_need_the_complete_artifact(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    fields = {
        key: value for key, value in read_manifest(tmp_path / "art").items() if key not in ("files", "size")
    }

    def build(directory: Path) -> dict[str, Any]:
        (directory / "model.onnx").write_bytes((tmp_path / "art/model.onnx").read_bytes())
        return fields

    vectors = (raw(WINDOWS[:2]), raw(reference(make_model(), WINDOWS[:2])))
    manifest = write_artifact(
        tmp_path / "two",
        build,
        engine_source=TARGET.engine_source(),
        selftest=vectors,
        measure_sealed=lambda directory: {
            "cold_start": {"windows": open_artifact(directory).selftest()["windows"]}
        },
    )
    assert manifest["cold_start"] == {"windows": 2}
    assert verify_artifact(tmp_path / "two")


def test_a_self_test_that_fails_is_a_failed_verification(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    write_selftest(tmp_path / "art", raw(WINDOWS[:2]), raw(reference(make_model(), WINDOWS[:2])) * 1.01)
    seal(tmp_path / "art", read_manifest(tmp_path / "art"))
    with pytest.raises(VerificationError, match=r"self-test differs by .* expected at most 0\.0001"):
        verify_artifact(tmp_path / "art")


def test_pack_and_unpack(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    pack_zip(tmp_path / "art", tmp_path / "art.tsfmc")
    (tmp_path / "back").mkdir()
    unpack_zip(tmp_path / "art.tsfmc", tmp_path / "back")
    for path in (tmp_path / "art").rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(tmp_path / "art")).read_bytes() == path.read_bytes()
    assert verify_artifact(tmp_path / "art.tsfmc") == verify_artifact(tmp_path / "art")
    assert read_manifest(tmp_path / "art.tsfmc") == read_manifest(tmp_path / "art")
