"""The TensorRT target: every student x precision x batch, the ladder, and what it refuses.

TensorRT-RTX (extra ``trt-check``) really parses and compiles here; its absence fails these tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx_bindings  # noqa: F401  the extra has to be there: nothing below is skipped without it
import tensorrt_rtx_libs  # noqa: F401
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tsfmc.compiler.base.errors import LoweringError, MissingError, RecipeError
from tsfmc.compiler.students import from_config
from tsfmc.targets.base import Payload, Shape
from tsfmc.targets.trt import TARGET, target
from tsfmc.targets.trt.options import LADDER, TrtOptions
from tsfmc.targets.trt.presets import PRESETS

SHAPE = Shape(3, 64, 16)
SIZES = {"lookback": SHAPE.lookback, "horizon": SHAPE.horizon}
ENCODER = {"width": 16, "layers": 1, "heads": 4, "ffn": 32, "normalisation": "instance"}
STUDENTS = {
    "dlinear": {"kind": "dlinear", **SIZES},
    "itransformer": {"kind": "itransformer", **SIZES, **ENCODER},
    "affine": {"kind": "affine", "bias": True, **SIZES},
    "affine_maps": {"kind": "affine_maps", "variates": SHAPE.variates, **SIZES},
    "low_rank_map": {"kind": "low_rank_map", "variates": SHAPE.variates, "rank": 4, **SIZES},
    "folded_itransformer": {"kind": "folded_itransformer", **SIZES, **ENCODER},
    "folded_residual": {
        **{"kind": "folded_residual", "variates": SHAPE.variates, "maps": "low-rank", "rank": 4, **SIZES},
        **{"branch": "mlp", "embedding": 4, "width": 16, "layers": 2, "heads": 1, "ffn": 1},
    },
}
BATCHES: dict[str, Any] = {"static": 2, "dynamic": {"min": 1, "opt": 2, "max": 4}}
EVERYWHERE = ("SM80", "SM86", "SM89", "SM120")


def windows() -> np.ndarray:
    """``[16, D, L]`` random walks."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(16, SHAPE.variates, SHAPE.lookback)).cumsum(-1) / 4).astype(np.float32)


def student(name: str) -> nn.Module:
    """A student with random weights."""
    torch.manual_seed(0)
    model = from_config(STUDENTS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


def lower(model: nn.Module, directory: Path, **options: Any) -> Payload:
    """Lowers into a new folder."""
    directory.mkdir(exist_ok=True)
    return TARGET.lower_model(model, SHAPE, directory, options=TrtOptions(**options), calibration=windows())


def has_gpu() -> bool:
    """Whether this machine could execute."""
    return TARGET.probe().facts["gpu"] != "none"


MATRIX = [
    (name, precision, batch)
    for name in ("dlinear", "itransformer")
    for precision in ("fp32", "fp16", "int8")
    for batch in BATCHES
]
MATRIX += [("affine", "int8", "dynamic"), ("folded_itransformer", "fp16", "dynamic")]
MATRIX += [("affine_maps", "fp32", "dynamic"), ("affine_maps", "fp16", "static")]
MATRIX += [("folded_residual", "fp32", "dynamic"), ("folded_residual", "fp16", "static")]
MATRIX += [("low_rank_map", precision, "dynamic") for precision in ("fp32", "fp16", "int8")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "precision", "batch"), MATRIX)
def test_every_student_compiles(name: str, precision: str, batch: str, tmp_path: Path) -> None:
    payload = lower(student(name), tmp_path, precision=precision, batch=BATCHES[batch])
    check = payload.details["ladder"]["compiled_proxy"]
    assert tuple(check["compute_capabilities"]) == EVERYWHERE
    assert check["statement"] == "not executed; not a Jetson engine"
    assert len(check["plan_sha256"]) == 64 and check["compiler"].startswith("tensorrt_rtx 1.")
    assert payload.details["ladder"]["exported"]["opset"] == 18
    assert (tmp_path / "model.pt2").is_file() and payload.entry in payload.files
    if not has_gpu():
        assert payload.level == "compiled_proxy" and not payload.runs_here
        assert "model.engine" not in payload.files


@pytest.mark.parametrize("name", ["dlinear", "itransformer"])
def test_fp8_compiles_for_sm89(name: str, tmp_path: Path) -> None:
    payload = lower(student(name), tmp_path, precision="fp8", compute_capabilities=("SM89",))
    assert payload.details["ladder"]["compiled_proxy"]["compute_capabilities"] == ["SM89"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_what_is_compiled_in_its_place(preset: str) -> None:
    entry = PRESETS[preset]
    for precision in entry.precisions:
        options = TrtOptions(preset=preset, precision=precision)  # type: ignore[arg-type]
        assert options.check_capabilities() == ((entry.proxy,) if precision in entry.proxy_precisions else ())
    assert entry.is_native or f"TensorRT-RTX has no {entry.capability}" in entry.statement()


def test_what_tensorrt_rtx_cannot_compile_for_a_preset_is_parsed(tmp_path: Path) -> None:
    payload = lower(student("affine"), tmp_path / "a", preset="t4", precision="fp32")
    assert payload.level == "parsed" or has_gpu()
    assert "does not compile fp32 for SM75; use fp16" in payload.details["statement"]
    with pytest.raises(MissingError, match=r"reached 'parsed'.*does not compile int8 for SM75; use fp16"):
        lower(student("affine"), tmp_path / "b", preset="t4", precision="int8", require="compiled_proxy")


def test_no_claim_above_what_ran(tmp_path: Path) -> None:
    payload = lower(student("itransformer"), tmp_path, precision="fp16", preset="jetson-orin")
    text = json.dumps(payload.details) + (tmp_path / "README.md").read_text()
    if not has_gpu():
        assert "executed" not in payload.details["ladder"] and payload.level != "executed"
        assert "latency_us" not in text and "p50" not in text and "speed-up" not in text
        assert "SM86 stands in for Jetson Orin" in text and "not a Jetson engine" in text


@pytest.mark.parametrize(
    ("precision", "capability", "says", "advice"),
    [
        ("fp8", "SM86", "sm86.*fp8", "compile with another precision"),
        ("fp32", "SM75", "SM75.*FP32 GEMM is not supported", "use fp16"),
    ],
)
def test_the_compiler_refuses_what_the_gpu_lacks(
    precision: str, capability: str, says: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(LoweringError, match=f"(?s){says}.*{advice}") as caught:
        lower(student("affine"), tmp_path, precision=precision, compute_capabilities=(capability,))
    assert caught.value.exit_code == 2


class Sorting(nn.Module):
    """Uses an operator that ONNX has and TensorRT lacks: a median by unique values."""

    def forward(self, past: Tensor) -> Tensor:
        return past[..., : SHAPE.horizon] + torch.fft.rfft(past).real[..., : SHAPE.horizon]


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"\(DFT\).*has no such operator: replace it") as caught:
        lower(Sorting(), tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preset": "jetson-orin", "precision": "fp8"},
            r"fp8 is not possible on Jetson Orin.*fp32, fp16, int8",
        ),
        ({"preset": "t4", "precision": "fp8"}, r"not possible on T4 \(SM75\)"),
        ({"compute_capabilities": ("SM87",)}, r"'SM87'; TensorRT-RTX cannot compile.*SM86.*stand-in"),
        ({"batch": {"min": 4, "opt": 2, "max": 8}}, r"min=4, opt=2, max=8.*min <= opt <= max"),
    ],
)
def test_impossible_options_are_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        TrtOptions(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("options", [{"preset": "xavier"}, {"batch": 0}, {"require": "best"}, {"fast": True}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrtOptions(**options)


def test_a_level_out_of_reach_is_exit_code_3(tmp_path: Path) -> None:
    if has_gpu():
        pytest.fail("this machine has a GPU: run the engine instead of this test")
    with pytest.raises(
        MissingError, match=r"reached 'compiled_proxy', 'executed' is required.*on the device"
    ) as e:
        lower(student("affine"), tmp_path, require="executed")
    assert e.value.exit_code == 3


def test_without_the_extra_the_ladder_ends_at_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "RTX_MODULE", "a_module_that_is_not_installed")
    payload = lower(student("affine"), tmp_path / "a")
    assert payload.level == "exported" and "tsfmc[trt-check]" in payload.details["next"]
    assert any("tsfmc[trt-check]" in problem for problem in TARGET.probe().problems)
    with pytest.raises(MissingError, match=r"'exported', 'parsed' is required.*trt-check"):
        lower(student("affine"), tmp_path / "b", require="parsed")


@pytest.mark.parametrize(
    ("body", "limit", "says"),
    [
        ("import os; os.abort()", 60, "was ended by SIGABRT"),
        ("import time; time.sleep(60)", 1, "ended after 1 s"),
    ],
)
def test_a_crash_or_a_hang_in_native_code_stays_in_the_child(
    body: str, limit: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "tensorrt_rtx_bindings.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    payload = lower(student("affine"), tmp_path / "out", time_limit_s=limit)
    assert payload.level == "exported" and says in payload.details["next"]


def test_two_builds_are_equal(tmp_path: Path) -> None:
    ladders = [
        lower(student("itransformer"), tmp_path / name, precision="int8").details["ladder"] for name in "ab"
    ]
    assert ladders[0]["exported"]["onnx_sha256"] == ladders[1]["exported"]["onnx_sha256"]
    shas = [ladder["compiled_proxy"]["plan_sha256"] for ladder in ladders]
    assert shas[0] == shas[1]
    same = [p.name for p in (tmp_path / "a").rglob("*") if p.is_file() and p.suffix != ".pt2"]
    for name in same:
        first, second = (next((tmp_path / x).rglob(name)) for x in "ab")
        assert first.read_bytes() == second.read_bytes(), name


def test_the_exported_program_is_the_model(tmp_path: Path) -> None:
    model = student("itransformer")
    lower(model, tmp_path, precision="fp16")
    program = torch.export.load(tmp_path / "model.pt2").module()
    past = torch.from_numpy(windows()[:5])
    assert torch.equal(program(past), model(past))


def test_probe_and_describe_say_what_is_here() -> None:
    here = TARGET.probe()
    assert here.can_lower and here.facts["tensorrt-rtx-cu13-bindings"].startswith("1.")
    facts = TARGET.describe()
    assert facts["levels"] == LADDER
    assert any("JetPack 6.2: TensorRT 10.3" in line for line in facts["devices"])
