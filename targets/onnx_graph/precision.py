"""fp16 in the graph: an fp16 core with everything that grows with the input's scale kept in fp32.

Degree of homogeneity.  Scale the input by ``c``: a value that scales by ``c ** k`` has degree ``k``.
The input has degree 1, its mean 1, its variance 2, ``(x - mean) / std`` 0, and the de-normalised
forecast 1 again.  Only values of degree 0 are bounded whatever the input's units, so:

    1. a node goes to fp16 iff its operator is in ``HALF`` and all its float inputs and outputs have
       degree 0;
    2. reductions, powers, squares and every normalisation stay in fp32 inside the core too;
    3. a matrix product on a value of another degree is exact under a change of units, so it gets one:
       ``x W = s * ((x - m) / s) W + m * (1' W)`` with ``m = mean(x)``, ``s = max|x - m|`` per window;
    4. graph inputs and outputs stay fp32.

A plain cast overflows from an input scale of about 100 on: the variance leaves fp16's range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import onnx
from onnx import TensorProto

from .editor import GraphEditor

HALF_MAX = float(np.finfo(np.float16).max)
HALF_TINY = float(np.finfo(np.float16).tiny)
_TINY = np.float32(1e-30)

_MOVE = {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze"}
_MOVE |= {"Tile", "Transpose", "Unsqueeze", "Where"}
_POINT = {"Add", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Mul", "Neg", "Relu", "Sigmoid"}
_POINT |= {"Softplus", "Sub", "Tanh"}
HALF = frozenset({"AveragePool", "Conv", "Einsum", "Gemm", "MatMul", "Softmax"} | _MOVE | _POINT)
"""Operators that are safe and useful in fp16 on bounded values."""

_BOUNDED = frozenset(
    {"Log", "Asinh", "Cos", "Erf", "HardSigmoid", "Sigmoid", "Sign", "Sin", "Softmax", "Tanh"}
    | {"InstanceNormalization", "LayerNormalization", "LpNormalization", "RMSNormalization"}
    | {
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "IsInf",
        "IsNaN",
        "Not",
        "And",
        "Or",
        "Xor",
    }
    | {"ArgMax", "ArgMin", "NonZero", "Shape", "Size"}
)
"""Operators whose result does not grow with the scale of their input (Log and Asinh: only slowly)."""

Degrees = Mapping[str, Fraction]


def degrees_of_homogeneity(editor: GraphEditor) -> dict[str, Fraction]:
    """Degree of every value; constants and integers have degree 0."""
    degrees: dict[str, Fraction] = {name: Fraction(1) for name in editor.input_names()}
    for node in editor.old_nodes:
        degree = _degree(node, [degrees.get(name, Fraction(0)) for name in node.input], editor.constants)
        degrees.update(dict.fromkeys(node.output, degree))
    return degrees


def _degree(
    node: onnx.NodeProto, inputs: Sequence[Fraction], constants: Mapping[str, np.ndarray]
) -> Fraction:
    if node.op_type in _BOUNDED or not inputs:
        return Fraction(0)
    rule = _RULES.get(node.op_type)
    if rule is not None:
        return rule(inputs)
    if node.op_type == "Pow":
        exponent = constants.get(node.input[1])
        return inputs[0] * Fraction(float(exponent.reshape(-1)[0])) if exponent is not None else inputs[0]
    # Sums, maxima, data movement and activations: the fastest-growing term decides.
    return max(inputs)


_RULES: Mapping[str, Callable[[Sequence[Fraction]], Fraction]] = {
    "Mul": sum,  # type: ignore[dict-item]
    "MatMul": sum,  # type: ignore[dict-item]
    "Einsum": sum,  # type: ignore[dict-item]
    "Gemm": lambda d: d[0] + d[1],
    "Conv": lambda d: d[0] + d[1],
    "Div": lambda d: d[0] - d[1],
    "Reciprocal": lambda d: -d[0],
    "Sqrt": lambda d: d[0] / 2,
    "ReduceSumSquare": lambda d: 2 * d[0],
    "Gather": lambda d: d[0],
    "Reshape": lambda d: d[0],
    "Where": lambda d: max(d[1:]),
}


def bound_linear_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rule 3: changes the units of every ``MatMul(x, constant W)`` whose ``x`` grows with the input.

    The function computed is the same, in fp32, up to rounding.
    """
    editor = GraphEditor(model)
    degrees = degrees_of_homogeneity(editor)
    bounded: dict[str, tuple[str, str, str]] = {}
    for node in editor.old_nodes:
        if not _is_linear(node, editor) or degrees.get(node.input[0], 0) == 0:
            editor.keep(node)
            continue
        source, weight = node.input[0], editor.constants[node.input[1]]
        if source not in bounded:
            bounded[source] = _bound(editor, source)
        unit, mean, scale = bounded[source]
        product = editor.emit("MatMul", [unit, node.input[1]], f"{source}_unit_product")
        rescaled = editor.emit("Mul", [product, scale], f"{source}_rescaled")
        sums = editor.constant(
            weight.sum(axis=-2, keepdims=weight.ndim == 3, dtype=np.float64).astype(np.float32),
            f"{node.input[1]}_sums",
        )
        shifted = editor.emit("Mul", [mean, sums], f"{source}_shift")
        editor.emit("Add", [rescaled, shifted], "", output=node.output[0])
    return editor.finish()


def _bound(editor: GraphEditor, source: str) -> tuple[str, str, str]:
    """``((x - m) / s, m, s)`` with one mean and one largest deviation per window."""
    axis = editor.constant(np.array([-1], np.int64), "last_axis")
    mean = editor.emit("ReduceMean", [source, axis], f"{source}_mean", keepdims=1)
    centred = editor.emit("Sub", [source, mean], f"{source}_centred")
    size = editor.emit("Abs", [centred], f"{source}_size")
    largest = editor.emit("ReduceMax", [size, axis], f"{source}_largest", keepdims=1)
    tiny = editor.constant(np.array(_TINY), "tiny")
    scale = editor.emit("Max", [largest, tiny], f"{source}_scale")
    return editor.emit("Div", [centred, scale], f"{source}_unit"), mean, scale


def _is_linear(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    if node.op_type != "MatMul" or node.input[1] not in editor.constants:
        return False
    return is_weight(node, editor) and editor.is_float(node.input[0])


def is_weight(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Whether the second operand is a matrix, or a matrix a variate ``[D, K, N]`` that takes whole windows.

    The heads of a low-rank map take an embedding whose last number is the window's level: no change of
    units keeps the digits of the others beside it, so these small products stay in fp32.
    """
    weight = editor.constants[node.input[1]]
    return weight.ndim == 2 or (weight.ndim == 3 and _is_window(node.input[0], editor))


def _is_window(name: str, editor: GraphEditor) -> bool:
    """Whether a value is the graph's input, moved at most."""
    makers = {output: node for node in editor.old_nodes for output in node.output}
    while name in makers and makers[name].op_type in _MOVE:
        name = makers[name].input[0]
    return name in editor.input_names()


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` (fp32) with an fp16 core; inputs and outputs stay fp32.

    The result is strongly typed: every node has inputs of one float type, and casts are explicit.

    Raises:
        LoweringError: the graph holds branches or loops.
    """
    editor = GraphEditor(bound_linear_inputs(model))
    degrees = degrees_of_homogeneity(editor)
    outputs = set(editor.output_names())
    half_values: set[str] = set()
    casts: dict[tuple[str, bool], str] = {}

    def cast(name: str, half: bool) -> str:
        if not editor.is_float(name) or half == (name in half_values):
            return name
        if (name, half) not in casts:
            if half and name in editor.constants:
                casts[name, half] = editor.constant(_as_half(editor.constants[name]), f"{name}_half")
            else:
                to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                casts[name, half] = editor.emit("Cast", [name], f"{name}_{'half' if half else 'full'}", to=to)
        return casts[name, half]

    for node in editor.old_nodes:
        half = _goes_half(node, editor, degrees) and not outputs.intersection(node.output)
        editor.keep(node, [cast(name, half) for name in node.input])
        if half:
            half_values.update(node.output)
    return editor.finish()


def round_every_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """An fp16 graph that onnxruntime cannot compute better than fp16: for checks only.

    onnxruntime on a CPU computes fp16 nodes in fp32 and drops the rounding between them, so that even a
    graph that overflows everywhere else passes.  Here every such node is fp32 between casts of its own,
    which onnxruntime leaves alone because dropping them would change what the model says.
    """
    editor = GraphEditor(model)
    wide: dict[str, str] = {}
    for node in editor.old_nodes:
        outputs = [name for name in node.output if editor.is_half(name)]
        if node.op_type == "Cast" or not (outputs or any(editor.is_half(name) for name in node.input)):
            editor.keep(node)
            continue
        for name in node.input:
            if editor.is_half(name) and name not in wide:
                wide[name] = editor.emit("Cast", [name], f"{name}_wide", to=TensorProto.FLOAT)
        computed = editor.keep(node, [wide.get(name, name) for name in node.input])
        for i, name in enumerate(node.output):
            if name in outputs:
                computed.output[i] = editor.fresh(f"{name}_exact")
                editor.emit("Cast", [computed.output[i]], "", output=name, to=TensorProto.FLOAT16)
    return editor.finish()


def _as_half(constant: np.ndarray) -> np.ndarray:
    """fp16 with finite values kept finite; infinities stay."""
    clipped = np.where(np.isfinite(constant), np.clip(constant, -HALF_MAX, HALF_MAX), constant)
    return np.asarray(clipped, np.float16)


def _goes_half(node: onnx.NodeProto, editor: GraphEditor, degrees: Degrees) -> bool:
    floats = [name for name in (*node.input, *node.output) if editor.is_float(name)]
    if node.op_type not in HALF or not floats or any(degrees.get(name, 0) != 0 for name in floats):
        return False
    if node.op_type == "Mul" and node.input[0] == node.input[1]:
        return False  # a square: half of the exponent range is gone
    return all(
        _fits_half(editor.constants[name], node.op_type) for name in floats if name in editor.constants
    )


def _fits_half(constant: np.ndarray, op: str) -> bool:
    """Whether a constant operand survives fp16; large masks that are added or selected are clipped."""
    size = np.abs(constant[np.isfinite(constant)])
    if op in ("Add", "Where"):
        return True
    return not (size.size and size.max() > HALF_MAX) and not (size.size == 1 and 0 < size.max() < HALF_TINY)
