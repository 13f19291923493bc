"""The C file itself: compilers, sanitizers, cppcheck, return codes, the stream; and every device."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from c_students import SHAPE, TASK, lower, needs, student, windows

from tsfmc.targets.base import Payload
from tsfmc.targets.c.devices import DEVICES

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=fast"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TRIED = {"folded_itransformer": "fp32", "dlinear_each": "int8-weights", "low_rank_map": "int8"}
"""Between them they have every kernel."""
COMPILERS = {
    "gcc": ["gcc", "-O3", "-march=x86-64-v3"],
    "gcc-avx512": ["gcc", "-O3", "-march=x86-64-v4"],
    "gcc-scalar": ["gcc", "-O2", "-DTSFMC_SCALAR"],
    "clang": ["clang", "-O3", "-march=x86-64-v3"],
    "aarch64": ["aarch64-linux-gnu-gcc", "-O3"],
    "armhf": ["arm-linux-gnueabihf-gcc", "-O3", "-mcpu=cortex-a7", "-mfpu=neon-vfpv4"],
    "riscv64": ["riscv64-linux-gnu-gcc", "-O3"],
    "cortex-m4": ["arm-none-eabi-gcc", "-O2", *DEVICES["cortex-m4f"].flags],
    "cortex-m55": ["arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
    "rv32imc": ["riscv64-unknown-elf-gcc", "-O2", *DEVICES["rv32imc"].flags],
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders with the C of each student tried."""
    found = {}
    for name, precision in TRIED.items():
        found[name] = tmp_path_factory.mktemp("c") / "out"
        lower(student(name), found[name], precision=precision)
    return found


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compilers_have_nothing_to_say(compiler: str, sources: Mapping[str, Path], tmp_path: Path) -> None:
    command = COMPILERS[compiler]
    needs(command[0])
    for name, folder in sources.items():
        files = (
            ["tsfmc_model.c"] if "elf" in command[0] or "none" in command[0] else ["tsfmc_model.c", "main.c"]
        )
        for each in files:
            arguments = [*command, *STRICT, "-c", "-o", str(tmp_path / "x.o"), each]
            done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name} {each}: {done.stderr[:2000]}"


def test_cppcheck_has_nothing_to_say(sources: Mapping[str, Path]) -> None:
    needs("cppcheck")
    for name, folder in sources.items():
        checks = "--enable=warning,performance,portability"
        command = ["cppcheck", "-q", checks, "--std=c99", "--error-exitcode=2", "tsfmc_model.c", "main.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(("compiler", "flag"), [("gcc", "-mavx2"), ("clang", "-DTSFMC_SCALAR")])
def test_the_example_under_sanitizers(
    compiler: str, flag: str, sources: Mapping[str, Path], tmp_path: Path
) -> None:
    needs(compiler)
    past = windows()[:3]
    past.tofile(tmp_path / "past.bin")
    for name, folder in sources.items():
        command = [compiler, *STRICT, *SANITIZED, flag, "main.c", "tsfmc_model.c", "-lm"]
        subprocess.run([*command, "-o", tmp_path / "predict"], cwd=folder, check=True)
        for arguments in (["--selftest"], ["past.bin", "forecast.bin"]):
            done = subprocess.run(
                ["./predict", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr[:2000]}"
        got = np.fromfile(tmp_path / "forecast.bin", np.float32).reshape(3, 3, 12)
        with torch.no_grad():
            expected = student(name)(torch.from_numpy(past)).numpy()
        np.testing.assert_allclose(got, expected, atol=2e-5 if TRIED[name] == "fp32" else 0.2)


CALLER = r"""
#include "tsfmc_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) do { if (!(condition)) { printf("line %d\n", __LINE__); return 1; } } while (0)
enum { D = TSFMC_VARIATES, L = TSFMC_LOOKBACK, H = TSFMC_HORIZON };

static float past[TSFMC_INPUT_SIZE], one[TSFMC_OUTPUT_SIZE], other[TSFMC_OUTPUT_SIZE];
static unsigned char scratch[TSFMC_SCRATCH_BYTES];

static int codes(void) {
  for (int i = 0; i < TSFMC_INPUT_SIZE; ++i) past[i] = (float)(i % 17) / 16.0F;
  const tsfmc_model *model = &tsfmc_student;
  CHECK(tsfmc_forecast(model, past, one, scratch) == TSFMC_OK);
  for (int shift = 0; shift < 64; shift += 7) { /* any alignment and content, not a byte more */
    unsigned char *memory = malloc(TSFMC_SCRATCH_BYTES + 128), *at = memory + shift;
    memset(memory, 0xff, TSFMC_SCRATCH_BYTES + 128);
    CHECK(tsfmc_forecast(model, past, other, at) == TSFMC_OK && memcmp(one, other, sizeof one) == 0);
    for (unsigned char *p = memory; p < memory + TSFMC_SCRATCH_BYTES + 128; ++p)
      CHECK(*p == 0xff || (p >= at && p < at + TSFMC_SCRATCH_BYTES));
    free(memory);
  }
  CHECK(tsfmc_forecast(0, past, one, scratch) == TSFMC_BAD_MODEL);
  CHECK(tsfmc_forecast(model, 0, one, scratch) == TSFMC_BAD_POINTER);
  CHECK(tsfmc_forecast(model, past, 0, scratch) == TSFMC_BAD_POINTER);
  CHECK(tsfmc_forecast(model, past, one, 0) == TSFMC_BAD_POINTER);
  CHECK(tsfmc_forecast(model, (const float *)(const void *)((const char *)past + 1), one, scratch) ==
        TSFMC_BAD_POINTER);
  tsfmc_model newer = *model;
  newer.schema += 1U;
  CHECK(tsfmc_forecast(&newer, past, one, scratch) == TSFMC_BAD_MODEL);
  const float bad[3] = {NAN, INFINITY, -INFINITY};
  const int places[3] = {0, TSFMC_INPUT_SIZE / 2, TSFMC_INPUT_SIZE - 1};
  for (int i = 0; i < 9; ++i) {
    const float kept = past[places[i / 3]];
    past[places[i / 3]] = bad[i % 3];
    CHECK(tsfmc_forecast(model, past, other, scratch) == TSFMC_BAD_VALUE);
    past[places[i / 3]] = kept;
  }
  for (int i = 0; i < TSFMC_INPUT_SIZE; ++i) past[i] = i % 2 ? 3e38F : -3e38F;
  const int huge = tsfmc_forecast(model, past, other, scratch);
  CHECK(huge == TSFMC_OVERFLOW || huge == TSFMC_OK);
  return 0;
}

static int selftest(size_t weight_bytes) {
  CHECK(tsfmc_selftest(&tsfmc_student, past, one, scratch) == TSFMC_OK);
  unsigned char *copy = malloc(weight_bytes);
  memcpy(copy, tsfmc_student.weights, weight_bytes);
  tsfmc_model moved = tsfmc_student;
  moved.weights = (const tsfmc_weights *)(const void *)copy;
  CHECK(tsfmc_selftest(&moved, past, one, scratch) == TSFMC_OK);
  for (size_t bit = 0; bit < 8 * weight_bytes; bit += 8 * weight_bytes / 97 + 1) {
    copy[bit / 8] = (unsigned char)(copy[bit / 8] ^ (1U << (bit % 8)));
    CHECK(tsfmc_selftest(&moved, past, one, scratch) == TSFMC_DAMAGED);
    copy[bit / 8] = (unsigned char)(copy[bit / 8] ^ (1U << (bit % 8)));
  }
  free(copy);
  return 0;
}

/* Rows from the first file, forecasts after every row from the lookback on into the second. */
static int stream(const char *rows, const char *forecasts) {
  tsfmc_stream live;
  float row[D];
  unsigned char *state = malloc(TSFMC_STATE_BYTES);
  FILE *in = fopen(rows, "rb"), *out = fopen(forecasts, "wb");
  tsfmc_stream_init(&live);
  CHECK(tsfmc_stream_forecast(&tsfmc_student, &live, one, scratch) == TSFMC_NOT_READY);
  for (int d = 0; d < D; ++d) row[d] = NAN;
  CHECK(tsfmc_push(&live, row) == TSFMC_BAD_VALUE && live.rows == 0U); /* nothing to fill from */
  for (int count = 1; fread(row, sizeof row, 1, in) == 1; ++count) {
    CHECK(tsfmc_push(&live, row) == TSFMC_OK);
    if (count % 5 == 0) { /* a restart */
      tsfmc_save(&live, state);
      memset(&live, 0xff, sizeof live);
      CHECK(tsfmc_restore(&live, state) == TSFMC_OK);
    }
    const int status = tsfmc_stream_forecast(&tsfmc_student, &live, one, scratch);
    CHECK(status == (count < L ? TSFMC_NOT_READY : TSFMC_OK));
    if (status == TSFMC_OK) fwrite(one, sizeof one, 1, out);
  }
  row[0] = INFINITY;
  CHECK(tsfmc_push(&live, row) == TSFMC_BAD_VALUE);
  tsfmc_save(&live, state);
  for (size_t byte = 0; byte < TSFMC_STATE_BYTES; byte += 13) {
    state[byte] ^= 4U;
    CHECK(tsfmc_restore(&live, state) == TSFMC_BAD_STATE);
    state[byte] ^= 4U;
  }
  for (int d = 0; d < D; ++d) row[d] = NAN;
  for (int i = 0; i < 2 * L; ++i) CHECK(tsfmc_push(&live, row) == TSFMC_OK);
  CHECK(tsfmc_stream_forecast(&tsfmc_student, &live, one, scratch) == TSFMC_NOT_READY);
  free(state);
  fclose(in);
  fclose(out);
  return 0;
}

int main(int argc, char **argv) {
  (void)argc;
  return codes() || selftest((size_t)atoi(argv[1])) || stream(argv[2], argv[3]);
}
"""


def test_codes_selftest_and_stream(tmp_path: Path) -> None:
    model = student("low_rank_map")
    payload = lower(model, tmp_path / "out")
    (tmp_path / "caller.c").write_text(CALLER)
    command = [
        "gcc",
        "-std=c99",
        *SANITIZED,
        "-I",
        "out",
        "caller.c",
        "out/tsfmc_model.c",
        "-lm",
        "-o",
        "caller",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, SHAPE.variates)).cumsum(0).astype(np.float32)
    gaps = rows.copy()
    gaps[20:23, 0] = gaps[40, 1] = gaps[58:, 2] = np.nan  # two gaps that close, one that is open
    gaps.tofile(tmp_path / "rows.bin")
    size = str(payload.details["sizes"]["weight_bytes"])
    done = subprocess.run(
        ["./caller", size, "rows.bin", "forecasts.bin"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[:2000]

    filled = rows.astype(np.float64)
    filled[20:23, 0] = np.interp([20, 21, 22], [19, 23], rows[[19, 23], 0])
    filled[40, 1] = (rows[39, 1] + rows[41, 1]) / 2
    filled[58:, 2] = rows[57, 2]
    mean, std = np.array(TASK.mean)[:, None], np.array(TASK.std)[:, None]
    past = ((filled[-SHAPE.lookback :].T - mean) / std).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(past[None])).numpy()[0] * std + mean
    got = np.fromfile(tmp_path / "forecasts.bin", np.float32).reshape(-1, SHAPE.variates, SHAPE.horizon)
    assert len(got) == 60 - SHAPE.lookback + 1
    np.testing.assert_allclose(got[-1], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cortex-m4f", "fp32"), ("cortex-m7", "int8-weights"), ("cortex-m33", "fp32"), ("rv32imc", "int8")],
)
def test_microcontrollers(device: str, precision: str, tmp_path: Path) -> None:
    described = DEVICES[device]
    needs(described.prefix + "gcc", described.emulator[0])
    payload = lower(student("low_rank_map"), tmp_path / "out", device=device, precision=precision)
    facts = payload.details
    assert payload.level == "emulated" and not payload.runs_here and payload.entry == "tsfmc_model.c"
    measured, sizes = facts["cross_check"]["emulated"], facts["sizes"]
    assert 64 < measured["stack_bytes"] < 1024
    # A multiply-add is at least one instruction; without a floating-point unit some hundred.
    assert facts["multiply_adds"] < measured["instructions"] < 1000 * facts["multiply_adds"]
    assert sizes["object_static_ram_bytes"] == 0
    assert sizes["weight_bytes"] < sizes["object_flash_bytes"] < sizes["example_flash_bytes"] < 16_000


def test_make_builds_and_runs_on_the_board(tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    lower(student("folded_itransformer"), tmp_path / "out", device="cortex-m7")
    (tmp_path / "out.build").mkdir()
    windows()[:1].tofile(tmp_path / "out.build" / "past.bin")
    done = subprocess.run(
        ["make", "-s", "run"], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    status, selftest, stack, ticks = map(int, done.stdout.split())
    assert status == selftest == 0 and stack > 0 and ticks > 0 and "warning" not in done.stderr


@pytest.mark.parametrize("device", ["raspberry-pi-4", "armv7", "riscv64"])
def test_linux_boards(device: str, tmp_path: Path) -> None:
    described = DEVICES[device]
    needs(described.prefix + "gcc", described.emulator[0])
    payload: Payload = lower(student("folded_mlp"), tmp_path / "out", device=device)
    assert payload.level == "emulated" and payload.entry == "model.so"
    assert payload.details["cross_check"]["max_rel"] < 1e-6
