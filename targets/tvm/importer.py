"""From a PyTorch module to a fused Relax module with static shapes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .tir import Unsupported


def import_torch(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Relax module of ``model`` at input ``shape [B, D, L]``, through ``torch.export``.

    Operators are kept whole: decomposing a linear layer would put reshapes between the product and
    what can be fused behind it.
    """
    from tvm.relax.frontend.torch import from_exported_program

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (torch.zeros(shape),))
        return from_exported_program(exported, unwrap_unit_return_tuple=True, run_ep_decomposition=False)


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


def import_model(
    model: nn.Module,
    shape: tuple[int, int, int],
    export: Callable[[Path], Path],
    folder: Path,
) -> tuple[Any, str]:
    """(optimised Relax module, route): the torch frontend, or ONNX where an operator is missing there.

    Args:
        export: writes an ONNX file and returns its path; called only when needed.

    Raises:
        Unsupported: neither route takes the model; names both reasons.
    """
    try:
        return optimise(import_torch(model, shape)), "torch"
    except Exception as torch_reason:  # frontends raise whatever type their failing check has
        try:
            return optimise(import_onnx(export(folder / "import.onnx"), shape)), "onnx"
        except Exception as onnx_reason:
            first, second = (_line(each) for each in (torch_reason, onnx_reason))
            raise Unsupported(f"torch frontend: {first}; ONNX frontend: {second}") from onnx_reason


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
