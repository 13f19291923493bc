"""Operators that TVM's frontends lack or read wrongly, written with ones they take; active while exporting.

Same mathematics, other operators.  Each entry says why it is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MASKED = -1e30
"""Finite: minus infinity would make a fully masked row not-a-number, and no score comes near."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Products and a softmax, which become kernels of their own.

    TVM's own expansion takes the maximum of a causal row over its masked scores, too, as zeros: a row of
    very negative scores then divides zero by zero.
    """
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], MASKED).triu(1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = (attn_mask.to(scores.dtype) - 1.0) * -MASKED
        scores = scores + attn_mask
    return torch.softmax(scores, dim=-1) @ value


def ranked(values: Tensor, count: int, descending: bool) -> tuple[Tensor, Tensor]:
    """The first ``count`` along the last axis and their places, by counting how many come before each.

    TVM's own sorts need its runtime library.  Ties go to the lower index.
    """
    size, dtype = values.shape[-1], values.dtype
    one, other = values.unsqueeze(-1), values.unsqueeze(-2)
    ahead = other > one if descending else other < one
    earlier = torch.ones(size, size).tril(-1)
    rank = (ahead.to(dtype) + (other == one).to(dtype) * earlier).sum(-1)
    picks = (rank.unsqueeze(-2) == torch.arange(count, dtype=dtype).unsqueeze(-1)).to(dtype)
    places = (picks * torch.arange(size, dtype=dtype)).sum(-1)
    return (picks * values.unsqueeze(-2)).sum(-1), places.to(torch.int64)


def topk(values: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Along the last axis, as ``ranked`` does it."""
    if dim not in (-1, values.ndim - 1):
        raise NotImplementedError("topk along another axis than the last")
    return torch.return_types.topk(ranked(values, k, largest))


def sort(values: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Along the last axis, as ``ranked`` does it."""
    if dim not in (-1, values.ndim - 1):
        raise NotImplementedError("sort along another axis than the last")
    return torch.return_types.sort(ranked(values, values.shape[-1], descending))


def lerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Unknown to the torch frontend."""
    return start + weight * (end - start)


def where(condition: Tensor, input: Tensor | float, other: Tensor | float) -> Tensor:
    """The torch frontend takes tensors on both sides only."""
    dtype = next((each.dtype for each in (input, other) if isinstance(each, Tensor)), torch.float32)
    one, two = (
        each if isinstance(each, Tensor) else torch.full((), each, dtype=dtype) for each in (input, other)
    )
    return torch.where(condition, one, two)


def scatter(base: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Distinct indices along the last axis, by comparison; TVM's scatter has no kernel here."""
    if dim not in (-1, base.ndim - 1):
        raise NotImplementedError("scatter along another axis than the last")
    places = torch.arange(base.shape[-1], dtype=index.dtype)
    hits = (index.unsqueeze(-1) == places).to(base.dtype)
    return base * (1.0 - hits.sum(-2)) + (hits * source.unsqueeze(-1)).sum(-2)


def view_as(tensor: Tensor, other: Tensor) -> Tensor:
    """Unknown to the torch frontend."""
    return tensor.reshape(other.shape)


def squeeze(tensor: Tensor, dim: Any = None) -> Tensor:
    """A reshape is a view there, a squeeze copies."""
    axes = range(tensor.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    dropped = {axis % tensor.ndim for axis in axes} if tensor.ndim else set()
    return tensor.reshape([n for axis, n in enumerate(tensor.shape) if n != 1 or axis not in dropped])


def unsqueeze(tensor: Tensor, dim: int) -> Tensor:
    """Likewise."""
    place = dim % (tensor.ndim + 1)
    return tensor.reshape((*tensor.shape[:place], 1, *tensor.shape[place:]))


def layer_norm(
    tensor: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """The torch frontend fails without weight and bias."""
    weight = torch.ones(tuple(normalized_shape)) if weight is None else weight
    bias = torch.zeros(tuple(normalized_shape)) if bias is None else bias
    return torch.layer_norm(tensor, tuple(normalized_shape), weight, bias, eps)


_ATEN = torch.ops.aten

_REWRITES: dict[Any, Callable[..., Any]] = {
    _ATEN.scaled_dot_product_attention.default: attention,
    _ATEN.layer_norm.default: layer_norm,
    _ATEN.topk.default: topk,
    _ATEN.sort.default: sort,
    _ATEN.sort.stable: sort,
    _ATEN.lerp.Scalar: lerp,
    _ATEN.lerp.Tensor: lerp,
    _ATEN.where.Scalar: where,
    _ATEN.where.ScalarOther: where,
    _ATEN.where.ScalarSelf: where,
    _ATEN.scatter.src: scatter,
    _ATEN.view_as.default: view_as,
    _ATEN.squeeze.default: squeeze,
    _ATEN.squeeze.dim: squeeze,
    _ATEN.squeeze.dims: squeeze,
    _ATEN.unsqueeze.default: unsqueeze,
}


class Rewrites(TorchFunctionMode):
    """While active, the listed operators of a program trace as their rewrites."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _REWRITES.get(func, func)(*args, **(kwargs or {}))
