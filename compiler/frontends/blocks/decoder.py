"""What Time-MoE and Timer share: causal rotary attention, prunable, normalisation and the plan of a roll-out.

Shapes: N series, T tokens, d model width.  The names of the parameters are upstream's.  Each block
knows its name in the state dict, reads which of its units live from the configuration, and declares
its own coupled groups (paper A).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import TeacherError
from ...ir.prunable import Group, Kept, Member, PrunableStructure, Span, Tap
from ..settings import Settings
from .layers import sized_linear, value_group

KeysValues = tuple[Tensor, Tensor]
"""Rotated keys ``[N, heads, T, 2 pairs]`` and values ``[N, heads, T, values]`` of the tokens so far."""


Normalize = Literal["window", "none"]
"""``window``: see :func:`standardise`; ``none``: series go in as they are."""


class PrunableBlock(Protocol):
    """A block that declares its coupled groups, named as in the state dict."""

    def groups(self) -> Iterator[Group]:
        """The groups that still have units."""


def check_heads(settings: Settings) -> None:
    """Refuses a width that does not split into heads of rotary pairs.

    Raises:
        TeacherError: naming both fields.
    """
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    if width % (2 * heads):
        raise TeacherError(
            f"{settings.family} config: hidden_size is {width} and num_attention_heads {heads}, "
            "expected heads of the same even width"
        )


def head_lengths(settings: Settings, name: str) -> tuple[int, ...]:
    """The steps of every output head.

    Raises:
        TeacherError: they do not increase; upstream's greedy choice stops at the first longer head.
    """
    lengths = settings.config.get(name)
    if (
        not isinstance(lengths, list | tuple)
        or not lengths
        or not all(isinstance(length, int) for length in lengths)
        or not all(before < after for before, after in pairwise([0, *lengths]))
    ):
        raise TeacherError(f"{settings.family} config: {name} is {lengths!r}, expected increasing lengths")
    return tuple(lengths)


def standardise(series: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - mean) / std`` of each window ``[N, L]``, with ``mean`` and unbiased ``std [N, 1]``.

    There is no epsilon, as in the authors' recipes.  A window without any spread is divided by 1 and
    not by 0; its ``std`` is still 0, so that undoing the normalisation forecasts the constant.
    """
    mean = series.mean(dim=-1, keepdim=True)
    centred = series - mean
    std = (centred.square().sum(dim=-1, keepdim=True) / (series.shape[-1] - 1)).sqrt()
    return centred / torch.where(std > 0, std, torch.ones_like(std)), mean, std


def normalised(series: Tensor, how: Normalize) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """The series ``[N, L]`` that the decoder reads, and what undoes it: mean and std."""
    return standardise(series) if how == "window" else (series, 0.0, 1.0)


def plan_heads(lengths: Sequence[int], horizon: int) -> tuple[tuple[int, int], ...]:
    """Upstream's greedy roll-out: ``(head, steps taken)`` of every pass.

    Each pass uses the longest head that does not pass the horizon, or the shortest one, cut.
    With heads of 1, 8, 32 and 64 steps, 96 = 64 + 32 and 105 = 64 + 32 + 8 + 1.
    """
    plan, remaining = [], horizon
    while remaining > 0:
        head = max((i for i, length in enumerate(lengths) if length <= remaining), default=0)
        plan.append((head, min(lengths[head], remaining)))
        remaining -= lengths[head]
    return tuple(plan)


class RotaryAttention(nn.Module):
    """Causal self-attention with rotate-half RoPE on the whole head.

    The softmax scale is ``1 / sqrt(d)`` of the *published* head width d, and a surviving rotary pair
    keeps its frequency, so that removing pairs whose queries are zero changes nothing.

    Args:
        name: of this module in the state dict; prefix of its groups ``heads``, ``values``, ``rotary``.
        width: published d, which the heads share.
        heads: published number of heads.
        positions: rotary angles are tabulated for this many tokens.
        theta: rotary base.
        kept: which units live.
        stream: how many of the d dims of the residual stream live; all by default.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        name: str,
        width: int,
        heads: int,
        positions: int,
        theta: float,
        kept: Kept,
        stream: int | None = None,
    ) -> None:
        super().__init__()
        head_width = width // heads
        width = width if stream is None else stream
        pairs = kept.indices(f"{name}.rotary", head_width // 2)
        self.name = name
        self.heads = kept.count(f"{name}.heads", heads)
        self.values = kept.count(f"{name}.values", head_width)
        self.pairs = len(pairs)
        self.scale = head_width**-0.5
        self.q_proj = sized_linear(width, self.heads * 2 * self.pairs)
        self.k_proj = sized_linear(width, self.heads * 2 * self.pairs)
        self.v_proj = sized_linear(width, self.heads * self.values)
        self.o_proj = sized_linear(self.heads * self.values, width, bias=False)
        frequencies = 1.0 / theta ** (torch.arange(0, head_width, 2).float() / head_width)
        angles = torch.outer(torch.arange(positions).float(), frequencies[pairs])
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(
        self, tokens: Tensor, seen: KeysValues | None, start: int, queries: int
    ) -> tuple[Tensor, KeysValues | None]:
        """Attends from the last ``queries`` of ``tokens [N, T, d]``, which begin at position ``start``.

        Args:
            tokens: new tokens.
            seen: keys and values of the ``start`` tokens before.
            start: position of the first new token.
            queries: for how many of the new tokens an output is wanted.

        Returns:
            ``[N, queries, d]``, and the keys and values of all tokens so far.
        """
        asking = tokens[:, -queries:]
        if not self.heads * self.values:
            return torch.zeros_like(asking), None
        total = start + tokens.shape[1]
        query = self._rotate(self._split(self.q_proj(asking)), total - queries)
        key = self._rotate(self._split(self.k_proj(tokens)), start)
        value = self._split(self.v_proj(tokens))
        if seen is not None:
            key, value = torch.cat([seen[0], key], dim=2), torch.cat([seen[1], value], dim=2)
        square = queries == total
        mask = None
        if not square and queries > 1:
            mask = torch.ones(queries, total, dtype=torch.bool, device=tokens.device).tril(total - queries)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=square, scale=self.scale
        )
        # contiguous: the exporter cannot view what the decomposed attention leaves behind
        return self.o_proj(mixed.transpose(1, 2).contiguous().flatten(2)), (key, value)

    def _split(self, projected: Tensor) -> Tensor:
        """``[N, T, heads * w]`` -> ``[N, heads, T, w]``."""
        return projected.reshape(*projected.shape[:2], self.heads, -1).transpose(1, 2)

    def _rotate(self, projected: Tensor, start: int) -> Tensor:
        stop = start + projected.shape[2]
        cos, sin = self.cos[start:stop], self.sin[start:stop]
        left, right = projected[..., : self.pairs], projected[..., self.pairs :]
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    def groups(self) -> Iterator[Group]:
        """Whole heads, value dimensions (the same in each head), and rotary pairs (the same in each head)."""
        if not self.heads * self.values:
            return
        query, key, value, output = (f"{self.name}.{part}_proj" for part in "qkvo")
        per_head = Span(stride=2 * self.pairs, width=2 * self.pairs)
        per_value_head = Span(stride=self.values, width=self.values)
        yield Group(
            name=f"{self.name}.heads",
            kind="head",
            units=self.heads,
            members=(
                *_rows(query, per_head),
                *_rows(key, per_head),
                *_rows(value, per_value_head),
                Member(f"{output}.weight", 1, (per_value_head,)),
            ),
            taps=(Tap(output, "in", (per_value_head,)), Tap(value, "out", (per_value_head,))),
        )
        yield value_group(self.name, self.heads, self.values, value, output, bias=True)
        halves = tuple(
            Span(width=2, step=self.pairs, offset=head * 2 * self.pairs) for head in range(self.heads)
        )
        yield Group(
            name=f"{self.name}.rotary",
            kind="rotary",
            units=self.pairs,
            members=(*_rows(query, *halves), *_rows(key, *halves)),
            taps=(Tap(query, "out", halves), Tap(key, "out", halves)),
            removable=False,
        )


def _rows(linear: str, *spans: Span) -> tuple[Member, Member]:
    return Member(f"{linear}.weight", 0, spans), Member(f"{linear}.bias", 0, spans)


def structure_of(layers: Iterable[nn.Module]) -> PrunableStructure:
    """All groups of the ``self_attn`` and ``ffn_layer`` blocks of a decoder's layers."""
    return PrunableStructure(
        tuple(
            group
            for layer in layers
            for block in (layer.self_attn, layer.ffn_layer)
            for group in cast(PrunableBlock, block).groups()
        )
    )
