"""Native tools that hang, outlive their parents or eat memory: ended within their limit, in one line."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tsfmc.compiler.base.errors import LoweringError, MissingError, VerificationError
from tsfmc.targets.measure import host
from tsfmc.targets.native.devices import find_device
from tsfmc.targets.trt import child
from tsfmc.targets.tvm import job, toolchain

LIMIT_S = 1.0
HANGS_ON = "sleep 30 & echo $! > {pid}; sleep 30"
"""A grandchild inherits the streams; until 30 s have passed it would hold a pipe open."""


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """A program that hangs and leaves a grandchild."""
    return _program(tmp_path / "hanging", HANGS_ON.format(pid=tmp_path / "grandchild"))


def test_a_compilers_grandchild_does_not_outlast_the_limit(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.sys, "executable", str(hanging))
    with _within(tmp_path), pytest.raises(LoweringError, match=r"smoke did not finish in 1 s"):
        job.run_child(job.Job("smoke"), tmp_path, LIMIT_S)


def test_a_device_scripts_grandchild_does_not_outlast_the_limit(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child.sys, "executable", str(hanging))
    with _within(tmp_path):
        result = child.run_script(tmp_path / "script.py", [], LIMIT_S)
    assert result.crashed
    assert result.problem == "script.py was ended after 1 s"


def test_a_built_programs_grandchild_does_not_outlast_the_limit(hanging: Path, tmp_path: Path) -> None:
    past = np.zeros((1, 1, 1, 4), np.float32)
    with _within(tmp_path), pytest.raises(VerificationError, match=r"did not finish in 1 s"):
        toolchain.run_static_binary(find_device("host"), hanging, past, (1, 1, 2), LIMIT_S)


def test_a_compiler_that_hangs_is_ended(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging.rename(tmp_path / "gcc")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "TOOL_SECONDS", LIMIT_S)
    with _within(tmp_path), pytest.raises(LoweringError, match=r"gcc did not finish in 1 s"):
        toolchain.run_tool(find_device("host"), "gcc", ["-c", "x.c"], tmp_path)


def test_a_tools_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "gcc", "ulimit -v >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(LoweringError, match=rf"gcc ended with 1: {toolchain.MEMORY_BYTES // 1024}$"):
        try:
            toolchain.run_tool(find_device("host"), "gcc", [], tmp_path)
        except LoweringError as error:
            raise LoweringError(error.what) from None


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"gcc is not installed \(apt-get install gcc\)"):
        toolchain.run_tool(find_device("host"), "gcc", [], tmp_path)


def test_a_driver_tool_that_fails_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "nvidia-smi", "echo 'No devices, were found'; exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host._gpu.__wrapped__() is None
    _program(tmp_path / "nvidia-smi", "echo 'Some GPU, 1.2'")
    assert host._gpu.__wrapped__() == {"name": "Some GPU", "driver": "1.2"}


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class _within:
    """The call ends soon after its limit, and the grandchild with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert time.monotonic() - self.began < LIMIT_S + 5
        status = Path("/proc", (self.folder / "grandchild").read_text().strip(), "stat")
        while _runs(status):
            assert time.monotonic() - self.began < LIMIT_S + 5
            time.sleep(0.02)


def _runs(status: Path) -> bool:
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
