"""Precision in the graph: degrees of homogeneity, the fp16 core, Q/DQ for int8 and fp8."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tsfmc.compiler.base.errors import LoweringError
from tsfmc.compiler.ir.program import Shape, export_program
from tsfmc.compiler.students import from_config
from tsfmc.targets.onnx_graph.editor import GraphEditor
from tsfmc.targets.onnx_graph.precision import HALF, bound_linear_inputs, degrees_of_homogeneity, to_fp16
from tsfmc.targets.onnx_graph.quantize import quantize
from tsfmc.targets.onnx_graph.translate import to_onnx
from tsfmc.targets.trt.vectors import open_session

SHAPE = Shape(3, 64, 16)
SIZES = {"lookback": SHAPE.lookback, "horizon": SHAPE.horizon}
ENCODER = {"width": 16, "layers": 1, "heads": 4, "ffn": 32, "normalisation": "instance"}
STUDENTS = {
    "dlinear": {"kind": "dlinear", **SIZES},
    "dlinear_raw": {"kind": "dlinear", "normalisation": "none", **SIZES},
    "itransformer": {"kind": "itransformer", **SIZES, **ENCODER},
    "affine_maps": {"kind": "affine_maps", "variates": SHAPE.variates, **SIZES},
    "low_rank_map": {"kind": "low_rank_map", "variates": SHAPE.variates, "rank": 4, **SIZES},
    "folded_itransformer": {"kind": "folded_itransformer", **SIZES, **ENCODER},
    "affine": {"kind": "affine", "bias": True, **SIZES},
}


def windows(count: int = 32) -> np.ndarray:
    """Seasons on a drifting level, ``[count, D, L]``."""
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(count, SHAPE.variates, SHAPE.lookback)).cumsum(-1) / 2
    season = np.sin(np.arange(SHAPE.lookback) * 2 * np.pi / 24)
    return (drift + season).astype(np.float32)


def student(name: str) -> nn.Module:
    """A student with random weights."""
    torch.manual_seed(0)
    model = from_config(STUDENTS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def plain() -> dict[str, onnx.ModelProto]:
    """fp32 ONNX of every student."""
    return {name: to_onnx(export_program(student(name), SHAPE, windows())) for name in STUDENTS}


def run(model: onnx.ModelProto, past: np.ndarray, folder: Path) -> np.ndarray:
    """A model on onnxruntime."""
    path = folder / "run.onnx"
    onnx.save(model, path)
    return open_session(path)(past)


def worst(got: np.ndarray, truth: np.ndarray) -> float:
    """Largest difference relative to the largest truth, window by window."""
    difference = np.abs(got - truth).max(axis=(1, 2)) / np.abs(truth).max(axis=(1, 2))
    return float(np.nan_to_num(difference, nan=np.inf).max())


def graph_of(*nodes: onnx.NodeProto, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A model ``past [B, 3, 64] -> forecast [B, 3, ?]``."""
    shape = ["batch", SHAPE.variates, SHAPE.lookback]
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info("past", TensorProto.FLOAT, shape)],
            [
                helper.make_tensor_value_info(
                    "forecast", TensorProto.FLOAT, ["batch", SHAPE.variates, "steps"]
                )
            ],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def test_degrees_follow_the_units_of_the_input() -> None:
    axis = {"axis": np.array([-1], np.int64), "eps": np.array(1e-5, np.float32)}
    model = graph_of(
        helper.make_node("ReduceMean", ["past", "axis"], ["mean"]),
        helper.make_node("Sub", ["past", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axis"], ["variance"]),
        helper.make_node("Add", ["variance", "eps"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["std"]),
        helper.make_node("Div", ["centred", "std"], ["unit"]),
        helper.make_node("Reciprocal", ["std"], ["inverse"]),
        helper.make_node("Exp", ["unit"], ["core"]),
        helper.make_node("Mul", ["core", "std"], ["wide"]),
        helper.make_node("Add", ["wide", "mean"], ["forecast"]),
        constants=axis,
    )
    degrees = degrees_of_homogeneity(GraphEditor(model))
    expected = {"mean": 1, "square": 2, "variance": 2, "std": 1, "unit": 0, "inverse": -1, "forecast": 1}
    assert {name: degrees[name] for name in expected} == {n: Fraction(d) for n, d in expected.items()}


@pytest.mark.parametrize("name", STUDENTS)
def test_fp16_stays_near_fp32_at_every_scale(
    name: str, plain: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    half = to_fp16(plain[name])
    for scale in (1.0, 1e2, 1e5):
        past = windows() * np.float32(scale)
        assert worst(run(half, past, tmp_path), run(plain[name], past, tmp_path)) <= 2e-3, scale


class PlainCast(nn.Module):
    """What not to do: the whole model in fp16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, past: Tensor) -> Tensor:
        return self.model(past.half()).float()


@pytest.mark.parametrize("name", ["dlinear", "itransformer"])
def test_a_plain_cast_fails_where_the_core_holds(
    name: str, plain: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    cast = to_onnx(export_program(PlainCast(student(name)), SHAPE, windows()))
    failed = {}
    for scale in (1.0, 1e2, 1e5):
        past = windows() * np.float32(scale)
        failed[scale] = worst(run(cast, past, tmp_path), run(plain[name], past, tmp_path)) > 2e-3
    assert failed[1e2] and failed[1e5]


@pytest.mark.parametrize("name", STUDENTS)
def test_the_fp16_graph_is_typed_and_keeps_statistics_in_fp32(
    name: str, plain: dict[str, onnx.ModelProto]
) -> None:
    graph = to_fp16(plain[name]).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in graph.node:
        seen = {types[value] for value in (*node.input, *node.output) if types[value] in floats}
        if node.op_type == "Cast":
            continue
        assert len(seen) == 1, node
        if seen == {TensorProto.FLOAT16}:
            assert node.op_type in HALF, node
        if node.op_type in ("ReduceMean", "ReduceMax", "Sqrt", "LayerNormalization"):
            assert seen == {TensorProto.FLOAT}, node
    products = [node for node in graph.node if node.op_type == "MatMul"]
    # The heads of a low-rank map take the window's level beside small numbers, which halves would lose.
    whole = {node.output[0] for node in products if "heads" in node.input}
    assert len(whole) == (name == "low_rank_map")
    halves = {node.output[0] for node in products if types[node.output[0]] == TensorProto.FLOAT16}
    assert halves and halves == {node.output[0] for node in products} - whole
    assert types["past"] == types["forecast"] == TensorProto.FLOAT


@settings(max_examples=25, deadline=None)
@given(
    level=st.floats(-1e4, 1e4, width=32),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_a_change_of_units_is_exact(
    level: float, size: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(SHAPE.lookback, 5)).astype(np.float32)
    model = graph_of(
        helper.make_node("MatMul", ["past", "weight"], ["forecast"]), constants={"weight": weight}
    )
    shape = (2, SHAPE.variates, SHAPE.lookback)
    past = (level + size * rng.normal(size=shape)).astype(np.float32)
    got = run(bound_linear_inputs(model), past, tmp_path_factory.mktemp("units"))
    truth = past.astype(np.float64) @ weight.astype(np.float64)
    # fp32 rounding of a sum of 64 products.
    assert np.abs(got - truth).max() <= 1e-5 * (np.abs(past).max() * np.abs(weight).sum(0).max() + 1e-6)


def test_bounded_products_are_left_alone() -> None:
    nodes = [
        helper.make_node("Softmax", ["past"], ["unit"], axis=-1),
        helper.make_node("MatMul", ["unit", "weight"], ["forecast"]),
    ]
    model = graph_of(*nodes, constants={"weight": np.ones((SHAPE.lookback, 2), np.float32)})
    assert [node.op_type for node in bound_linear_inputs(model).graph.node] == ["Softmax", "MatMul"]


def test_masks_beyond_the_range_of_fp16_stay_finite(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE.lookback, np.float32)
    mask[:10] = np.finfo(np.float32).min
    model = graph_of(
        helper.make_node("Tanh", ["past"], ["unit"]),
        helper.make_node("Add", ["unit", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["soft"], axis=-1),
        helper.make_node("Identity", ["soft"], ["forecast"]),
        constants={"mask": mask},
    )
    got = run(to_fp16(model), windows(), tmp_path)
    assert np.isfinite(got).all() and not got[..., :10].any()


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(("scheme", "limit"), [("int8", 0.03), ("fp8", 0.12)])
def test_quantised_files_stay_near_fp32(
    name: str, scheme: str, limit: float, plain: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    model = quantize(plain[name], windows(), scheme)  # type: ignore[arg-type]
    for scale in (1.0, 1e5):
        past = windows() * np.float32(scale)
        assert worst(run(model, past, tmp_path), run(plain[name], past, tmp_path)) <= limit


@pytest.mark.parametrize(("scheme", "kind", "opset"), [("int8", "INT8", 18), ("fp8", "FLOAT8E4M3FN", 19)])
def test_weights_are_stored_quantised_and_every_linear_layer_is_wrapped(
    scheme: str, kind: str, opset: int, plain: dict[str, onnx.ModelProto]
) -> None:
    model = quantize(plain["itransformer"], windows(), scheme)  # type: ignore[arg-type]
    graph = model.graph
    maker = {node.output[0]: node for node in graph.node}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    linear = [n for n in graph.node if n.op_type == "MatMul" and maker.get(n.input[1], n).input[0] in stored]
    assert len(linear) == 8  # embedding, q, k, v, out, up, down, head
    for node in linear:
        activation, weight = maker[node.input[0]], maker[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert maker[activation.input[0]].op_type == "QuantizeLinear"
        assert stored[weight.input[0]].data_type == getattr(TensorProto, kind)
        columns = stored[weight.input[0]].dims[1]
        assert list(stored[weight.input[1]].dims) == ([columns] if scheme == "int8" else [])
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


def test_rewrites_are_deterministic(plain: dict[str, onnx.ModelProto]) -> None:
    model = plain["itransformer"]
    assert to_fp16(model).SerializeToString() == to_fp16(model).SerializeToString()
    twice = [quantize(model, windows(), "int8").SerializeToString() for _ in range(2)]
    assert twice[0] == twice[1]


def test_refusals_name_the_place_and_the_way_out() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["past"], ["same"])],
        "branch",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["on"], ["forecast"], name="choice", then_branch=branch, else_branch=branch)
    with pytest.raises(LoweringError, match=r"'choice' \(If\) holds a subgraph.*without"):
        to_fp16(graph_of(node, constants={"on": np.array(True)}))
    nothing = graph_of(helper.make_node("Tanh", ["past"], ["forecast"]))
    with pytest.raises(LoweringError, match=r"int8: .*no product.*use fp16 or fp32"):
        quantize(nothing, windows(), "int8")
    broken = windows()
    broken[0, 0, 0] = np.nan
    with pytest.raises(LoweringError, match="not finite"):
        quantize(nothing, broken, "int8")
