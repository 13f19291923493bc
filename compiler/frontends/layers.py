"""Layers that several families share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def project(linear: nn.Linear, hidden: Tensor) -> Tensor:
    """``linear(hidden)``; a layer that lost all its inputs to pruning gives its bias alone, or zeros.

    Runtimes do not agree on products over zero channels, so none is left in the graph.
    """
    if linear.in_features:
        result: Tensor = linear(hidden)
        return result
    silent = hidden.new_zeros(*hidden.shape[:-1], linear.out_features)
    return silent if linear.bias is None else silent + linear.bias


def sized_linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """``nn.Linear`` that may have zero inputs or outputs without an initialisation warning."""
    if in_features and out_features:
        return nn.Linear(in_features, out_features, bias=bias)
    linear = nn.Linear(1, 1, bias=bias)
    linear.in_features, linear.out_features = in_features, out_features
    linear.weight = nn.Parameter(torch.zeros(out_features, in_features))
    if bias:
        linear.bias = nn.Parameter(torch.zeros(out_features))
    return linear
