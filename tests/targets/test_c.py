"""The c target: every student as one C file, the same function, the same bytes, refused by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from c_students import SHAPE, STUDENTS, TASK, lower, needs, student, windows
from torch import Tensor, nn

from tsfmc.compiler import contracts
from tsfmc.compiler.base.errors import LoweringError, MissingError, UsageError
from tsfmc.compiler.ir.program import export_program
from tsfmc.targets.artifact.runner import render_runner
from tsfmc.targets.base import Payload
from tsfmc.targets.c import TARGET, build
from tsfmc.targets.c.devices import DEVICES, find_device
from tsfmc.targets.c.emit import Selftest, write_sources
from tsfmc.targets.c.memory import plan
from tsfmc.targets.c.options import COptions
from tsfmc.targets.c.read_graph import Graph, read_graph
from tsfmc.targets.measure.parity import check_parity, hard_windows


def graph_of(model: nn.Module, precision: str = "fp32") -> Graph:
    """The steps of a model."""
    form = export_program(model, SHAPE, windows())
    for rewrite in TARGET.rewrites(COptions(precision=precision)):  # type: ignore[arg-type]
        form = rewrite.apply(form, windows())
    return read_graph(form, precision)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Payload]:
    out = tmp_path_factory.mktemp("c") / "out"
    return out, lower(student("low_rank_map"), out)


def test_contract() -> None:
    contracts.check_target("c")


@pytest.mark.parametrize("name", STUDENTS)
def test_parity_of_every_student(name: str, tmp_path: Path) -> None:
    model = student(name)
    payload = lower(model, tmp_path / "out", device="host")
    assert payload.level == "executed" and payload.details["cross_check"]["max_rel"] <= 1e-6
    program = export_program(model, SHAPE, windows())
    engine = TARGET.load(tmp_path / "out", payload, 1)
    parity = check_parity(engine, program, hard_windows(windows()), 1e-6)
    assert parity.passed, parity.describe()


@pytest.mark.parametrize("name", ["low_rank_map", "dlinear", "folded_itransformer", "folded_mlp"])
def test_int8_weights_keep_to_their_tolerance(name: str, tmp_path: Path) -> None:
    model = student(name)
    small = lower(model, tmp_path / "int8", precision="int8-weights")
    assert small.details["tolerance"] == 5e-2 and 1e-6 < small.details["cross_check"]["max_rel"] < 2e-2
    full = graph_of(model).weights.size_bytes
    assert small.details["sizes"]["weight_bytes"] < 0.75 * full


def test_int8_keeps_the_level_of_a_window(tmp_path: Path) -> None:
    """A window far from zero: rounded weights would move the forecast by a share of its level."""
    model = student("dlinear")
    payload = lower(model, tmp_path / "int8", precision="int8-weights")
    engine = TARGET.load(tmp_path / "int8", payload, 1)
    past = windows()[:1] + np.float32(1000)
    with torch.no_grad():
        expected = model(torch.from_numpy(past)).numpy()
    assert np.abs(engine(past) - expected).max() < 0.5


def test_two_lowerings_write_the_same_bytes(tmp_path: Path, built: tuple[Path, Payload]) -> None:
    again = lower(student("low_rank_map"), tmp_path / "again")
    assert again.files == built[1].files
    for name in again.files:
        assert (tmp_path / "again" / name).read_bytes() == (built[0] / name).read_bytes(), name


def test_weights_are_exact(built: tuple[Path, Payload]) -> None:
    """The C file read back: the basis, in panels of its five columns, bit for bit."""
    text = (built[0] / "tsfmc_model.c").read_text()
    values = text.split("/* w0 */")[1].split("}")[0]
    found = [float.fromhex(each.rstrip("F")) for each in re.findall(r"[-\w.+]+F", values)]
    basis = student("low_rank_map").basis.detach().numpy().reshape(-1)
    np.testing.assert_array_equal(np.array(found[: basis.size], np.float32), basis)


def test_the_source_allocates_and_prints_nothing(built: tuple[Path, Payload]) -> None:
    text = (built[0] / "tsfmc_model.c").read_text()
    assert not re.search(r"\b(malloc|calloc|free|alloca|printf|stdio)\b", text)
    assert re.findall(r"#include [<\"](.*?)[>\"]", text) == ["tsfmc_model.h", "string.h"]


def test_the_header_names_the_task(built: tuple[Path, Payload]) -> None:
    header = (built[0] / "tsfmc_model.h").read_text()
    for line in ("VARIATES 3", "LOOKBACK 48", "HORIZON 12", "STEP_SECONDS 900", 'FREQUENCY "15min"'):
        assert f"#define TSFMC_{line}" in header
    assert "#define TSFMC_MISSING 2 " in header
    assert r'{"load", "a \"b\"", "c\\d"}' in (built[0] / "tsfmc_model.c").read_text()


class _Cosine(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return torch.cos(past[..., :12])


def test_an_operator_without_a_kernel_is_refused_by_name() -> None:
    with pytest.raises(LoweringError, match=r"operator Cos .* has no C kernel") as caught:
        graph_of(_Cosine())
    assert "tvm" in caught.value.hint


class _OverVariates(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past.mean(dim=1, keepdim=True).expand(-1, 3, -1)[..., :12]


def test_a_form_without_a_kernel_is_refused_by_name() -> None:
    with pytest.raises(LoweringError, match=r"ReduceMean .* with other axes than the last"):
        graph_of(_OverVariates())


class _Mixed(nn.Module):
    """Operators that no student has: strides, transposes, maxima, two computed products."""

    def forward(self, past: Tensor) -> Tensor:
        head, tail = past[..., :12], past[..., 12:24]
        scores = torch.relu(head @ tail.transpose(-1, -2)).sigmoid()
        mixed = (tail.transpose(-1, -2) @ scores).transpose(-1, -2)
        return torch.tanh(mixed) + torch.maximum(head, tail) - head.abs().mean(-1, keepdim=True)


def test_operators_beyond_the_students(tmp_path: Path) -> None:
    payload = lower(_Mixed(), tmp_path / "out")
    assert payload.details["cross_check"]["max_rel"] < 1e-6


def test_too_many_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsfmc.targets.c.target.MOST_WEIGHTS", 100)
    with pytest.raises(LoweringError, match=r"weights, the C file takes at most 100"):
        lower(student("affine"), tmp_path / "out")


def test_devices_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown device 'cortex-m9'"):
        find_device("cortex-m9")
    assert {"cortex-m4f", "cortex-m7", "cortex-m33", "rv32imc", "raspberry-pi-4"} <= set(DEVICES)


def test_a_missing_compiler_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsfmc.targets.c.build.shutil.which", lambda name: None)
    with pytest.raises(MissingError, match=r"arm-none-eabi-gcc is not installed") as caught:
        lower(student("affine"), tmp_path / "out", device="cortex-m7")
    assert caught.value.hint == "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"


def test_scratch_memory_is_shared_between_values() -> None:
    graph = graph_of(student("dlinear"))
    offsets, total = plan(graph.steps, graph.sizes)
    assert total < sum(graph.sizes[block] for block in offsets)


def test_the_selftest_finds_another_model(tmp_path: Path, built: tuple[Path, Payload]) -> None:
    """The example says 3 when the forecast is not the one that was compiled in."""
    graph = graph_of(student("low_rank_map"))
    write_sources(graph, TASK, Selftest([0, 5], [1.0, 2.0], 1e-3), "fp32", tmp_path)
    device = find_device("host")
    build.write_example(device, tmp_path)
    subprocess.run(["make", "-s", "CC=gcc", "BUILD=made"], cwd=tmp_path, check=True)
    assert subprocess.run(["made/predict", "--selftest"], cwd=tmp_path, check=False).returncode == 3
    right = tmp_path / "right"
    right.mkdir()
    for name in built[1].files:
        (right / name).parent.mkdir(parents=True, exist_ok=True)
        (right / name).write_bytes((built[0] / name).read_bytes())
    before = sorted(right.rglob("*"))
    subprocess.run(["make", "-s", "CC=gcc"], cwd=right, check=True)
    assert subprocess.run(["../right.build/predict", "--selftest"], cwd=right, check=False).returncode == 0
    assert sorted(right.rglob("*")) == before  # an artifact stays what was hashed


def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lower(student("affine"), Path("out")).level == "executed"


def test_cmake_builds_the_example(tmp_path: Path, built: tuple[Path, Payload]) -> None:
    needs("cmake")
    for command in (["cmake", "-S", built[0], "-B", tmp_path], ["cmake", "--build", tmp_path]):
        subprocess.run(command, check=True, capture_output=True)
    assert subprocess.run([tmp_path / "predict", "--selftest"], check=False).returncode == 0


COLD_START = """
import sys, time
start = time.process_time()
import importlib.util
spec = importlib.util.spec_from_file_location("run", sys.argv[1])
run = sys.modules["run"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
import json
import numpy as np
forecaster = run.Engine(run.ArtifactFiles(sys.argv[2]), {"target": json.loads(sys.argv[3])}, 1)
forecaster(np.zeros((1, 3, 48), np.float32))
seconds = time.process_time() - start
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(seconds, peak)
"""


def test_the_engine_is_quick_and_small(built: tuple[Path, Payload], tmp_path: Path) -> None:
    """From the imports of run.py to the first forecast, in seconds of this process."""
    told = json.dumps({"entry": built[1].entry, **built[1].details})
    runner = tmp_path / "run.py"
    runner.write_text(render_runner(TARGET.engine_source()))
    command = [sys.executable, "-c", COLD_START, str(runner), str(built[0]), told]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 0.5 and kilobytes < 60_000, done.stdout
