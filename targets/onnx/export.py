"""PyTorch -> ONNX, the one export that every target that reads ONNX shares.

    torch.export, batch symbolic -> torch.onnx -> simplify -> strip -> infer shapes -> check -> write

Equal models give equal bytes: names come from the graph, and doc strings, stack traces and every other
metadata that could carry a path are removed.  Weights always stand inside the file, never in external data.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ...compiler.base.errors import LoweringError
from ..base import Shape

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Taken by onnxruntime, by TVM's importer and by every TensorRT from 10.3 on."""
INPUT, OUTPUT, BATCH = "past", "forecast", "batch"
PROTOBUF_LIMIT_BYTES = 2**31 - 1


def export_onnx(
    model: nn.Module,
    shape: Shape,
    path: Path,
    *,
    calibration: np.ndarray,
    opset: int = OPSET,
    batch: int | None = None,
    program: torch.export.ExportedProgram | None = None,
) -> onnx.ModelProto:
    """Writes ``model`` as one self-contained ONNX file and returns what was written.

    Args:
        model: eval mode, fp32, CPU, ``past [B, D, L] -> [B, D, H]``.
        shape: D, L and H of the program.
        path: the file to write.
        calibration: real windows ``[N, D, L]`` float32; the first ones are traced.
        batch: a fixed batch size, or None for a symbolic dimension named ``batch``.
        program: what ``export_program`` returned for the same arguments, where a caller keeps it too.

    Raises:
        LoweringError: names the operator or the shape that has no ONNX form.
    """
    program = program or export_program(model, shape, calibration=calibration, batch=batch)
    proto = _finish(_translate(program, opset), shape, batch)
    payload = proto.SerializeToString(deterministic=True)
    path.write_bytes(payload)
    return proto


def export_program(
    model: nn.Module, shape: Shape, *, calibration: np.ndarray, batch: int | None = None
) -> torch.export.ExportedProgram:
    """``torch.export`` of ``model`` with a symbolic or a fixed batch; arguments as in ``export_onnx``.

    Raises:
        LoweringError: the model branches on data, bakes the batch size in or returns another shape.
    """
    example = _example(calibration, shape, batch)
    dynamic = None if batch is not None else ({0: torch.export.Dim(BATCH, min=1)},)
    with torch.no_grad(), _quiet():
        try:
            got = tuple(model(example).shape)
            program = torch.export.export(model, (example,), dynamic_shapes=dynamic)
        except Exception as error:  # torch.export has no common base class for what a model may do wrong
            raise LoweringError(
                f"{type(model).__name__} cannot be exported by torch.export: {_first_line(error)}",
                hint="write the forward pass without branches on data and without fixed batch sizes",
            ) from error
    expected = (len(example), shape.variates, shape.horizon)
    if got != expected:
        raise LoweringError(
            f"{type(model).__name__} returns shape {list(got)}, expected [B, D, H] = {list(expected)}",
            hint="a target takes a point forecast for every variate and step",
        )
    return program


def _example(calibration: np.ndarray, shape: Shape, batch: int | None) -> torch.Tensor:
    if calibration.ndim != 3 or calibration.shape[1:] != (shape.variates, shape.lookback):
        raise LoweringError(
            f"calibration windows have shape {list(calibration.shape)}, "
            f"expected [N, D, L] = [N, {shape.variates}, {shape.lookback}]"
        )
    # A traced batch of 0 or 1 would be specialised to that size, so a symbolic batch is traced with 2.
    rows = np.resize(np.arange(len(calibration)), batch or 2)
    return torch.from_numpy(np.ascontiguousarray(calibration[rows], dtype=np.float32))


def _translate(program: torch.export.ExportedProgram, opset: int) -> Any:
    """The exporter's own result as an ``onnx_ir.Model``, constants folded."""
    with torch.no_grad(), _quiet():
        try:
            result = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                optimize=True,
                verbose=False,
                external_data=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise LoweringError(
                f"operator {_operator(error)} has no ONNX form at opset {opset}",
                hint="rewrite it with basic tensor operators, or choose another target",
            ) from error
    if result is None:
        raise LoweringError("torch.onnx.export returned no program")
    return result.model


def _finish(model: Any, shape: Shape, batch: int | None) -> onnx.ModelProto:
    """Simplifies, strips, infers every shape and checks."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import Sequential, common

    simplify = Sequential(
        common.LiftConstantsToInitializersPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.ClearMetadataAndDocStringPass(),
    )
    proto = ir.to_proto(simplify(model).model)
    proto.producer_name, proto.producer_version = "tsfmc", ""
    proto.graph.name = "forecaster"
    del proto.graph.value_info[:]  # inferred anew below, in the order of the nodes
    _refuse_external_data(proto)
    if proto.ByteSize() > PROTOBUF_LIMIT_BYTES:
        raise LoweringError(
            f"the ONNX program has {proto.ByteSize()} bytes, one file holds at most {PROTOBUF_LIMIT_BYTES}",
            hint="prune the model or distill it into a student first",
        )
    if batch is None:
        _name_batch(proto)
    _check_interface(proto, shape, batch)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise LoweringError(f"the ONNX program is not valid: {_first_line(error)}") from error
    return proto


def _refuse_external_data(proto: onnx.ModelProto) -> None:
    import onnx

    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise LoweringError(f"weight {tensor.name!r} was put outside the ONNX file")


def _name_batch(proto: onnx.ModelProto) -> None:
    """Gives the symbol that torch.export invented for the batch (``s1``) its name."""
    dims = [value.type.tensor_type.shape.dim[0] for value in (*proto.graph.input, *proto.graph.output)]
    symbol = dims[0].dim_param
    for dim in dims:
        if symbol and dim.dim_param == symbol:
            dim.dim_param = BATCH


def _check_interface(proto: onnx.ModelProto, shape: Shape, batch: int | None) -> None:
    """One input and one output with exactly the promised names and dimensions."""
    first = BATCH if batch is None else batch
    expected = [
        (INPUT, [first, shape.variates, shape.lookback]),
        (OUTPUT, [first, shape.variates, shape.horizon]),
    ]
    values = [*proto.graph.input, *proto.graph.output]
    got = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in values
    ]
    if got != expected:
        raise LoweringError(f"the ONNX program has the interface {got}, expected {expected}")


def _operator(error: BaseException) -> str:
    """The operator that the exporter could not translate, found in the chain of causes."""
    link: BaseException | None = error
    while link is not None:
        if match := re.search(r"OpOverload\(op='([^']+)'|target=torch\.ops\.([\w.]+)\]", str(link)):
            return next(group for group in match.groups() if group)
        link = link.__cause__
    return f"(unnamed: {_first_line(error)})"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's remarks about packages that nobody here uses; errors are raised as ever."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
