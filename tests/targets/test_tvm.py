"""The TVM target end to end: every student here, ARM and RISC-V under qemu, both forms, and what it refuses.

The cross compilers and qemu-user are part of what is tested: their absence fails these tests.
"""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factory import HORIZON, LOOKBACK, write_series, write_teacher
from golden import OWN, checkpoint
from pydantic import ValidationError
from tiny_teachers import tiny_teacher
from torch import Tensor, nn
from tvm_students import SHAPE, STUDENTS, assert_parity, lower, reference, student, windows

import tsfmc
from tsfmc.compiler.base.errors import LoweringError, MissingError, UsageError
from tsfmc.compiler.frontends import load_teacher
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Payload, Shape
from tsfmc.targets.native.devices import DEVICES, NATIVE, find_device, host
from tsfmc.targets.tvm import TARGET, build, job, toolchain
from tsfmc.targets.tvm.options import TvmOptions

FILES = ("libtsfmc_model.a", "main.c", "model.so", "tsfmc_model.h")


def symbols(library: Path, which: str) -> list[str]:
    done = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_every_student_runs_here_and_equals_torch(name: str, tmp_path: Path) -> None:
    model = student(name)
    payload = lower(model, tmp_path / "out")
    assert payload.level == "executed" and payload.runs_here and payload.files == FILES
    assert payload.details["device"] == host().name and payload.details["cross_check"]["max_rel"] <= 1e-5
    assert_parity(model, tmp_path / "out", payload)


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("device", ["raspberry-pi-4", "armv7", "riscv64"])
@pytest.mark.parametrize("name", ["folded_itransformer", "dlinear"])
def test_other_processors_execute_under_qemu(device: str, name: str, tmp_path: Path) -> None:
    payload = lower(student(name), tmp_path / "out", device=device)
    assert payload.level == "emulated" and not payload.runs_here
    assert payload.details["cross_check"]["ran_on"].startswith("qemu-")
    assert payload.details["latency"] == "not measured here"


@pytest.mark.usefixtures("same_process")
def test_a_static_batch_and_both_forms(tmp_path: Path) -> None:
    model = student("itransformer")
    payload = lower(model, tmp_path / "out", form="both", batch=3)
    assert payload.files == tuple(sorted((*FILES, "model_vm.so"))) and payload.details["batch"] == 3
    assert payload.details["cross_check"]["forms"] == ["runtime-free", "vm"] and payload.requires == ()
    assert_parity(model, tmp_path / "out", payload)
    machine = Payload(payload.files, "model_vm.so", payload.level, True, payload.details)
    assert_parity(model, tmp_path / "out", machine)


@pytest.mark.usefixtures("same_process")
def test_the_virtual_machine_alone_is_executed_here_and_says_what_it_needs(tmp_path: Path) -> None:
    payload = lower(student("affine"), tmp_path / "out", form="vm")
    assert payload.files == ("model_vm.so",) and payload.level == "executed"
    assert payload.details["cross_check"]["forms"] == ["vm"]
    assert [each.split("=")[0].rstrip(">") for each in payload.requires] == ["apache-tvm", "apache-tvm-ffi"]


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize(("form", "level"), [("vm", "compiled"), ("both", "emulated")])
def test_the_virtual_machine_is_cross_compiled_but_not_run(form: str, level: str, tmp_path: Path) -> None:
    payload = lower(student("affine"), tmp_path / "out", form=form, device="raspberry-pi-4")
    header = (tmp_path / "out" / "model_vm.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64
    assert payload.level == level and payload.details["latency"] == "not measured here"
    checked = payload.details["cross_check"]
    assert checked is None if form == "vm" else checked["forms"] == ["runtime-free"]


@pytest.mark.parametrize("device", ["armv7", "riscv64"])
@pytest.mark.parametrize("form", ["vm", "both"])
def test_the_virtual_machine_is_refused_where_no_runtime_is_published(
    form: str, device: str, tmp_path: Path
) -> None:
    with pytest.raises(
        LoweringError, match=r"no wheel for (armv7l|riscv64).*form = 'runtime-free'"
    ) as caught:
        lower(student("affine"), tmp_path / "out", form=form, device=device)
    assert caught.value.exit_code == 2 and device in caught.value.what


@pytest.fixture
def engine(same_process: None, tmp_path: Path) -> Any:
    """A linear forecaster's library, three windows a call."""
    return TARGET.load(tmp_path / "out", lower(student("affine"), tmp_path / "out", batch=3), 1)


def read_only(past: np.ndarray) -> np.ndarray:
    past = past.copy()
    past.flags.writeable = False
    return past


VARIANTS = {
    "read-only": read_only,
    "strided": lambda past: np.repeat(past, 2, axis=-1)[..., ::2],
    "reversed": lambda past: past[..., ::-1].copy()[..., ::-1],
    "another axis order": np.asfortranarray,
    "float64": lambda past: past.astype(np.float64),
    "another byte order": lambda past: past.astype(">f4"),
    "unpickled": lambda past: pickle.loads(pickle.dumps(past)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", [3, 4])
def test_the_engine_takes_any_memory(variant: str, count: int, engine: Any) -> None:
    past = windows()[:count]
    given = VARIANTS[variant](past)
    expected, before = engine(past), given.copy()
    np.testing.assert_array_equal(engine(given), expected)
    np.testing.assert_array_equal(given, before)


def test_the_engine_refuses_windows_of_another_shape(engine: Any) -> None:
    for wrong in (windows()[:, :2], windows()[..., 1:], windows()[0]):
        with pytest.raises(ValueError, match=r"expected windows of shape \(3, 48\), got \("):
            engine(wrong)


def test_a_forecast_that_is_kept_is_not_written_again(engine: Any) -> None:
    one, other = windows()[:3], windows()[3:6]
    kept = engine(one)
    part = engine(other)[1]  # a view keeps its array, too
    copies = kept.copy(), part.copy()
    assert not np.array_equal(engine(other * 2), kept)
    np.testing.assert_array_equal(kept, copies[0])
    np.testing.assert_array_equal(part, copies[1])
    first = engine(one).ctypes.data
    assert engine(other).ctypes.data == first  # dropped, so it is written again


def test_any_batch_runs_in_pieces(engine: Any) -> None:
    past, expected = windows(), reference(student("affine"))(windows())
    for count in (0, 1, 2, 5, 16):
        forecast = engine(past[:count])
        assert forecast.shape == (count, SHAPE.variates, SHAPE.horizon) and forecast.dtype == np.float32
        np.testing.assert_allclose(forecast, expected[:count], rtol=1e-5, atol=1e-5)


def test_two_builds_give_equal_bytes_and_the_third_comes_from_the_cache(tmp_path: Path) -> None:
    model, lines = student("dlinear"), []
    first = lower(model, tmp_path / "a", cache=False)
    lower(model, tmp_path / "b")
    lower(model, tmp_path / "c", lines)
    assert "found in the compile cache" in lines
    for name in first.files:
        contents = {(tmp_path / folder / name).read_bytes() for folder in "abc"}
        assert len(contents) == 1, name
    other = student("dlinear")
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    lines.clear()
    lower(other, tmp_path / "d", lines)
    assert "found in the compile cache" not in lines


@pytest.mark.usefixtures("same_process")
def test_the_archive_links_with_the_example_and_exports_nothing_else(tmp_path: Path) -> None:
    model = student("dlinear")
    out = tmp_path / "out"
    lower(model, out)
    exported = {line.split()[-1] for line in symbols(out / "model.so", "--defined-only")}
    assert exported == set(build._SYMBOLS)
    assert not any("TVM" in line or "malloc" in line for line in symbols(out / "model.so", "-u"))
    subprocess.run(["gcc", "main.c", "libtsfmc_model.a", "-lm", "-o", "predict"], cwd=out, check=True)
    windows()[:4].tofile(out / "past.bin")
    subprocess.run(["./predict", "past.bin", "forecast.bin"], cwd=out, check=True)
    got = np.fromfile(out / "forecast.bin", np.float32).reshape(4, SHAPE.variates, SHAPE.horizon)
    np.testing.assert_allclose(got, reference(model)(windows()[:4]), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("same_process")
def test_int8_weights_are_smaller_and_close(tmp_path: Path) -> None:
    model = student("itransformer")
    full = lower(model, tmp_path / "full").details["sizes"]["weight_bytes"]
    payload = lower(model, tmp_path / "int8", precision="int8-weights")
    assert payload.details["sizes"]["weight_bytes"] < 0.5 * full
    got = TARGET.load(tmp_path / "int8", payload, 1)(windows())
    expected = reference(model)(windows())
    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.usefixtures("same_process")
def test_int8_weights_for_another_processor_say_how_far_they_are_from_the_model(tmp_path: Path) -> None:
    model = student("dlinear")
    checked = lower(model, tmp_path / "pi", precision="int8-weights", device="raspberry-pi-4").details[
        "cross_check"
    ]
    # The same codes on this machine, by its own library: the two processors differ by rounding alone.
    here = lower(model, tmp_path / "here", precision="int8-weights")
    change = TARGET.load(tmp_path / "here", here, 1)(windows()) - reference(model)(windows())
    assert checked["ran_on"].startswith("qemu-")
    assert checked["rms_change"] == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-3)
    assert "rms_change" not in lower(model, tmp_path / "full").details["cross_check"]


@pytest.mark.usefixtures("same_process")
def test_an_int8_artifact_has_its_own_accuracy_and_latency_in_the_manifest(tmp_path: Path) -> None:
    result = tsfmc.compile(
        teacher=write_teacher(tmp_path / "teacher"),
        data=write_series(tmp_path / "series.csv", rows=400),
        target="tvm",
        student="dlinear",
        lookback=LOOKBACK,
        horizon=HORIZON,
        baseline=False,
        out=tmp_path / "out",
        set=[
            "measure.duration_s=0.2",
            "measure.teacher_forms=['eager']",
            "target_options.tvm.precision=int8-weights",
        ],
    )
    manifest, rows = result.manifests["tvm"], result.manifests["tvm"]["accuracy"]["test"]
    assert manifest["level"] == "executed" and manifest["target"]["precision"] == "int8-weights"
    record = manifest["latency"]["scenarios"]["stream"]
    assert record["artifact"]["median_us"] > 0 and "int8-weights" in record["method"]
    # The row of the artifact is what the shipped library forecasts, quantised, not what the model does.
    assert 0 < abs(rows["student"]["mse"] / rows["model"]["mse"] - 1) < 0.02
    verified = subprocess.run(
        [sys.executable, "run.py", "selftest"],
        cwd=result.artifacts["tvm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_tuning_keeps_only_what_was_faster_and_resumes(tmp_path: Path) -> None:
    model, lines = student("affine"), []
    payload = lower(model, tmp_path / "a", lines, tune=True)
    tuned = payload.details["tuned"]
    assert tuned["products"] == 1 and (tuned["ratio"] < 0.98 if tuned["tiles"] else True)
    assert any(line.startswith("tuning product") for line in lines)
    lines.clear()
    lower(model, tmp_path / "b", lines, tune=True, cache=False)
    assert any("tuned / estimated" in line for line in lines)
    assert_parity(model, tmp_path / "a", payload)


def test_tuning_for_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"tuning for armv7 needs that device"):
        lower(student("affine"), tmp_path / "out", device="armv7", tune=True)


class Uses(nn.Module):
    """A model with one odd operator in it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, past: Tensor) -> Tensor:
        return self.function(past)[..., : SHAPE.horizon]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("same_process")
def test_what_the_torch_frontend_lacks_goes_through_onnx(tmp_path: Path) -> None:
    model = Uses(lambda x: x.unfold(-1, 4, 2).amax(-1))
    payload = lower(model, tmp_path / "out")
    assert payload.details["frontend"] == "onnx"
    assert_parity(model, tmp_path / "out", payload)


@pytest.mark.usefixtures("same_process")
def test_an_operator_that_nobody_takes_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"fft|DFT") as caught:
        lower(Uses(lambda x: torch.fft.rfft(x).abs()), tmp_path / "out")
    assert caught.value.exit_code == 2


def test_unknown_devices_and_triples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'raspberry-pi-4'"):
        find_device("raspberry-pi4")
    with pytest.raises(UsageError, match=r"triple 'sparc-sun'"):
        find_device({"mtriple": "sparc-sun"})
    with pytest.raises(LoweringError, match=r"no processor 'cortex-z9'"):
        lower(
            student("affine"), tmp_path / "out", device={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-z9"}
        )
    with pytest.raises(ValidationError):
        TvmOptions(batch=0)


@pytest.mark.usefixtures("same_process")
def test_a_target_dictionary_compiles_and_runs_under_qemu(tmp_path: Path) -> None:
    wanted = {"mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-n1", "mattr": ["+neon"]}
    payload = lower(student("affine"), tmp_path / "out", device=wanted)
    assert payload.level == "emulated" and payload.details["target"]["mcpu"] == "neoverse-n1"


def test_a_missing_compiler_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingError, match=r"aarch64-linux-gnu-gcc.*apt-get install gcc-aarch64-linux-gnu"
    ) as caught:
        lower(student("affine"), tmp_path / "out", device="raspberry-pi-4")
    assert caught.value.exit_code == 3
    assert any("riscv64-linux-gnu-gcc" in line and "apt-get" in line for line in toolchain.problems())


def test_without_an_emulator_it_is_compiled_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    chain = DEVICES["riscv64"].toolchain
    for tool in (*toolchain.tools(chain), *toolchain.tools(NATIVE)):
        if tool.path and "qemu" not in tool.name:
            (bare / tool.name).symlink_to(tool.path)
    (bare / "as").symlink_to("/usr/bin/as")
    monkeypatch.setenv("PATH", str(bare))
    payload = lower(student("affine"), tmp_path / "out", device="riscv64")
    assert payload.level == "compiled" and payload.details["cross_check"] is None


def test_a_crash_of_the_compiler_names_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(job.sys, "executable", str(crashing))
    with pytest.raises(LoweringError, match=signal.Signals.SIGSEGV.name) as caught:
        lower(student("affine"), tmp_path / "out", cache=False)
    assert "apache-tvm-ffi" in str(caught.value)


def test_a_hanging_compiler_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"did not finish in 0 s.*raise time_limit_s"):
        lower(student("affine"), tmp_path / "out", cache=False, time_limit_s=0.2)


def test_the_installed_pair_of_packages_is_sound() -> None:
    assert TARGET.smoke_test()["bytes"] > 0
    here = TARGET.probe()
    assert here.can_lower and here.facts["apache-tvm-ffi"].startswith("0.1.14")


def test_the_target_is_listed_with_its_devices() -> None:
    assert TARGETS["tvm"] is TARGET
    assert set(DEVICES) < set(TARGET.describe()["devices"])
    json.dumps(TARGET.describe())


FAMILIES = {
    "chronos-2": (100, 24, 2),
    "chronos-bolt": (100, 24, 2),
    "moirai-1": (96, 24, 2),
    "moirai-2": (96, 24, 2),
    "timemoe": (64, 8, 2),
    "timer": (96, 24, 2),
    "timesfm-2.5": (64, 32, 2),
    "ttm": (96, 24, 2),
}


def lower_teacher(
    teacher: nn.Module, sizes: tuple[int, int, int], directory: Path, device: str = "host"
) -> Payload:
    """``sizes``: lookback, horizon, variates."""
    lookback, horizon, variates = sizes
    rng = np.random.default_rng(0)
    past = rng.normal(size=(8, variates, lookback)).cumsum(-1).astype(np.float32)
    return TARGET.lower_model(
        teacher.eval(),
        Shape(variates, lookback, horizon),
        directory,
        options=TvmOptions(cache=False, device=device),
        calibration=past,
    )


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_tiny_checkpoint_of_every_teacher_family_equals_torch(family: str, tmp_path: Path) -> None:
    lookback, horizon, variates = FAMILIES[family]
    task = {"lookback": lookback, "horizon": horizon, "variates": variates}
    teacher = load_teacher(checkpoint(OWN / family), **task)
    payload = lower_teacher(teacher, FAMILIES[family], tmp_path)
    assert payload.level == "executed" and payload.details["cross_check"]["max_rel"] <= 1e-5


# family -> horizon of one pass: a second one would only repeat the kernels of the first
EMULATED = {
    "chronos-2": 16,
    "chronos-bolt": 12,
    "moirai": 16,
    "moirai-2": 16,
    "time-moe": 8,
    "timer": 8,
    "timesfm": 12,
    "ttm": 12,
}
ELSEWHERE = [(family, device) for family in ("timer", "ttm") for device in ("armv7", "riscv64")]
"""A family with attention and one without, on the other processors."""


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize(
    ("family", "device"), [*((family, "raspberry-pi-4") for family in EMULATED), *ELSEWHERE]
)
def test_a_tiny_teacher_of_every_family_equals_torch_under_qemu(
    family: str, device: str, tmp_path: Path
) -> None:
    horizon = EMULATED[family]
    teacher = tiny_teacher(family, horizon=horizon)
    payload = lower_teacher(teacher, (teacher.lookback, horizon, 2), tmp_path, device)
    assert payload.level == "emulated" and payload.details["cross_check"]["max_rel"] <= 1e-5
    assert payload.details["cross_check"]["ran_on"].startswith("qemu-")
