"""The TVM target on microcontrollers: linked without an operating system, and run under their emulators."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_students import needs
from tvm_students import SHAPE, lower, reference, student, windows

from tsfmc.compiler.base.errors import LoweringError, MissingError, UsageError
from tsfmc.targets.native.boards import ELF, link_arguments
from tsfmc.targets.native.devices import DEVICES, find_device
from tsfmc.targets.tvm.emulate import emulate

pytestmark = pytest.mark.usefixtures("same_process")


@pytest.mark.parametrize(
    ("device", "name", "precision"),
    [
        ("cortex-m4f", "folded_itransformer", "fp32"),
        ("cortex-m7", "low_rank_map", "int8-weights"),
        ("cortex-m33", "dlinear", "fp32"),
        ("rv32imc", "affine_maps", "fp32"),
    ],
)
def test_every_board(device: str, name: str, precision: str, tmp_path: Path) -> None:
    """Compiled by LLVM, linked for the core, and the function of the model on hard windows."""
    chain = DEVICES[device].toolchain
    needs(chain.prefix + "gcc", (chain.emulator or ("",))[0])
    payload = lower(student(name), tmp_path / "out", device=device, precision=precision)
    facts = payload.details
    assert payload.level == "emulated" and not payload.runs_here and payload.entry == "libtsfmc_model.a"
    assert facts["machine"] == facts["device"] == device
    sizes, checked = facts["sizes"], facts["cross_check"]
    assert checked["max_rel"] < (1e-5 if precision == "fp32" else 2e-2)
    assert sizes["weight_bytes"] < sizes["object_flash_bytes"] <= sizes["example_flash_bytes"] < 100 << 10
    assert sizes["object_static_ram_bytes"] == 0, "it keeps nothing between calls"
    assert sizes["scratch_bytes"] == sizes["arena_bytes"] + 64
    assert 64 < checked["emulated"]["stack_bytes"] < 2048
    assert checked["emulated"]["instructions"] > 3 * 48  # more than one for each number of the window
    assert emulate(tmp_path / "out", facts) is None


@pytest.mark.parametrize(("device", "ram"), [("cortex-m7", "2000"), ("rv32imc", "8100")])
def test_make_builds_and_runs_what_the_user_gets(device: str, ram: str, tmp_path: Path) -> None:
    """And whatever is written at run time is copied from flash or cleared: nothing in RAM comes by itself."""
    chain = DEVICES[device].toolchain
    needs("make", chain.prefix + "gcc", (chain.emulator or ("",))[0])
    out = tmp_path / "out"
    model = student("folded_itransformer")
    payload = lower(model, out, device=device)
    assert set(payload.files) == {path.name for path in out.iterdir()}
    linked = subprocess.run(["make", "-s", "BUILD=made"], cwd=out, capture_output=True, text=True, check=True)
    assert not linked.stderr, "a note about the stack, which a core has no use for"
    past = windows()[:2]
    past.tofile(out / "made" / "past.bin")
    done = subprocess.run(
        ["make", "-s", "run", "BUILD=made"], cwd=out, capture_output=True, text=True, check=True
    )
    status, _, stack, ticks = map(int, done.stdout.split())
    assert status == 0 and stack > 0 and ticks > 0 and "warning" not in done.stderr
    forecast = np.fromfile(out / "made" / "forecast.bin", np.float32).reshape(2, 3, SHAPE.horizon)
    np.testing.assert_allclose(forecast, reference(model)(past), atol=1e-5)
    listed = subprocess.run(
        [f"{chain.prefix}objdump", "-h", f"made/{ELF}"], cwd=out, capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listed.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert {row[1] for row in rows if row[3].startswith(ram)} <= {".data", ".bss"}


def test_the_header_of_a_board_promises_no_memory_of_its_own(tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "arm-none-eabi-nm")
    lower(student("affine"), tmp_path / "out", device="cortex-m4f")
    listed = subprocess.run(
        ["arm-none-eabi-nm", "-g", "libtsfmc_model.a"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    defined = {line.split()[-1] for line in listed.splitlines() if len(line.split()) == 3}
    wanted = {line.split()[-1] for line in listed.splitlines() if line.split()[:1] == ["U"]}
    assert defined == {"tsfmc_forecast", "tsfmc_missing_cpu_feature", "tsfmc_scratch_bytes", "tsfmc_shape"}
    assert not wanted & {"malloc", "free", "printf", "fopen"}
    text = '#include "tsfmc_model.h"\nint main(void) { return tsfmc_predict(0, 0); }\n'
    (tmp_path / "out" / "wrong.c").write_text(text)
    command = ["arm-none-eabi-gcc", "-std=c99", "-Werror=implicit-function-declaration", "-c", "wrong.c"]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "tsfmc_predict" in done.stderr


def test_the_example_is_for_the_core(tmp_path: Path) -> None:
    arguments = link_arguments(find_device("cortex-m33"), tmp_path, tmp_path / "x.a", tmp_path / ELF)
    assert "-mcpu=cortex-m33" in arguments and "-nostartfiles" in arguments


def test_a_board_has_no_virtual_machine(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"device cortex-m7: form 'vm' needs TVM's runtime"):
        lower(student("affine"), tmp_path / "out", device="cortex-m7", form="vm")


def test_a_missing_compiler_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsfmc.targets.tvm.toolchain.shutil.which", lambda name: None)
    with pytest.raises(MissingError, match=r"arm-none-eabi-gcc is not installed") as caught:
        lower(student("affine"), tmp_path / "out", device="cortex-m7")
    assert "gcc-arm-none-eabi" in caught.value.hint


@pytest.mark.parametrize("triple", ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "xtensa-esp32-elf"])
def test_cores_without_a_row_are_refused_with_those_that_have_one(triple: str) -> None:
    with pytest.raises(UsageError, match=r"is bare metal without an operating system") as caught:
        find_device({"kind": "llvm", "mtriple": triple})
    assert "cortex-m4f, cortex-m7, cortex-m33, rv32imc" in caught.value.hint
    assert "c target" in caught.value.hint


def test_a_core_that_llvm_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    row = DEVICES["cortex-m7"]
    unknown = replace(row, target={**row.target, "mcpu": "cortex-m99"})
    monkeypatch.setattr("tsfmc.targets.tvm.worker.find_device", lambda name: unknown)
    with pytest.raises(
        LoweringError, match=r"LLVM knows no processor 'cortex-m99' for thumbv7em-none-eabihf"
    ):
        lower(student("affine"), tmp_path / "out", device="cortex-m7", cache=False)
