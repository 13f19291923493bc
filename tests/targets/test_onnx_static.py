"""The static form of the ONNX target, its int8 forms, and what its files say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from c_students import SHAPE, STUDENTS, TASK, student, windows
from torch import Tensor, nn

from tsfmc.compiler.base.errors import LoweringError, RecipeError, VerificationError
from tsfmc.compiler.ir.program import export_program
from tsfmc.targets.artifact.contract import contract_sha256
from tsfmc.targets.artifact.hashes import describe, payload_bytes
from tsfmc.targets.base import Payload
from tsfmc.targets.measure.parity import check_parity, hard_windows
from tsfmc.targets.onnx import TARGET
from tsfmc.targets.onnx_graph.metadata import read_metadata, stamp
from tsfmc.targets.onnx_graph.static import OPERATORS, require_static, value_shapes
from tsfmc.targets.packages.raw_units import with_scaling

LINEAR = ("affine", "affine_maps", "low_rank_map", "dlinear_last")


def lower(model: nn.Module, directory: Path, **options: Any) -> tuple[Payload, onnx.ModelProto]:
    directory.mkdir(exist_ok=True)
    payload = TARGET.for_task(TASK).lower_model(
        model, SHAPE, directory, options=TARGET.Options(**options), calibration=windows()
    )
    return payload, onnx.load(directory / payload.entry)


def dynamic(model: onnx.ModelProto) -> Iterator[str]:
    """Values without a size, by shape inference over a copy that knows the input's shape alone."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for dim in bare.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    shapes = dict(value_shapes(inferred))
    for name in (name for node in inferred.graph.node for name in node.output):
        if min(shapes.get(name, (0,)), default=1) < 1:
            yield name


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_has_a_static_form(name: str, tmp_path: Path) -> None:
    """One window, nothing dynamic, plain operators alone, and the same function."""
    model = student(name)
    payload, proto = lower(model, tmp_path, static=True)
    onnx.checker.check_model(str(tmp_path / payload.entry), full_check=True)
    assert not list(dynamic(proto))
    assert {node.op_type for node in proto.graph.node} <= OPERATORS - {"LayerNormalization", "Split"}
    assert all(7 <= entry.version <= 20 and not entry.domain for entry in proto.opset_import)
    assert dict(value_shapes(proto))["past"] == (1, SHAPE.variates, SHAPE.lookback)
    products = [node for node in proto.graph.node if node.op_type == "MatMul"]
    shapes = dict(value_shapes(proto))
    assert all(len(shapes[name]) <= 3 for node in products for name in node.input)
    program = export_program(model, SHAPE, windows())
    engine = TARGET.load(tmp_path, payload, threads=1)
    parity = check_parity(engine, program, hard_windows(windows()), 1e-5)
    assert parity.passed, parity.describe()


def test_a_dynamic_program_is_none(tmp_path: Path) -> None:
    """What holds above is no property of every program."""
    _, proto = lower(student("affine"), tmp_path)
    assert list(dynamic(proto))
    with pytest.raises(LoweringError, match=r"shape \[-1, 3, 48\]|shape \[-1"):
        require_static(proto)


class _Cumulated(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past.cumsum(-1)[..., :12]


def test_an_operator_that_they_lack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"operator CumSum .* none that microcontrollers take"):
        lower(_Cumulated(), tmp_path, static=True)
    lower(_Cumulated(), tmp_path)


def test_an_opset_that_they_lack_is_refused(tmp_path: Path) -> None:
    _, proto = lower(student("affine"), tmp_path, static=True)
    proto.opset_import[0].version = 21
    with pytest.raises(LoweringError, match=r"opset ai.onnx 21, expected ai.onnx 7 to 20"):
        require_static(proto)


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, "int8") for name in (*LINEAR, "folded_itransformer", "folded_mlp")]
    + [("affine_maps", "int8-per-tensor")],
)
def test_int8_keeps_to_its_tolerance(name: str, precision: str, tmp_path: Path) -> None:
    model = student(name)
    payload, proto = lower(model, tmp_path, precision=precision)
    onnx.checker.check_model(str(tmp_path / payload.entry), full_check=True)
    assert not list(dynamic(proto))
    require_static(proto)
    errors = payload.details["error_by_kind"]
    assert 1e-6 < errors["real"] < 8e-3 and errors["huge"] < 3e-2 and errors["ramp"] < 2e-2
    if name in LINEAR:
        assert payload.details["tolerance"] == 5e-2 and errors["tiny"] < 8e-3


def scales(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Sizes of the scale of every weight: constants of int8 that a DequantizeLinear reads."""
    constants = {each.name: each for each in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        weight = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and weight is not None:
            assert weight.data_type == onnx.TensorProto.INT8
            found[weight.name] = list(constants[node.input[1]].dims)
    return found


def test_scales_of_a_weight(tmp_path: Path) -> None:
    """One, or one for each of the 12 steps of the horizon, also where there is a matrix for each variate."""
    for name in ("affine", "affine_maps"):
        _, each = lower(student(name), tmp_path, precision="int8")
        assert list(scales(each).values()) == [[SHAPE.horizon]]
        _, one = lower(student(name), tmp_path, precision="int8-per-tensor")
        assert [int(np.prod(dims)) for dims in scales(one).values()] == [1]


def test_every_product_with_a_weight_is_between_pairs(tmp_path: Path) -> None:
    """Its operands come from DequantizeLinear, and its result goes to QuantizeLinear."""
    _, proto = lower(student("folded_itransformer"), tmp_path, precision="int8")
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for source in node.input:
            readers.setdefault(source, []).append(node.op_type)
    layers = [node for node in proto.graph.node if makers.get(node.input[-1]) == "DequantizeLinear"]
    layers = [node for node in layers if node.op_type == "MatMul"]
    assert len(layers) == len(scales(proto)) == 6  # embedding, q k v, out, two of the MLP, head
    for node in layers:
        assert [makers[name] for name in node.input] == ["DequantizeLinear"] * 2
        assert readers[node.output[0]] == ["QuantizeLinear"]
    assert "Identity" not in makers.values()


def test_the_level_of_a_window_does_not_use_up_the_range(tmp_path: Path) -> None:
    payload, _ = lower(student("affine"), tmp_path, precision="int8")
    engine = TARGET.load(tmp_path, payload, threads=1)
    past = windows()[:4]
    program = export_program(student("affine"), SHAPE, windows())
    near = np.abs(engine(past) - program(past)).max()
    far = np.abs(engine(past + np.float32(1e3)) - program(past + np.float32(1e3))).max()
    assert near < 0.05 and far < near + 5e-3


@pytest.mark.parametrize("name", ["affine", "folded_itransformer"])
def test_nan_spreads_as_far_as_in_float(name: str, tmp_path: Path) -> None:
    model = student(name)
    payload, _ = lower(model, tmp_path, precision="int8")
    past = windows()[:1].copy()
    past[0, 1, 3] = np.nan
    with torch.no_grad():
        expected = np.isnan(model(torch.from_numpy(past)).numpy())
    assert expected.any()
    np.testing.assert_array_equal(np.isnan(TARGET.load(tmp_path, payload, threads=1)(past)), expected)


class _Offset(nn.Module):
    """What int8 cannot do: two large products that cancel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Linear(48, 12, bias=False)
        self.two = nn.Linear(48, 12, bias=False)
        with torch.no_grad():
            self.two.weight.copy_(-self.one.weight * 300)
            self.two.weight[:, 0] += 0.1
            self.one.weight.mul_(300)

    def forward(self, past: Tensor) -> Tensor:
        return self.one(past) + self.two(past)


def test_a_program_that_int8_breaks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"int8 program departs from the model by .* windows"):
        lower(_Offset(), tmp_path, precision="int8-per-tensor")


def test_vectors_lie_beside_the_file(tmp_path: Path) -> None:
    """Any tool can replay them: the file's own input names, shapes and values."""
    payload, _ = lower(student("low_rank_map"), tmp_path, precision="int8")
    folder = tmp_path / "toolchain"
    assert set(payload.files) == {"model.onnx", "toolchain/calibration.npy", "toolchain/vectors.npz"}
    sizes = {name: describe(tmp_path / name) for name in payload.files}
    assert payload_bytes(sizes) == (tmp_path / "model.onnx").stat().st_size, "a device needs no more"
    np.testing.assert_array_equal(np.load(folder / "calibration.npy"), windows())
    with np.load(folder / "vectors.npz") as vectors:
        past, forecast, reference = (vectors[name] for name in ("past", "forecast", "reference"))
    assert past.shape == (8, 3, 48) and past.dtype == forecast.dtype == np.float32
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    replayed = np.concatenate([session.run(["forecast"], {"past": each[None]})[0] for each in past])
    np.testing.assert_allclose(replayed, forecast, atol=1e-6)
    assert 0 < np.abs(forecast - reference).max() < 0.05


def test_two_lowerings_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        payload, _ = lower(student("folded_mlp"), tmp_path / name, precision="int8")
    for name in payload.files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_static_program_has_no_other_batch() -> None:
    assert TARGET.Options(static=True, batch=1).fixed_batch == 1
    for options in ({"static": True}, {"precision": "int8"}):
        with pytest.raises(RecipeError, match=r"batch=4"):
            TARGET.Options(batch=4, **options)


@pytest.mark.parametrize("options", [{}, {"static": True}, {"precision": "int8"}], ids=str)
def test_the_file_says_what_it_forecasts(options: dict[str, Any], tmp_path: Path) -> None:
    payload, proto = lower(student("affine"), tmp_path, **options)
    said = read_metadata(proto)
    assert said == payload.details["metadata"]
    assert said["tsfmc.lookback"] == "48" and said["tsfmc.horizon"] == "12"
    assert json.loads(said["tsfmc.variates"]) == list(TASK.variates)
    assert said["tsfmc.frequency"] == "15min" and said["tsfmc.step_seconds"] == "900.0"
    assert said["tsfmc.missing"] == "interpolate" and said["tsfmc.units"] == "scaled"
    assert json.loads(said["tsfmc.scaling_mean"]) == list(TASK.mean)
    assert json.loads(said["tsfmc.scaling_std"]) == list(TASK.std)
    assert said["tsfmc.contract_sha256"] == contract_sha256(TASK.contract(SHAPE))
    # What onnxruntime hands to whoever has the file alone.
    session = onnxruntime.InferenceSession(tmp_path / payload.entry)
    assert session.get_modelmeta().custom_metadata_map == said


def test_the_hash_of_the_contract_is_what_its_docstring_says() -> None:
    contract = TASK.contract(SHAPE)
    contract["task"] |= {"quantile_levels": None, "inputs": None}  # what a point forecast of the past has not
    text = json.dumps(contract, sort_keys=True, separators=(",", ":"))
    assert contract_sha256({**contract, "level": "executed"}) == sha256(text.encode()).hexdigest()
    other = {**contract, "input": {**contract["input"], "mean": [1.0, -2.0, 0.25]}}
    assert contract_sha256(other) != contract_sha256(contract)


def test_a_file_in_raw_units_says_so(tmp_path: Path) -> None:
    _, proto = lower(student("affine"), tmp_path)
    raw = with_scaling(proto, TASK.contract(SHAPE)["input"])
    assert read_metadata(raw) == {**read_metadata(proto), "tsfmc.units": "raw"}
    assert not read_metadata(with_scaling(stamp(proto, {}), TASK.contract(SHAPE)["input"]))
