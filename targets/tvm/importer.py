"""From a PyTorch module to a fused Relax module with static shapes.

Two routes: ``torch.export`` and TVM's torch frontend, or ONNX where an operator is missing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...compiler.base.errors import LoweringError
from ...compiler.ir.program import Program, first_line
from ..native.static import export_static


def rewrite_operators(program: Program, batch: int) -> torch.export.ExportedProgram:
    """``program`` at one batch size, with operators that TVM's frontends read correctly.

    Raises:
        LoweringError: an operator is used in a way that its replacement does not know.
    """
    try:
        return export_static(program.module, (batch, program.shape.variates, program.shape.inputs))
    except Exception as error:  # torch.export has no common base class for what may go wrong
        raise LoweringError(
            f"tvm: the program cannot be exported at batch {batch}: {first_line(error)}"
        ) from error


def import_exported(program: torch.export.ExportedProgram) -> Any:
    """Relax module of an exported program.

    Operators are kept whole: decomposing a linear layer would put reshapes between the product and
    what can be fused behind it.
    """
    from tvm.relax.frontend.torch import from_exported_program

    with torch.no_grad():
        return from_exported_program(program, unwrap_unit_return_tuple=True, run_ep_decomposition=False)


def import_onnx(path: Path, shape: tuple[int, int, int]) -> Any:
    """Relax module of an ONNX file, its input fixed to ``shape``."""
    import onnx
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    graph = onnx.load(path)
    name = graph.graph.input[0].name
    module = from_onnx(graph, shape_dict={name: list(shape)}, keep_params_in_input=False)
    return relax.transform.Normalize()(module)


def optimise(module: Any) -> Any:
    """Legalised, folded and fused: every operator a ``call_tir`` of an unscheduled PrimFunc."""
    import tvm
    from tvm import relax

    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.RewriteDataflowReshape(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)
