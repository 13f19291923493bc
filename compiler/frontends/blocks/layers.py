"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ir.prunable import Group, Kept, Member, Span, Tap


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


class RmsNorm(nn.Module):
    """``x / sqrt(sum(x^2) / published + eps) * weight`` over the last dimension.

    The divisor stays the ``published`` width when pruning leaves fewer dims: those that are gone were zero
    in the whole model, where they added nothing to the sum.
    """

    def __init__(self, width: int, eps: float, published: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.share = width / (published or width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to the same shape."""
        mean = x.square().mean(dim=-1, keepdim=True)
        mean = mean if self.share == 1 else mean * self.share
        return x * torch.rsqrt(mean + self.eps) * self.weight


class Entry(nn.Identity):
    """Where tokens of ``channels`` enter a residual stream; a module, so that a mask can act there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


class GatedFfn(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``, without biases.

    Args:
        name: of this module in the state dict; prefix of its group ``units``.
        width: d.
        units: published hidden width.
        kept: which units live.
        parts: what upstream calls gate, up and down.
    """

    def __init__(
        self,
        name: str,
        width: int,
        units: int,
        kept: Kept,
        parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> None:
        super().__init__()
        self.name, self.parts = name, parts
        self.units = kept.count(f"{name}.units", units)
        gate, up, down = parts
        self.add_module(gate, sized_linear(width, self.units, bias=False))
        self.add_module(up, sized_linear(width, self.units, bias=False))
        self.add_module(down, sized_linear(self.units, width, bias=False))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., d]``; zeros when no unit is left."""
        if not self.units:
            return torch.zeros_like(tokens)
        gate, up, down = (getattr(self, part) for part in self.parts)
        hidden: Tensor = down(F.silu(gate(tokens)) * up(tokens))
        return hidden

    def groups(self) -> Iterator[Group]:
        """Hidden units: rows of gate and up, columns of down."""
        gate, up, down = (f"{self.name}.{part}" for part in self.parts)
        if self.units:
            yield Group(
                name=f"{self.name}.units",
                kind="ffn",
                units=self.units,
                members=(
                    Member(f"{gate}.weight", 0),
                    Member(f"{up}.weight", 0),
                    Member(f"{down}.weight", 1),
                ),
                taps=(Tap(down, "in"), Tap(up, "out")),
            )


class ResidualMlp(nn.Module):
    """``output(activation(hidden(x))) + residual(x)``, with biases.

    Args:
        name: of this module in the state dict; prefix of its group ``units``.
        width: of the input.
        units: published hidden width.
        out: width of the output.
        kept: which units live.
        activation: of the hidden units.
    """

    def __init__(
        self,
        name: str,
        width: int,
        units: int,
        out: int,
        kept: Kept,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.name, self.activation = name, activation
        self.units = kept.count(f"{name}.units", units)
        self.hidden_layer = sized_linear(width, self.units)
        self.output_layer = sized_linear(self.units, out)
        self.residual_layer = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., out]``."""
        hidden = self.activation(self.hidden_layer(x)) if self.units else x
        result: Tensor = project(self.output_layer, hidden) + self.residual_layer(x)
        return result

    def groups(self) -> Iterator[Group]:
        """Hidden units: rows of ``hidden_layer``, columns of ``output_layer``."""
        if self.units:
            yield Group(
                name=f"{self.name}.units",
                kind="ffn",
                units=self.units,
                members=(
                    Member(f"{self.name}.hidden_layer.weight", 0),
                    Member(f"{self.name}.hidden_layer.bias", 0),
                    Member(f"{self.name}.output_layer.weight", 1),
                ),
                taps=(Tap(f"{self.name}.output_layer", "in"),),
            )

    def inputs(self) -> Iterator[Member]:
        """The parameters that read a stream."""
        for part in ("hidden", "residual"):
            yield Member(f"{self.name}.{part}_layer.weight", 1)

    def outputs(self) -> Iterator[Member]:
        """The parameters that write a stream."""
        for part in ("output", "residual"):
            yield Member(f"{self.name}.{part}_layer.weight", 0)
            yield Member(f"{self.name}.{part}_layer.bias", 0)


def value_group(
    attention: str, heads: int, values: int, value: str, output: str, *, bias: bool = False
) -> Group:
    """The value dimensions of an attention, the same in each head.

    Args:
        attention: its name in the state dict.
        heads: how many it has.
        values: value dimensions of a head.
        value: name of the linear layer that makes values.
        output: name of the linear layer that reads them.
        bias: whether ``value`` has one.
    """
    dims = tuple(Span(offset=head * values) for head in range(heads))
    rows = ("weight", "bias") if bias else ("weight",)
    return Group(
        name=f"{attention}.values",
        kind="value",
        units=values,
        members=(*(Member(f"{value}.{row}", 0, dims) for row in rows), Member(f"{output}.weight", 1, dims)),
        taps=(Tap(output, "in", dims), Tap(value, "out", dims)),
    )
