"""A program at one shape, its operators written with those that code is made from."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .rewrites import Rewrites


def export_static(program: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """``torch.export`` at input ``shape [B, D, L]`` of an exported program's module, rewritten."""
    with torch.no_grad(), warnings.catch_warnings(), Rewrites():
        warnings.simplefilter("ignore")
        exported = torch.export.export(program, (torch.zeros(shape),))
    for node in list(exported.graph.nodes):
        if node.target == torch.ops.aten.select.int and node.args[2] < 0:
            # The frontend hands a negative index to an operator that does not count from the end.
            source, axis, position = node.args
            node.args = (source, axis, position + source.meta["val"].shape[axis])
        elif node.target == torch.ops.aten.slice.Tensor and _is_whole(node):
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)
    exported.graph_module.recompile()
    return exported


def _is_whole(node: Any) -> bool:
    """A slice of everything, which tracing a slice to the end leaves behind."""
    users_are_nodes = all(user.op != "output" for user in node.users)
    return users_are_nodes and tuple(node.meta["val"].shape) == tuple(node.args[0].meta["val"].shape)
