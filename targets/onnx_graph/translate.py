"""torch.export -> ONNX, the one translation that every target that reads ONNX shares.

    program, batch symbolic or fixed -> torch.onnx -> simplify -> strip -> infer shapes -> check

Equal programs give equal bytes: names come from the graph, and doc strings, stack traces and every other
metadata that could carry a path are removed.  Weights always stand inside the file, never in external data.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ...compiler.base.errors import LoweringError
from ...compiler.ir.program import BATCH, Program, Shape, first_line

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Taken by onnxruntime, by TVM's importer and by every TensorRT from 10.3 on."""
INPUT, OUTPUT = "past", "forecast"
PROTOBUF_LIMIT_BYTES = 2**31 - 1


def to_onnx(program: Program, *, batch: int | None = None, opset: int = OPSET) -> onnx.ModelProto:
    """``program`` as one self-contained ONNX graph.

    Args:
        batch: a fixed batch size, or None for a symbolic dimension named ``batch``.

    Raises:
        LoweringError: names the operator or the shape that has no ONNX form.
    """
    return translate(program.at(batch), program.shape, batch=batch, opset=opset)


def translate(
    exported: torch.export.ExportedProgram, shape: Shape, *, batch: int | None, opset: int = OPSET
) -> onnx.ModelProto:
    """``to_onnx`` of a program that is already at ``batch``, with other operators perhaps."""
    return _finish(_translate(exported, opset), shape, batch)


def serialised(proto: onnx.ModelProto) -> bytes:
    """The bytes of the file; equal graphs give equal bytes."""
    payload: bytes = proto.SerializeToString(deterministic=True)
    return payload


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
        raise LoweringError(f"the ONNX program is not valid: {first_line(error)}") from error
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
        (INPUT, [first, shape.variates, shape.inputs]),
        (OUTPUT, [first, shape.variates, shape.outputs]),
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
    return f"(unnamed: {first_line(error)})"


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
