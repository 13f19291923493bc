"""What is no float32 window, given to the bare engine: converted or refused; NaN spreads in any precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from artifacts import MEAN, SHAPE, STD, make_artifact, make_model, make_windows, reference
from required import absent

from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.driver.jobs import require_targets
from tsfmc.compiler.driver.recipe import resolve
from tsfmc.compiler.ir.program import Shape, export_program
from tsfmc.compiler.students import from_config
from tsfmc.targets.artifact.open import open_artifact
from tsfmc.targets.native.devices import find_device
from tsfmc.targets.onnx_graph.quantize import quantize
from tsfmc.targets.onnx_graph.translate import to_onnx

INT8 = Shape(3, 32, 8)
ENCODER = {"width": 16, "layers": 2, "heads": 4, "ffn": 32, "lookback": 32, "horizon": 8}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("engine") / "art"
    make_artifact(path)
    return open_artifact(path).engine


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4", "<f4", "f2", "i4", ">i8"])
def test_numbers_of_any_width_and_byte_order_are_converted(engine: Any, dtype: str) -> None:
    past = np.round(make_windows(2) * 10)
    expected = reference(make_model(), past.astype(np.float32))
    np.testing.assert_allclose(engine(past.astype(dtype)), expected, rtol=1e-4, atol=1e-4)
    dressed = past.astype(np.dtype(np.float32, metadata={"unit": "K"}))  # equal to float32, and not it
    np.testing.assert_allclose(engine(dressed), expected, rtol=1e-4, atol=1e-4)
    assert MEAN.shape == STD.shape == (SHAPE.variates,)


@pytest.mark.parametrize("dtype", ["c8", "O", "U8", "M8[s]"])
def test_what_is_no_number_is_refused(engine: Any, dtype: str) -> None:
    past = np.zeros((1, SHAPE.variates, SHAPE.lookback), dtype)
    with pytest.raises(TypeError) as caught:
        engine(past)
    assert "float32" in str(caught.value) and "\n" not in str(caught.value)


def run(model: Any, past: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    forecast: np.ndarray = session.run(["forecast"], {"past": past})[0]
    return forecast


@pytest.mark.parametrize("kind", ["itransformer", "dlinear"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_spreads_as_far_in_int8_as_in_fp32(kind: str, value: float) -> None:
    torch.manual_seed(0)
    options = ENCODER if kind == "itransformer" else {"lookback": 32, "horizon": 8}
    model = from_config({"kind": kind, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    windows = make_windows(32)
    plain = to_onnx(export_program(model, INT8, windows))
    quantised = quantize(plain, windows, "int8")
    past = windows[:4].copy()
    past[1, 2, 5] = value
    expected, got = run(plain, past), run(quantised, past)
    assert np.array_equal(np.isfinite(got), np.isfinite(expected))
    assert np.isfinite(got[[0, 2, 3]]).all() and not np.isfinite(got[1, 2]).any()
    if kind == "itransformer":
        assert not np.isfinite(got[1]).any()  # attention reads every variate


@pytest.mark.parametrize(
    ("triple", "system", "toolchain"),
    [
        ("aarch64-linux-android", "Android", "Android NDK"),
        ("aarch64-none-linux-android21", "Android", "Android NDK"),
        ("armv7a-linux-androideabi", "Android", "Android NDK"),
        ("arm-none-eabi", "bare metal", "gcc-arm-none-eabi"),
        ("thumbv7em-none-eabihf", "bare metal", "gcc-arm-none-eabi"),
        ("riscv64-unknown-elf", "bare metal", "gcc-riscv64-unknown-elf"),
        ("x86_64-linux-musl", "musl", "musl-tools"),
    ],
)
def test_systems_that_are_not_linked_for_name_their_toolchain(
    triple: str, system: str, toolchain: str
) -> None:
    with pytest.raises(UsageError, match=system) as caught:
        find_device({"mtriple": triple})
    assert toolchain in caught.value.hint


def test_a_device_is_looked_at_before_anything_is_trained() -> None:
    """And not where the first kernel is linked, after the teacher and the training."""
    from tsfmc.targets import TARGETS

    if not TARGETS["tvm"].probe().can_lower:
        absent("apache-tvm")
    recipe = resolve(
        named={"targets": ["tvm"]}, settings=["target_options.tvm.device={mtriple='arm-none-eabi'}"]
    )
    with pytest.raises(UsageError, match="bare metal"):
        require_targets(recipe)


def test_a_window_with_a_nan_is_refused_by_the_forecaster(tmp_path: Path) -> None:
    from tsfmc.compiler.base.errors import DataError

    make_artifact(tmp_path / "art")
    past = np.zeros((SHAPE.variates, SHAPE.lookback))
    past[1, 3] = np.nan
    with pytest.raises(DataError, match="expected a finite number"):
        open_artifact(tmp_path / "art").forecast(past)
