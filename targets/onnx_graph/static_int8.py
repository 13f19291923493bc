"""int8 as compilers of NPUs expect it: static Q/DQ on both sides of every linear layer, by onnxruntime.

    x W  ->  DQ Q( DQ(Q(x)) DQ(W_q) )       activations int8 with a zero point, weights int8 symmetric

This is the "tensor-oriented" form of ``onnxruntime.quantization.quantize_static`` with ranges from real
windows, which ST's documentation of the Neural-ART NPU asks for ("8b/8b, ss/sa").  A weight has one scale, or
one for each output channel.

Before that, the window's mean and largest deviation are taken out (``precision.py``, rule 3), so that neither
the level nor the units of a series use up the range: what the first layer sees is within [-1, 1].  What is
not finite goes round the product, as in ``quantize.py``.  Other nodes stay in float32, and read float32: the
quantiser would hand every reader of a layer's input the rounded one, so the layer gets a copy of its own.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...compiler.base.errors import LoweringError
from .editor import GraphEditor
from .precision import bound_linear_inputs
from .quantize import is_layer, not_finite, require_finite, weight_axis


def quantize_static(model: onnx.ModelProto, calibration: np.ndarray, *, per_channel: bool) -> onnx.ModelProto:
    """``model`` (fp32, input ``past [1, D, L]``) with static int8 layers; inputs and outputs stay fp32.

    Args:
        calibration: real training windows ``[N, D, L]`` float32.

    Raises:
        LoweringError: no linear layer to quantise, or calibration windows that are not finite.
    """
    from onnxruntime import quantization as ort  # type: ignore[import-untyped]

    require_finite(calibration)
    guarded, layers, stacks = _guarded(model)
    if not layers:
        raise LoweringError(
            "int8: the graph has no product with a constant weight to quantise", hint="use precision fp32"
        )
    symmetric = {"WeightSymmetric": True, "ActivationSymmetric": False}
    overrides = {name: [{"axis": axis}] for name, axis in stacks.items()} if per_channel else {}
    with tempfile.TemporaryDirectory(prefix="tsfmc-onnx-") as folder, _quiet():
        path = Path(folder) / "quantised.onnx"
        ort.quantize_static(
            guarded,
            str(path),
            _windows(calibration, guarded.graph.input[0].name),
            quant_format=ort.QuantFormat.QDQ,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            per_channel=per_channel,
            nodes_to_quantize=layers,
            calibrate_method=ort.CalibrationMethod.MinMax,
            extra_options={**symmetric, "TensorQuantOverrides": overrides},
        )
        quantised = onnx.load(path)
    return _as_ours(quantised, model)


def _guarded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str], dict[str, int]]:
    """The model in bounded units with a way round every layer; the layers' names; and the output axis of
    every weight that is more than one matrix."""
    bounded, plain = bound_linear_inputs(model), GraphEditor(model)
    weights = {node.input[1] for node in plain.old_nodes if is_layer(node, plain)}
    editor = GraphEditor(bounded)
    layers: list[str] = []
    stacks: dict[str, int] = {}
    rest: dict[str, str] = {}
    copies: dict[str, str] = {}
    for node in editor.old_nodes:
        axis = weight_axis(node, editor, weights)
        if axis is None:
            editor.keep(node)
            continue
        source, weight = node.input[0], node.input[1]
        if source not in copies:
            copies[source] = editor.emit("Identity", [source], f"{source}_of_layer")
        kept = editor.keep(node, [copies[source], *node.input[1:]])
        if editor.constants[weight].ndim > 2:
            stacks[weight] = axis
        if source not in rest:
            rest[source] = not_finite(editor, source)
        output, kept.output[0] = kept.output[0], editor.fresh(f"{kept.output[0]}_quantized_product")
        kept.name = f"{output}:layer"
        layers.append(kept.name)
        editor.emit("Add", [kept.output[0], rest[source]], "", output=output)
    return editor.finish(), layers, stacks


def _windows(calibration: np.ndarray, name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Windows(CalibrationDataReader):  # type: ignore[misc]
        """One window after the other."""

        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self.left, None)
            return None if window is None else {name: np.ascontiguousarray(window[None], np.float32)}

    return Windows()


def _as_ours(quantised: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the copies and what the quantiser wrote about itself, under the original's names, checked."""
    editor = GraphEditor(quantised)
    copied = {node.output[0]: node.input[0] for node in editor.old_nodes if node.op_type == "Identity"}
    for node in editor.old_nodes:
        if node.op_type != "Identity":
            editor.keep(node, [copied.get(name, name) for name in node.input])
    result = editor.finish()
    del result.metadata_props[:], result.graph.value_info[:]
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.ir_version, result.graph.name = model.ir_version, model.graph.name
    del result.opset_import[:]
    result.opset_import.extend(model.opset_import)
    result = onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(result, full_check=True)
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises its own preprocessing, which the translation has done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
