"""The library on the device: many threads, another model under an old name, a processor that is too old."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm_students import lower, reference, student, windows, worker_here

from tsfmc.compiler.base.errors import UsageError
from tsfmc.targets.artifact.device.errors import ArtifactError
from tsfmc.targets.artifact.device.files import ArtifactFiles
from tsfmc.targets.base import Payload
from tsfmc.targets.native import engine
from tsfmc.targets.native.devices import DEVICES, cpu_flags, find_device
from tsfmc.targets.native.features import FEATURES, needed
from tsfmc.targets.tvm import TARGET

THREADS, CALLS = 4, 1000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Payload]:
    """An iTransformer in both forms: values cross several kernels, and calls are long enough to overlap."""
    out = tmp_path_factory.mktemp("built") / "out"
    with worker_here():
        payload = lower(student("wide_itransformer"), out, form="both")
    return out, payload


def facts(payload: Payload, **changes: Any) -> dict[str, Any]:
    return {"target": {"kind": "tvm", "entry": payload.entry, **payload.details, **changes}}


@pytest.mark.parametrize("entry", ["model.so", "model_vm.so"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "one each"])
def test_threads_get_their_own_forecasts(entry: str, shared: bool, built: tuple[Path, Payload]) -> None:
    folder, payload = built
    common = engine.Engine(ArtifactFiles(folder), facts(payload, entry=entry), 1)
    past = [windows()[i : i + 1].copy() for i in range(THREADS)]
    expected = [common(each).copy() for each in past]

    def wrong(number: int) -> int:
        forecaster = (
            common if shared else engine.Engine(ArtifactFiles(folder), facts(payload, entry=entry), 1)
        )
        mine, right = past[number], expected[number]
        kept = [forecaster(mine) for _ in range(8)]  # held while the other threads go on
        count = sum(not np.array_equal(forecaster(mine), right) for _ in range(CALLS))
        return count + sum(not np.array_equal(each, right) for each in kept)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(wrong, range(THREADS))) == [0] * THREADS


def test_the_library_has_no_state(built: tuple[Path, Payload], tmp_path: Path) -> None:
    """Its own object: a linked library has a few words of the C runtime's beside it."""
    subprocess.run(["ar", "x", built[0] / "libtsfmc_model.a"], cwd=tmp_path, check=True)
    listed = subprocess.run(["nm", "whole.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    constant = {
        "__TVMBackendAllocWorkspace",
        "__TVMBackendFreeWorkspace",
        "__TVMFFIErrorSetRaisedFromCStrParts",
    }
    written = {row[-1] for row in rows if row[-2] in "bBdDcCvV"} - constant
    assert written <= {"__tvm_ffi__library_ctx"}, written
    sizes = subprocess.run(
        ["size", "-A", "whole.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rooms = {line.split()[0]: int(line.split()[1]) for line in sizes.stdout.splitlines()[2:] if line.split()}
    assert rooms.get(".data", 0) == rooms.get(".bss", 0) == 0


C_TEST = r"""
#include "tsfmc_model.h"
#include <stdlib.h>
#include <string.h>

int main(void) {
  float past[TSFMC_INPUT_SIZE], one[TSFMC_OUTPUT_SIZE], other[TSFMC_OUTPUT_SIZE];
  for (int i = 0; i < TSFMC_INPUT_SIZE; ++i) past[i] = (float)(i % 17) / 16;
  if (tsfmc_predict(past, one) != TSFMC_OK) return 1;
  if (tsfmc_scratch_bytes() != TSFMC_SCRATCH_BYTES) return 2;
  for (int shift = 0; shift < 64; shift += 7) { /* any alignment and content, and not a byte more */
    unsigned char *memory = malloc(TSFMC_SCRATCH_BYTES + 128), *scratch = memory + shift;
    memset(memory, 0xff, TSFMC_SCRATCH_BYTES + 128);
    if (tsfmc_forecast(past, other, scratch) != TSFMC_OK || memcmp(one, other, sizeof one)) return 3;
    for (unsigned char *p = memory; p < memory + TSFMC_SCRATCH_BYTES + 128; ++p)
      if (*p != 0xff && (p < scratch || p >= scratch + TSFMC_SCRATCH_BYTES)) return 4;
    free(memory);
  }
  if (tsfmc_forecast(0, other, past) != TSFMC_BAD_POINTER) return 5;
  if (tsfmc_forecast(past, 0, past) != TSFMC_BAD_POINTER) return 5;
  if (tsfmc_forecast((const float *)((const char *)past + 1), other, one) != TSFMC_BAD_POINTER) return 6;
  return tsfmc_missing_cpu_feature() ? 7 : 0;
}
"""


def test_the_caller_brings_the_memory(built: tuple[Path, Payload], tmp_path: Path) -> None:
    (tmp_path / "test.c").write_text(C_TEST)
    folder = built[0]
    command = [
        "gcc",
        "-Wall",
        "-Werror",
        "-I",
        folder,
        "test.c",
        folder / "libtsfmc_model.a",
        "-lm",
        "-o",
        "test",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run(["./test"], cwd=tmp_path, check=False).returncode == 0


def test_floats_at_odd_addresses_are_copied_first(built: tuple[Path, Payload]) -> None:
    folder, payload = built
    forecaster = engine.Engine(ArtifactFiles(folder), facts(payload, entry="model.so"), 1)
    past = windows()[:1]
    odd = np.frombuffer(bytearray(b"\0" + past.tobytes()), np.float32, past.size, 1).reshape(past.shape)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(forecaster(odd), forecaster(past))


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("form", ["runtime-free", "vm"])
@pytest.mark.parametrize("memfd", [True, False], ids=["memfd", "file"])
def test_a_replaced_artifact_serves_the_new_model(
    form: str, memfd: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create")
    models = {name: student(name) for name in ("affine", "dlinear")}
    payloads = {name: lower(model, tmp_path / name, form=form) for name, model in models.items()}
    past, here = windows()[:1], tmp_path / "here"
    shutil.copytree(tmp_path / "affine", here)
    old = TARGET.load(here, payloads["affine"], 1)
    before = old(past).copy()
    for name in payloads["dlinear"].files:
        shutil.copyfile(tmp_path / "dlinear" / name, here / name)  # in place: the same file with other bytes
    new = TARGET.load(here, payloads["dlinear"], 1)
    np.testing.assert_allclose(new(past), reference(models["dlinear"])(past), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(old(past), before)
    assert not np.allclose(before, new(past), atol=1e-3)


def test_what_is_opened_is_what_was_hashed(built: tuple[Path, Payload]) -> None:
    files = ArtifactFiles(built[0], {built[1].entry: "0" * 64})
    with pytest.raises(ArtifactError, match=r"model.so was changed while it was opened"):
        engine.Engine(files, facts(built[1]), 1)


def test_the_library_knows_its_own_shapes(built: tuple[Path, Payload]) -> None:
    """A manifest alone cannot make it read or write beyond the arrays it is given."""
    folder, payload = built
    batch, variates, horizon = payload.details["output_shape"]
    for name, shape in (("output_shape", [batch, variates, 1]), ("input_shape", [batch, 1, 1])):
        with pytest.raises(
            ValueError, match=r"model.so was compiled for batch, variates, numbers in and out"
        ):
            engine.Engine(ArtifactFiles(folder), facts(payload, **{name: shape}), 1)
    assert horizon > 1


def test_dropped_forecasters_leave_nothing_behind(built: tuple[Path, Payload]) -> None:
    def opened() -> tuple[int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        return len(list(Path("/proc/self/fd").iterdir())), maps.count("memfd:tsfmc")

    before = opened()
    for _ in range(20):
        engine.Engine(ArtifactFiles(built[0]), facts(built[1]), 1)(windows()[:1])
    assert opened() == before


def test_a_lesser_processor_is_refused_by_name(built: tuple[Path, Payload]) -> None:
    folder, payload = built
    assert payload.details["cpu_features"] == list(find_device("host").needs)
    known = sorted(cpu_flags())[:2]
    lesser = {"a": [], "b": known, "c": ["later"]}
    with pytest.raises(RuntimeError, match=r"^this processor has no later: compile with --device b$"):
        engine.Engine(
            ArtifactFiles(folder), facts(payload, cpu_features=[*known, "later"], lesser_devices=lesser), 1
        )
    with pytest.raises(RuntimeError, match=r"compiled for riscv64, this is "):
        engine.Engine(ArtifactFiles(folder), facts(payload, machine="riscv64"), 1)


QEMU = ["qemu-x86_64-static", "-cpu"]
TOO_OLD = {"x86-64-v3": ("Nehalem", "avx"), "x86-64-v4": ("max", "avx512f")}
"""Device -> a processor that lacks something, and the first thing that it lacks."""
PYTHON = """
import importlib.util, json, sys, types
spec = importlib.util.spec_from_file_location("engine", sys.argv[1])
engine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(engine)
try:
    files = types.SimpleNamespace(read=lambda name: open(f"{sys.argv[2]}/{name}", "rb").read())
    engine.Engine(files, {"target": json.loads(sys.argv[3])}, 1)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("device", sorted(TOO_OLD))
def test_the_engine_asks_the_processor_itself(device: str, tmp_path: Path) -> None:
    """Under the emulator /proc/cpuinfo still tells of this machine's processor."""
    payload = lower(student("affine"), tmp_path / "out", device=device)
    processor, missing = TOO_OLD[device]
    told = json.dumps({"entry": payload.entry, **payload.details, "cpu_features": []}, sort_keys=True)
    arguments = ["-c", PYTHON, engine.__file__, str(tmp_path / "out"), told]
    done = subprocess.run(
        [*QEMU, processor, str(Path(sys.executable).resolve()), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(np.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    lesser = sorted(DEVICES)[sorted(DEVICES).index(device) - 1]
    assert done.stdout == f"this processor has no {missing}: compile with --device {lesser}\n", done.stderr


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("device", sorted(TOO_OLD))
def test_the_example_ends_with_one_line_on_a_lesser_processor(device: str, tmp_path: Path) -> None:
    model = student("affine")
    lower(model, tmp_path / "out", device=device)
    command = ["gcc", "main.c", "libtsfmc_model.a", "-static", "-lm", "-o", "predict"]
    subprocess.run(command, cwd=tmp_path / "out", check=True)
    windows()[:2].tofile(tmp_path / "out" / "past.bin")

    def under(processor: str) -> subprocess.CompletedProcess[str]:
        arguments = [*QEMU, processor, "./predict", "past.bin", "forecast.bin"]
        return subprocess.run(arguments, cwd=tmp_path / "out", capture_output=True, text=True, check=False)

    processor, missing = TOO_OLD[device]
    refused = under(processor)
    assert refused.returncode == 3, refused
    line = f"error: this processor has no {missing}, for which the forecaster was compiled\n"
    assert [each for each in refused.stderr.splitlines(True) if "TCG doesn't support" not in each] == [line]
    if device == "x86-64-v3":
        assert under("max").returncode == 0
        got = np.fromfile(tmp_path / "out" / "forecast.bin", np.float32).reshape(2, 3, 12)
        np.testing.assert_allclose(got, reference(model)(windows()[:2]), rtol=1e-5, atol=1e-5)


def test_the_needs_of_every_device_are_what_llvm_may_use() -> None:
    features: Callable[[Any], Any] = tvm.get_global_func("target.llvm_get_cpu_features")
    for device in DEVICES.values():
        llvm = [str(each) for each in features(tvm.target.Target(dict(device.target)))]
        assert set(device.needs) == set(needed(device.system, llvm)), device.name
    assert len({(each.system, each.linux) for each in FEATURES}) == len(FEATURES)


@pytest.mark.parametrize(
    ("triple", "package"),
    [
        ("aarch64-linux-android", "gcc-aarch64-linux-gnu"),
        ("aarch64-linux-musl", "gcc-aarch64-linux-gnu"),
        ("arm-none-eabi", "gcc-arm-linux-gnueabihf"),
        ("armv7l-linux-gnueabi", "gcc-arm-linux-gnueabihf"),
        ("x86_64-pc-windows-msvc", "gcc"),
        ("riscv64-unknown-elf", "gcc-riscv64-linux-gnu"),
    ],
)
def test_systems_without_glibc_are_refused(triple: str, package: str) -> None:
    with pytest.raises(UsageError, match=r"only Linux with glibc") as caught:
        find_device({"mtriple": triple})
    assert f"apt-get install {package}" in caught.value.hint and "\n" not in str(caught.value)


def test_a_big_endian_or_64_bit_arm_is_not_taken_for_a_small_one() -> None:
    assert find_device({"mtriple": "arm64-unknown-linux-gnu"}).system == "aarch64"
    for triple in ("aarch64_be-linux-gnu", "armeb-linux-gnueabihf"):
        with pytest.raises(UsageError, match=r"target triple"):
            find_device({"mtriple": triple})
