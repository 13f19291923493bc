"""The transformer encoder of Moirai 1.0, 1.1 and 2.0, with constant token ids.

Shapes: B batch, D variates, S tokens of all variates together, d model width, h heads.

    x <- x + out(attention(rms(x)));  x <- x + fc2(silu(fc_gate rms(x)) * fc1 rms(x));  at the end rms(x)

1. Queries and keys of a head go through an RMS norm over the head's channels (weights shared by heads).
2. The first half of a head is rotated by the token's time in interleaved pairs (0, 1), (2, 3), ...; this
   file puts the pairs' first members before their second ones, in queries and keys alike, which leaves
   every scalar product as it is and saves the interleaving.
3. A bias per head is added to the attention logits: ``emb[1]`` between tokens of one variate, ``emb[0]``
   otherwise; the softmax scale is 1 / sqrt(head width).

Source: parity with uni2ts.  The names of the parameters are upstream's.
Coupled groups (paper A): FFN units, whole heads, value dimensions, dims of the residual stream.
Query and key dimensions are mixed by rule 1, so removing some is not exact: they are no group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import TeacherError
from ...ir.prunable import Group, Kept, Member, Span, Tap, residual_group
from ..blocks.layers import Entry, GatedFfn, RmsNorm, sized_linear, value_group
from ..settings import Settings

ROTARY_BASE = 10000
HEAD_WIDTH = 64
"""Upstream has ``d_model // 64`` heads."""

EPS = 1e-5
"""Of every RMS norm."""

STREAM = "encoder.residual"
"""Group of the dims of the residual stream."""

FFN_PARTS = ("fc_gate", "fc1", "fc2")
"""Upstream's names of gate, up and down."""

CLOSED = -3e4
"""Logit of a pair that must not attend.  Finite in every float type and, as long as the other logits stay
below 2.9e4 in magnitude (queries and keys are normalised), exactly 0 after the softmax."""


def location_and_scale(series: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sqrt(unbiased variance + 1e-5) of ``series [..., L]``, both ``[..., 1]``.

    Upstream computes in float64.  Here the mean is corrected by the mean of the deviations before the
    squares are summed, which agrees with float64 to the last float32 digits (a constant window of any level
    has variance 0) and needs no type that accelerators lack.
    """
    rough = series.mean(dim=-1, keepdim=True)
    deviation = series - rough
    correction = deviation.mean(dim=-1, keepdim=True)
    squares = (deviation - correction).square().sum(dim=-1, keepdim=True)
    return rough + correction, (squares / max(series.shape[-1] - 1, 1) + 1e-5).sqrt()


def check_encoder(settings: Settings) -> None:
    """Refuses what the encoder does not implement.

    Raises:
        TeacherError: the width does not split into heads, dropout inside attention (upstream applies it at
            inference too), or no scaling.
    """
    width = settings.integer("d_model", minimum=HEAD_WIDTH)
    heads = width // HEAD_WIDTH
    if width % heads or width // heads % 4:
        raise TeacherError(
            f"{settings.family} config: d_model is {width}, expected a width that splits into "
            f"{heads} heads (d_model // {HEAD_WIDTH}) of a multiple of 4"
        )
    settings.only("attn_dropout_p", 0.0, 0)
    settings.only("scaling", True)


class TokenLayout(nn.Module):
    """What is constant in a sequence of tokens.

    Args:
        variate: variate of every token ``[S]``.
        time: time id of every token ``[S]``.
        head_width: channels of a head.
        causal: whether a token sees no token of a later time, of any variate.
    """

    cos: Tensor
    sin: Tensor
    same_variate: Tensor
    visible: Tensor

    def __init__(self, variate: Tensor, time: Tensor, head_width: int, *, causal: bool) -> None:
        super().__init__()
        rotated = head_width // 2
        frequencies = 1.0 / ROTARY_BASE ** (torch.arange(0, rotated, 2).float() / rotated)
        angles = torch.outer(time.float(), frequencies)
        self.causal = causal
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("same_variate", variate[:, None] == variate[None, :], persistent=False)
        self.register_buffer("visible", time[:, None] >= time[None, :] if causal else None, persistent=False)


class VariateBias(nn.Module):
    """One logit a head for tokens of one variate and one for the others; the parameter is ``emb``."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(2, heads)

    def forward(self, layout: TokenLayout, asking: slice) -> Tensor:
        """Additive attention mask ``[1, h, queries, S]``."""
        other, same = self.emb.weight[:, :, None, None]
        bias = torch.where(layout.same_variate[asking], same, other)
        if layout.causal:
            bias = torch.where(layout.visible[asking], bias, CLOSED)
        return bias[None]


class Attention(nn.Module):
    """Attention over the tokens of all variates.

    Args:
        name: of this module in the state dict; prefix of its groups ``heads`` and ``values``.
        width: published d, which the heads share.
        kept: which units live.
    """

    def __init__(self, name: str, width: int, kept: Kept) -> None:
        super().__init__()
        published = width // HEAD_WIDTH
        head_width = width // published
        width = kept.count(STREAM, width)
        self.name = name
        self.head_width = head_width
        self.heads = kept.count(f"{name}.heads", published)
        self.values = kept.count(f"{name}.values", head_width)
        self.q_proj = sized_linear(width, self.heads * head_width, bias=False)
        self.k_proj = sized_linear(width, self.heads * head_width, bias=False)
        self.v_proj = sized_linear(width, self.heads * self.values, bias=False)
        self.q_norm = RmsNorm(head_width, EPS)
        self.k_norm = RmsNorm(head_width, EPS)
        self.out_proj = sized_linear(self.heads * self.values, width, bias=False)
        self.var_attn_bias = VariateBias(self.heads)

    @property
    def live(self) -> bool:
        """Whether any channel is left; without one the output is zero and ``forward`` is not to be called."""
        return self.heads * self.values > 0

    def forward(self, tokens: Tensor, layout: TokenLayout, asking: slice) -> Tensor:
        """Outputs ``[B, queries, d]`` of the tokens ``asking`` among ``tokens [B, S, d]``."""
        query = self._rotate(self.q_norm(self._split(self.q_proj(tokens[:, asking]))), layout, asking)
        key = self._rotate(self.k_norm(self._split(self.k_proj(tokens))), layout, slice(None))
        value = self._split(self.v_proj(tokens))
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self.var_attn_bias(layout, asking),
            scale=self.head_width**-0.5,
        )
        # contiguous: the exporter cannot view what the decomposed attention leaves behind
        output: Tensor = self.out_proj(mixed.transpose(1, 2).contiguous().flatten(2))
        return output

    def _split(self, projected: Tensor) -> Tensor:
        """``[B, S, h * w]`` -> ``[B, h, S, w]``."""
        return torch.unflatten(projected, -1, (self.heads, -1)).transpose(1, 2)

    def _rotate(self, hidden: Tensor, layout: TokenLayout, rows: slice) -> Tensor:
        rotated = self.head_width // 2
        cos, sin = layout.cos[rows], layout.sin[rows]
        first, second = hidden[..., 0:rotated:2], hidden[..., 1:rotated:2]
        return torch.cat(
            [first * cos - second * sin, second * cos + first * sin, hidden[..., rotated:]], dim=-1
        )

    def groups(self) -> Iterator[Group]:
        """Whole heads with their bias, and value dimensions (the same in each head)."""
        if not self.live:
            return
        query, key, value, output = (f"{self.name}.{part}_proj" for part in ("q", "k", "v", "out"))
        per_head = (Span(stride=self.head_width, width=self.head_width),)
        per_value_head = (Span(stride=self.values, width=self.values),)
        yield Group(
            name=f"{self.name}.heads",
            kind="head",
            units=self.heads,
            members=(
                Member(f"{query}.weight", 0, per_head),
                Member(f"{key}.weight", 0, per_head),
                Member(f"{value}.weight", 0, per_value_head),
                Member(f"{output}.weight", 1, per_value_head),
                Member(f"{self.name}.var_attn_bias.emb.weight", 1),
            ),
            taps=(Tap(output, "in", per_value_head), Tap(value, "out", per_value_head)),
        )
        yield value_group(self.name, self.heads, self.values, value, output)


class EncoderLayer(nn.Module):
    """Pre-norm attention and pre-norm FFN; a branch without units leaves the residual stream as it is."""

    def __init__(self, name: str, width: int, units: int, kept: Kept) -> None:
        super().__init__()
        self.self_attn = Attention(f"{name}.self_attn", width, kept)
        stream = kept.count(STREAM, width)
        self.ffn = GatedFfn(f"{name}.ffn", stream, units, kept, FFN_PARTS)
        self.norm1 = RmsNorm(stream, EPS, width)
        self.norm2 = RmsNorm(stream, EPS, width)

    def forward(self, tokens: Tensor, layout: TokenLayout, asking: slice) -> Tensor:
        """Outputs ``[B, queries, d]`` of the tokens ``asking`` among ``tokens [B, S, d]``."""
        asked = tokens[:, asking]
        if self.self_attn.live:
            asked = asked + self.self_attn(self.norm1(tokens), layout, asking)
        if self.ffn.units:
            asked = asked + self.ffn(self.norm2(asked))
        return asked


class Encoder(nn.Module):
    """All layers and the final norm.

    Args:
        settings: upstream's configuration.
        units: hidden width of the FFNs.
    """

    def __init__(self, settings: Settings, units: int) -> None:
        super().__init__()
        width, kept = settings.integer("d_model"), Kept(settings.config)
        self.head_width = width // (width // HEAD_WIDTH)
        self.entry = Entry(kept.count(STREAM, width))
        self.layers = nn.ModuleList(
            EncoderLayer(f"encoder.layers.{i}", width, units, kept)
            for i in range(settings.integer("num_layers"))
        )
        self.norm = RmsNorm(self.entry.channels, EPS, width)

    def forward(self, tokens: Tensor, layout: TokenLayout, asking: slice) -> Tensor:
        """States ``[B, queries, d]``, after the norm, of the tokens ``asking`` among ``tokens [B, S, d]``.

        The last layer computes nothing for tokens that nobody asks for.
        """
        tokens = self.entry(tokens)
        for layer in self.layers:
            tokens = layer(tokens, layout, asking if layer is self.layers[-1] else slice(None))
        states: Tensor = self.norm(tokens)
        return states

    def groups(self) -> Iterator[Group]:
        """The groups of every layer."""
        for layer in self.layers:
            yield from cast(EncoderLayer, layer).self_attn.groups()
            yield from cast(EncoderLayer, layer).ffn.groups()

    def stream(self, entering: Iterable[Member], leaving: Iterable[Member]) -> Group:
        """The dims of the residual stream.

        Args:
            entering: parameters that write the tokens.
            leaving: parameters that read the states.
        """
        gate, up, down = FFN_PARTS
        layers = [f"encoder.layers.{i}" for i in range(len(self.layers))]
        readers = (*(f"self_attn.{part}_proj" for part in "qkv"), f"ffn.{gate}", f"ffn.{up}")
        return residual_group(
            STREAM,
            self.entry.channels,
            entry="encoder.entry",
            entering=entering,
            branches=(
                f"{layer}.{part}" for layer in layers for part in ("self_attn.out_proj", f"ffn.{down}")
            ),
            readers=(f"{layer}.{part}" for layer in layers for part in readers),
            norms=(*(f"{layer}.{part}" for layer in layers for part in ("norm1", "norm2")), "encoder.norm"),
            leaving=leaving,
        )
