"""From a PyTorch module to a fused Relax module with static shapes.

Two routes: ``torch.export`` and TVM's torch frontend, or ONNX where an operator is missing there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .rewrites import Rewrites


def export_static(model: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """``torch.export`` at input ``shape [B, D, L]``, in a form that TVM's frontend reads correctly."""
    with torch.no_grad(), warnings.catch_warnings(), Rewrites():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (torch.zeros(shape),))
    for node in exported.graph.nodes:
        # The frontend hands a negative index to an operator that does not count from the end.
        if node.target == torch.ops.aten.select.int and node.args[2] < 0:
            source, axis, position = node.args
            node.args = (source, axis, position + source.meta["val"].shape[axis])
    return exported


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
