"""The device's own files, run as a user runs them: in a process of their own, against TensorRT-RTX."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from array import array
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tsfmc.compiler.students import from_config
from tsfmc.targets.base import Shape
from tsfmc.targets.forms import Model
from tsfmc.targets.trt import TARGET
from tsfmc.targets.trt.device.trt_engine import Engine
from tsfmc.targets.trt.options import TrtOptions
from tsfmc.targets.trt.target import MADE_ON_DEVICE
from tsfmc.targets.trt.vectors import Vector, errors

SHAPE = Shape(3, 64, 16)
SCRIPTS = ("trt_engine.py", "build_engine.py", "check_engine.py")


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The files that a user of a DLinear gets, and what the manifest says about them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("artifact")
    rng = np.random.default_rng(0)
    payload = TARGET.lower_model(
        from_config({"kind": "dlinear", "lookback": SHAPE.lookback, "horizon": SHAPE.horizon}).eval(),
        SHAPE,
        folder,
        options=TrtOptions(precision="fp16", batch={"min": 1, "opt": 2, "max": 4}),
        calibration=rng.normal(size=(16, SHAPE.variates, SHAPE.lookback)).astype(np.float32),
    )
    return folder, dict(payload.details)


@pytest.fixture
def folder(lowered: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(lowered[0], tmp_path / "device"))


def run(
    folder: Path, script: str, *arguments: str, modules: Path | None = None
) -> tuple[int, dict[str, Any], str]:
    """Exit code, last JSON line and stderr of a script."""
    environment = {**os.environ, "PYTHONPATH": str(modules)} if modules else None
    done = subprocess.run(
        [sys.executable, str(folder / script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def put_model(folder: Path, model: onnx.ModelProto | bytes) -> None:
    """Replaces model.onnx and its hash."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    spec = json.loads((folder / "engine.json").read_text())
    spec["onnx_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "engine.json").write_text(json.dumps(spec))


def model_of(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """``past -> forecast`` from nodes and constants."""
    shape = ["batch", SHAPE.variates, SHAPE.lookback]
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info("past", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("batch", {"min": 1, "opt": 2, "max": 10**9}),
        ("output", {"shape": [3, 10**9]}),
        ("input", {"shape": [3, 1]}),
    ],
)
def test_buffers_are_as_large_as_the_task_says(part: str, value: dict[str, Any]) -> None:
    """What engine.json says must be what the manifest says, whose shapes and batches have caps."""
    batch = {"min": 1, "opt": 2, "max": 4}
    task = {"variates": ["a", "b", "c"], "lookback": SHAPE.lookback, "horizon": SHAPE.horizon}
    manifest = {"target": {"batch": batch}, "task": task}
    spec: dict[str, Any] = {"batch": batch, "input": {"shape": [3, 64]}, "output": {"shape": [3, 16]}}
    Engine._refuse_other_shapes(spec, manifest)
    with pytest.raises(ValueError, match=r"engine\.json has the (batches|shapes)"):
        Engine._refuse_other_shapes({**spec, part: value}, manifest)


def test_the_very_file_builds_the_plan_of_the_manifest(
    lowered: tuple[Path, dict[str, Any]], folder: Path
) -> None:
    check = lowered[1]["ladder"]["compiled_proxy"]
    names = ",".join(check["compute_capabilities"])
    code, record, _ = run(folder, "build_engine.py", "--compute-capability", names)
    assert code == 0 and record["level"] == "built"
    assert record["plan_sha256"] == check["plan_sha256"]
    assert hashlib.sha256((folder / "model.engine").read_bytes()).hexdigest() == check["plan_sha256"]
    made = {path.name for path in folder.rglob("*")} - {path.name for path in lowered[0].rglob("*")}
    assert made <= set(Engine.device_files), "an artifact with other files would be refused"
    stored = json.loads((folder / "model.engine.json").read_text())
    assert stored["compute_capabilities"] == names.split(",")


REFUSED = {
    "dft": (
        model_of(
            helper.make_node("Unsqueeze", ["past", "three"], ["wide"]),
            helper.make_node("DFT", ["wide"], ["waves"], name="spectrum", axis=2),
            helper.make_node("ReduceSum", ["waves", "three"], ["forecast"], keepdims=0),
            three=np.array([3], np.int64),
        ),
        ["'spectrum' (DFT)", "has no such operator: replace it"],
    ),
    "mixed types": (
        model_of(
            helper.make_node("Add", ["past", "half"], ["forecast"], name="mix"),
            half=np.ones(SHAPE.lookback, np.float16),
        ),
        ["'mix' (Add)", "types Float and Half", "cast one of them"],
    ),
    "unique": (
        model_of(helper.make_node("Unique", ["past"], ["forecast"], name="distinct")),
        ["'distinct' (Unique)", "replace it"],
    ),
    "shapes": (
        model_of(
            helper.make_node("MatMul", ["past", "weight"], ["forecast"], name="product"),
            weight=np.ones((SHAPE.lookback - 1, 4), np.float32),
        ),
        ["'product' (MatMul)", f"= {SHAPE.lookback}", "export the model again"],
    ),
    "garbage": (b"not a model at all", ["damaged: copy it again"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_differs_and_what_to_do(name: str, folder: Path) -> None:
    model, says = REFUSED[name]
    put_model(folder, model)
    code, record, message = run(folder, "build_engine.py", "--compute-capability", "SM89")
    assert code == 2 and record["level"] == "refused_at_parse"
    for text in says:
        assert text in record["errors"][0] and text in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "needs --compute-capability"),
        (("--compute-capability", "SM87"), "does not know SM87; it knows"),
    ],
)
def test_the_gpu_has_to_be_named_and_known(arguments: tuple[str, ...], says: str, folder: Path) -> None:
    code, _, message = run(folder, "build_engine.py", *arguments)
    assert code == 3 and says in message


def test_files_that_do_not_belong_together_are_refused(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    code, _, message = run(folder, "build_engine.py", "--compute-capability", "SM89")
    assert code == 5 and "engine.json says" in message


@pytest.mark.parametrize("version", ["10.0.1", "11.5.0", "8.6.1"])
def test_another_tensorrt_version_is_refused(version: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}\n")
    code, _, message = run(folder, "build_engine.py", modules=tmp_path)
    assert code == 3 and f"TensorRT {version} is here" in message and "10.3 to 11.4" in message


def test_a_missing_tensorrt_is_exit_code_3(folder: Path, tmp_path: Path) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx_libs"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden by the test')\n")
    code, _, message = run(folder, "build_engine.py", modules=tmp_path)
    assert code == 3 and "no TensorRT is installed" in message and "JetPack" in message


def built(folder: Path) -> dict[str, Any]:
    """Builds for SM89 and returns the record."""
    assert run(folder, "build_engine.py", "--compute-capability", "SM89")[0] == 0
    record: dict[str, Any] = json.loads((folder / "model.engine.json").read_text())
    return record


def test_the_check_asks_for_the_build_first(folder: Path) -> None:
    code, _, message = run(folder, "check_engine.py")
    assert code == 3 and "run `python3 build_engine.py`" in message


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("built_with", "tensorrt 10.3.0", "built for TensorRT tensorrt 10.3.0, here is tensorrt_rtx"),
        ("onnx_sha256", "0" * 64, "built for model.onnx 000"),
        ("plan_sha256", "0" * 64, "built for model.engine 000"),
    ],
)
def test_a_plan_from_elsewhere_is_refused(field: str, value: str, says: str, folder: Path) -> None:
    record = built(folder) | {field: value}
    (folder / "model.engine.json").write_text(json.dumps(record))
    code, _, message = run(folder, "check_engine.py")
    assert code == 3 and says in message and "build_engine.py" in message


def test_without_a_gpu_nothing_is_executed(folder: Path) -> None:
    if TARGET.probe().facts["gpu"] != "none":
        pytest.fail("this machine has a GPU: run check_engine.py instead of this test")
    built(folder)
    code, record, message = run(folder, "check_engine.py", "--latency")
    assert code == 3 and record["level"] == "missing" and "no NVIDIA driver" in message
    code, _, message = run(folder, "build_engine.py", "--compute-capability", "CURRENT")
    assert code == 3 and "no NVIDIA GPU is visible" in message


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_device_needs_the_standard_library_and_tensorrt_alone(script: str, folder: Path) -> None:
    others = imported(folder / script) - set(sys.stdlib_module_names) - {"trt_engine"}
    # Engine, for callers with numpy arrays, imports numpy when it is called; the scripts use Plan.
    assert others == ({"numpy"} if script == "trt_engine.py" else set())


def load(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A device script as a module."""
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_check_scales_windows_and_judges_errors_like_the_compiler(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = load(folder, "check_engine", monkeypatch)
    spec = json.loads((folder / "engine.json").read_text())
    pool = np.fromfile(folder / spec["pool"], "<f4").reshape(-1, *spec["input"]["shape"])
    flat = check.read_floats(folder / spec["pool"])
    assert [entry["batch"] for entry in spec["vectors"]] == [1, 1, 1, 4]
    for entry in spec["vectors"]:
        vector = Vector(entry["name"], entry["first"], entry["batch"], tuple(entry["scales"]))
        past = check.windows(flat, entry, SHAPE.lookback * SHAPE.variates)
        assert past.tobytes() == vector.windows(pool).tobytes()
        truth = np.fromfile(folder / entry["expected"], "<f4").reshape(-1, *spec["output"]["shape"])
        wrong = truth * np.float32(1.01)

        def judged(vector: Vector = vector, wrong: np.ndarray = wrong, truth: np.ndarray = truth) -> float:
            past, *both = (array("f", x.tobytes()) for x in (vector.windows(pool), wrong, truth))
            return float(check.worst_error(past, *both, vector.batch))

        assert judged() == pytest.approx(float(errors(vector.windows(pool), wrong, truth).max()), rel=1e-6)
        wrong[-1, -1, -1] = np.nan
        assert judged() == np.inf


def test_the_trtexec_script_asks_for_what_matters(folder: Path, tmp_path: Path) -> None:
    trtexec = tmp_path / "trtexec"
    trtexec.write_text('#!/bin/sh\n[ "$1" = --help ] && echo "--noTF32 --useCudaGraph" || echo "$@"\n')
    trtexec.chmod(0o755)
    script = folder / "build_with_trtexec.sh"
    done = subprocess.run(
        [str(script)], capture_output=True, text=True, env={**os.environ, "TRTEXEC": str(trtexec)}, check=True
    )
    assert "--minShapes=past:1x3x64 --optShapes=past:2x3x64 --maxShapes=past:4x3x64" in done.stdout
    assert "--noTF32" in done.stdout and "--stronglyTyped" not in done.stdout
    absent = {**os.environ, "TRTEXEC": str(tmp_path / "absent")}
    assert subprocess.run([str(script)], capture_output=True, env=absent, check=False).returncode == 3


def test_a_teacher_that_travels_brings_what_builds_its_engine(folder: Path) -> None:
    """The very script that a device runs compiles the teacher's file here, for a GPU that is not here."""
    model = from_config(
        {"kind": "itransformer", "lookback": 64, "horizon": 16, "width": 16, "heads": 2}
    ).eval()
    windows = np.random.default_rng(0).normal(size=(4, SHAPE.variates, SHAPE.lookback)).astype(np.float32)
    TARGET.add_teacher(folder, Model(model, windows).onnx_file(), windows)
    assert sorted(path.name for path in (folder / "teacher").iterdir()) == [
        "build_engine.py", "engine.json", "model.onnx", "trt_engine.py",
    ]  # fmt: skip
    options = ["--library", "tensorrt_rtx_bindings", "--compute-capability", "SM89"]
    code, record, message = run(folder / "teacher", "build_engine.py", *options)
    assert code == 0 and record["level"] == "built", message
    made = {path.relative_to(folder).as_posix() for path in (folder / "teacher").glob("model.engine*")}
    assert made <= set(MADE_ON_DEVICE), "an artifact with a built engine verifies"
