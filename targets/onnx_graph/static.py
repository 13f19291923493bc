"""An ONNX graph for tool chains of microcontrollers and NPUs: one window, every size known, plain operators.

    LayerNormalization(x, w, b)  ->  (x - m) / sqrt(mean((x - m)^2) + eps) w + b         m = mean(x)
    Split(x, sizes)              ->  a Slice for each output
    x [1, B, M, K] y             ->  the product of [B, M, K], reshaped before and after

``OPERATORS`` and the limits are those that ST documents for ST Edge AI Core 2.2 ("ONNX toolbox support":
opset 7 to 20, no dynamic sizes, at most 6 dimensions of less than 65,536, matrix products of at most 3);
other tool chains take subsets of the same basic operators.  ``beyond`` lists what goes beyond a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ...compiler.base.errors import LoweringError
from .editor import GraphEditor

OPSETS = range(7, 21)
MOST_DIMENSIONS, SIZES, MOST_PRODUCT_DIMENSIONS = 6, range(1, 65536), 3
# Of the document's 132 operators those of the domain ai.onnx.
OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "AveragePool", "BatchNormalization", "BitShift", "Cast", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "DepthToSpace", "DequantizeLinear", "Div",
    "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "GRU", "Hardmax", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "LRN", "LSTM", "MatMul",
    "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "PRelu",
    "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterND", "Selu", "Shape", "Sigmoid",
    "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze",
    "Upsample", "Where", "Xor",
})  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]


def to_basic_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function, for one window, in fewer operators; see the top of this file."""
    editor, shapes = GraphEditor(model), dict(value_shapes(model))
    for node in editor.old_nodes:
        rewrite = _REWRITES.get(node.op_type, _as_it_is)
        rewrite(editor, node, shapes)
    return editor.finish()


def _as_it_is(editor: GraphEditor, node: onnx.NodeProto, shapes: Shapes) -> None:
    editor.keep(node)


def _layer_norm(editor: GraphEditor, node: onnx.NodeProto, shapes: Shapes) -> None:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if given.get("axis", -1) != -1:
        raise LoweringError(
            f"ONNX node {node.name!r} normalises from axis {given['axis']} on, expected the last one alone"
        )
    source, weight, *bias = node.input
    stem = node.output[0]
    axis = editor.constant(np.array([-1], np.int64), "last_axis")
    epsilon = editor.constant(np.array(given.get("epsilon", 1e-5), np.float32), f"{stem}_epsilon")
    mean = editor.emit("ReduceMean", [source, axis], f"{stem}_mean", keepdims=1)
    centred = editor.emit("Sub", [source, mean], f"{stem}_centred")
    square = editor.emit("Mul", [centred, centred], f"{stem}_square")
    variance = editor.emit("ReduceMean", [square, axis], f"{stem}_variance", keepdims=1)
    deviation = editor.emit(
        "Sqrt", [editor.emit("Add", [variance, epsilon], f"{stem}_shifted")], f"{stem}_deviation"
    )
    unit = editor.emit("Div", [centred, deviation], f"{stem}_unit")
    if not bias:
        editor.emit("Mul", [unit, weight], "", output=stem)
        return
    scaled = editor.emit("Mul", [unit, weight], f"{stem}_scaled")
    editor.emit("Add", [scaled, bias[0]], "", output=stem)


def _split(editor: GraphEditor, node: onnx.NodeProto, shapes: Shapes) -> None:
    axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
    ends = np.cumsum([shapes[output][axis] for output in node.output])
    axes = editor.constant(np.array([axis], np.int64), f"{node.output[0]}_axis")
    for output, end in zip(node.output, ends, strict=True):
        bounds = {"start": end - shapes[output][axis], "end": end}
        places = [
            editor.constant(np.array([at], np.int64), f"{output}_{name}") for name, at in bounds.items()
        ]
        editor.emit("Slice", [node.input[0], *places, axes], "", output=output)


def _product(editor: GraphEditor, node: onnx.NodeProto, shapes: Shapes) -> None:
    operands = [shapes[name] for name in node.input]
    result = shapes[node.output[0]]
    if len(result) != 4 or any(len(shape) == 4 and shape[0] != 1 for shape in operands):
        editor.keep(node)
        return
    inputs = [
        _reshaped(editor, name, shape[1:]) if len(shape) == 4 else name
        for name, shape in zip(node.input, operands, strict=True)
    ]
    product = editor.emit("MatMul", inputs, f"{node.output[0]}_of_one_window")
    _reshaped(editor, product, result, output=node.output[0])


def _reshaped(editor: GraphEditor, name: str, shape: tuple[int, ...], output: str | None = None) -> str:
    sizes = editor.constant(np.array(shape, np.int64), f"{name}_sizes")
    return editor.emit("Reshape", [name, sizes], f"{name}_reshaped", output=output)


_REWRITES = {"LayerNormalization": _layer_norm, "Split": _split, "MatMul": _product}


def require_static(model: onnx.ModelProto) -> None:
    """Whether every value has sizes, and every operator is one of ``OPERATORS``.

    Raises:
        LoweringError: names the value, the operator or the opset.
    """
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx") or entry.version not in OPSETS:
            raise LoweringError(
                f"the ONNX program imports opset {entry.domain or 'ai.onnx'} {entry.version}, "
                f"expected ai.onnx {OPSETS.start} to {OPSETS.stop - 1}"
            )
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            raise LoweringError(
                f"operator {node.op_type} of ONNX node {node.name!r} is none that microcontrollers take",
                hint="compile for the c target, or without static",
            )
    shapes = dict(value_shapes(model))
    unknown = [name for node in model.graph.node for name in node.output if name not in shapes]
    if unknown:
        raise LoweringError(f"value {unknown[0]!r} of the ONNX program has no known shape")
    for name, shape in shapes.items():
        if len(shape) > MOST_DIMENSIONS or any(size not in SIZES for size in shape):
            raise LoweringError(
                f"value {name!r} of the ONNX program has the shape {list(shape)}, expected at most "
                f"{MOST_DIMENSIONS} fixed sizes below {SIZES.stop}"
            )


def beyond(model: onnx.ModelProto) -> list[str]:
    """What goes beyond a documented limit of ST Edge AI Core, a line each; it may take it, or not."""
    shapes = dict(value_shapes(model))
    lines = []
    for node in model.graph.node:
        dimensions = max((len(shapes.get(name, ())) for name in node.input), default=0)
        if node.op_type == "MatMul" and dimensions > MOST_PRODUCT_DIMENSIONS:
            lines.append(f"MatMul of {dimensions} dimensions, documented up to {MOST_PRODUCT_DIMENSIONS}")
        if node.op_type == "Softmax":
            lines.append("Softmax along the last axis, documented along the channels of one dimension")
    return sorted(set(lines))


def value_shapes(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and sizes of every value with a shape; -1 for a size that is not fixed."""
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            yield value.name, _sizes(tensor.shape.dim)
    for constant in graph.initializer:
        yield constant.name, tuple(constant.dims)


def _sizes(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
