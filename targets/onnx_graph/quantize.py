"""int8 and fp8 in the graph: explicit QuantizeLinear/DequantizeLinear around every linear layer.

    x W  ->  DQ(Q(x, s_x)) DQ(W_q, s_W)        s_x = clip(x) / top         symmetric, zero point 0
    int8: top = 127, one s_W a column (output channel);   fp8 (E4M3): top = 448, one s_W a matrix

``x`` has degree 0 (see ``precision.py``: units are changed where it has not), so one static range
fits windows of every scale.  Ranges come from real training windows; weights are stored quantised.
For int8 the clip is the one of ``CLIPS`` times the largest value that gives the smallest mean squared
rounding error of ``x`` over the calibration windows.  Products between two activations (attention) stay fp32.

An integer cannot be NaN: ``Q`` would make a number of it, and of a window with a NaN in one variate a finite
forecast of the others.  So what is not finite goes round the product, ``y = DQ(Q(x)) W + sum 0 x`` along each
row: 0 is added to every other one, and NaN spreads as far as in the same graph in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from ...compiler.base.errors import LoweringError
from .editor import GraphEditor
from .precision import bound_linear_inputs, is_weight

Scheme = Literal["int8", "fp8"]

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_FP8_MAX = 448.0
_SAMPLES = 1 << 18
"""Values of an activation that are kept to choose its clip."""


def quantize(model: onnx.ModelProto, calibration: np.ndarray, scheme: Scheme) -> onnx.ModelProto:
    """``model`` (fp32, input ``past``) with quantised linear layers; inputs and outputs stay fp32.

    Args:
        calibration: real training windows ``[N, D, L]`` float32.

    Raises:
        LoweringError: no linear layer to quantise, or calibration windows that are not finite.
    """
    require_finite(calibration)
    bounded, plain = bound_linear_inputs(model), GraphEditor(model)
    editor = GraphEditor(bounded)
    weights = {node.input[1] for node in plain.old_nodes if is_layer(node, plain)}
    layers = {node.output[0]: weight_axis(node, editor, weights) for node in editor.old_nodes}
    sources = list(dict.fromkeys(n.input[0] for n in editor.old_nodes if layers[n.output[0]] is not None))
    if not sources:
        raise LoweringError(
            f"{scheme}: the graph has no product with a constant weight to quantise",
            hint="use fp16 or fp32",
        )
    samples = _sample(bounded, sources, calibration)
    pairs: dict[str, str] = {}
    rest: dict[str, str] = {}
    for node in editor.old_nodes:
        axis = layers[node.output[0]]
        if axis is None:
            editor.keep(node)
            continue
        source, weight = node.input[0], node.input[1]
        if source not in pairs:
            pairs[source] = _quantize_activation(editor, source, samples[source], scheme)
        if weight not in pairs:
            pairs[weight] = _quantize_weight(editor, weight, axis, scheme)
        if source not in rest:
            rest[source] = not_finite(editor, source)
        product = editor.fresh(f"{node.output[0]}_quantized_product")
        kept = editor.keep(node, [pairs[source], pairs[weight], *node.input[2:]])
        output, kept.output[0] = kept.output[0], product
        editor.emit("Add", [product, rest[source]], "", output=output)
    # QuantizeLinear to fp8 exists from opset 19 on; the operators used here did not change otherwise.
    return editor.finish(opset=19 if scheme == "fp8" else None)


def require_finite(calibration: np.ndarray) -> None:
    """Raises ``LoweringError`` for calibration windows that hold a NaN or an infinity."""
    if not np.isfinite(calibration).all():
        raise LoweringError(
            "the calibration windows hold values that are not finite", hint="impute the data first"
        )


def is_layer(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    constant = node.op_type in ("MatMul", "Gemm") and node.input[1] in editor.constants
    return constant and is_weight(node, editor)


def weight_axis(node: onnx.NodeProto, editor: GraphEditor, weights: set[str]) -> int | None:
    """Axis of the output channels of a linear layer's weight, or None for any other node."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    if not editor.is_float(node.input[0]):
        return None
    flags = {a.name: a.i for a in node.attribute}
    last = editor.constants[node.input[1]].ndim - 1
    return None if flags.get("transA") else (0 if flags.get("transB") else last)


def not_finite(editor: GraphEditor, source: str) -> str:
    """``[..., 1]``: NaN for a row of ``source`` with a value that is not finite, 0 for all others."""
    nothing = editor.constant(np.zeros((), np.float32), "nothing")
    axis = editor.constant(np.array([-1], np.int64), "last_axis")
    zeros = editor.emit("Mul", [source, nothing], f"{source}_times_nothing")
    return editor.emit("ReduceSum", [zeros, axis], f"{source}_not_finite", keepdims=1)


def _quantize_activation(editor: GraphEditor, source: str, values: np.ndarray, scheme: Scheme) -> str:
    scale = np.float32(_clip(values, scheme) / _top(scheme))
    name = editor.constant(np.array(scale), f"{source}_scale")
    zero = editor.constant(np.zeros((), _dtype(scheme)), f"{source}_zero")
    quantised = editor.emit("QuantizeLinear", [source, name, zero], f"{source}_quantized")
    return editor.emit("DequantizeLinear", [quantised, name, zero], f"{source}_dequantized")


def _quantize_weight(editor: GraphEditor, weight: str, axis: int, scheme: Scheme) -> str:
    value = editor.constants[weight]
    over = tuple(i for i in range(value.ndim) if i != axis) if scheme == "int8" else None
    largest = np.abs(value).max(axis=over, keepdims=True)
    scale = (np.where(largest > 0, largest, 1.0) / _top(scheme)).astype(np.float32)
    levels = value / scale
    stored = (np.rint(levels) if scheme == "int8" else levels).astype(_dtype(scheme))
    flat = scale.reshape(-1) if scheme == "int8" else scale.reshape(())
    names = [
        editor.constant(stored, f"{weight}_{scheme}"),
        editor.constant(flat, f"{weight}_scale"),
        editor.constant(np.zeros(flat.shape, _dtype(scheme)), f"{weight}_zero"),
    ]
    attributes: dict[str, Any] = {"axis": axis} if scheme == "int8" else {}
    return editor.emit("DequantizeLinear", names, f"{weight}_dequantized", **attributes)


def _clip(values: np.ndarray, scheme: Scheme) -> float:
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    if scheme == "fp8":
        return largest  # a floating-point grid loses nothing near zero by a wide range
    errors = []
    for ratio in CLIPS:
        step = largest * ratio / _top(scheme)
        rounded = np.clip(np.rint(values / step), -_top(scheme), _top(scheme)) * step
        errors.append(float(np.mean((rounded - values) ** 2)))
    return largest * CLIPS[int(np.argmin(errors))]


def _top(scheme: Scheme) -> float:
    return 127.0 if scheme == "int8" else _FP8_MAX


def _dtype(scheme: Scheme) -> np.dtype:
    return np.dtype(np.int8 if scheme == "int8" else ml_dtypes.float8_e4m3fn)


def _sample(model: onnx.ModelProto, names: Sequence[str], windows: np.ndarray) -> dict[str, np.ndarray]:
    """Values of the named tensors over the windows: an even subset that always holds the largest one."""
    import onnxruntime as ort  # type: ignore[import-untyped]

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    wanted = [name for name in names if name not in inputs]
    exposed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else 32
    usable = len(windows) // batch * batch if isinstance(entry.shape[0], int) else len(windows)
    if usable == 0:
        raise LoweringError(
            f"{len(windows)} calibration windows do not fill one batch of {batch}",
            hint="give at least one batch of training windows",
        )
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    room = max(1, _SAMPLES * batch // usable)
    for start in range(0, usable, batch):
        past = np.ascontiguousarray(windows[start : start + batch], np.float32)
        values = dict(zip(wanted, session.run(wanted, {entry.name: past}), strict=True)) if wanted else {}
        values |= {name: past for name in names if name in inputs}
        for name in names:
            flat = values[name].reshape(-1)
            extremes = flat[[int(np.argmax(np.abs(flat)))]]
            kept[name] += [flat[:: max(1, flat.size // room)], extremes]
    return {name: np.concatenate(parts) for name, parts in kept.items()}
