"""Chronos-Bolt (arXiv:2403.07815 and the Bolt models of chronos-forecasting), as an own forward pass.

For every series on its own, NaN marking a missing value:

1. mean and population standard deviation of the observed values of the last ``context_length`` steps
   (0 and 1 when nothing is observed; 1e-5 for a constant); z = (x - mean) / std, missing values 0;
2. left-pad to patches of 16 steps; [z, observed] -> d by a residual MLP; append the token REG;
3. T5 encoder: x + attention(norm(x)), x + relu-MLP(norm(x)), RMSNorm; attention is unscaled, has one
   relative position bias per stack, and does not see patches without any observed value;
4. T5 decoder over one token.  Its self-attention is o(v(norm(x))) exactly, so its queries, keys and
   position bias are dead weights; cross-attention reads the encoder, which is projected neither to keys
   nor to values (:class:`_CrossAttention`);
5. a residual MLP gives quantiles of 64 steps; times std plus mean.

**Longer horizons** follow the median path: the median is appended to the context and all is repeated on
the longer context, which is normalised anew.  That is deterministic, static and exports; the pipeline of
chronos-forecasting instead follows every quantile and takes empirical quantiles of all (different numbers
beyond step 64).

The point forecast is the median.  States are the encoder's output without REG, [B, D, ceil(L / 16), d].
Option ``drop_dead`` builds the decoder without its dead weights: the same function, 6 to 7 % smaller.
Option ``fold_decoder`` has one matrix W_o W_v in their place (``without_dead_weights`` makes it from a
checkpoint, which cannot hold it).
Module names are upstream's, so state dicts load as they are.  The two tokens share a table, which stays
whole where a stream loses dims to pruning: it is [2, d], and the streams lose different ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...base.errors import TeacherError
from ...ir.forecaster import Teacher, TeacherOutputs
from ...ir.prunable import Group, Kept, Member, PrunableStructure, Span, Tap, residual_group
from ..base import Frontend
from ..blocks.layers import Entry, ResidualMlp, RmsNorm, project, sized_linear, value_group
from ..checkpoint import build_with, fill
from ..options import choose
from ..settings import Settings
from .cards import BOLT_CARDS

_MIN_SCALE = 1e-5


def relative_buckets(length: int, buckets: int, furthest: int) -> Tensor:
    """T5's bidirectional bucket of (key - query) for all pairs, ``[length, length]`` int64.

    Half of the buckets are for keys after the query.  Of each half, the first half holds one distance
    each, the rest grows logarithmically up to ``furthest``.
    """
    at = torch.arange(length)
    offset = at[None, :] - at[:, None]
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)
    far = (exact + growth.long()).clamp(max=half - 1)
    return (offset > 0).long() * half + torch.where(distance < exact, distance, far)


class _Sublayer(nn.Module):
    """``x + inner(norm(x), ...)``, with ``inner`` under upstream's name."""

    def __init__(self, name: str, inner: nn.Module, norm: RmsNorm) -> None:
        super().__init__()
        self.inner_name = name
        self.add_module(name, inner)
        self.layer_norm = norm

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        changed: Tensor = self.get_submodule(self.inner_name)(self.layer_norm(x), *rest)
        return x + changed


class _Feed(nn.Module):
    """``wo(relu(wi(x)))`` without biases."""

    reads: ClassVar[tuple[str, ...]] = ("wi",)
    writes: ClassVar[str] = "wo"

    def __init__(self, name: str, width: int, hidden: int, kept: Kept) -> None:
        super().__init__()
        self.name = name
        units = kept.count(name, hidden)
        self.wi = sized_linear(width, units, bias=False)
        self.wo = sized_linear(units, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # in place: a fresh buffer of this size costs more than the comparison
        return project(self.wo, self.wi(x).relu_() if self.wo.in_features else x[..., :0])

    def groups(self) -> Iterator[Group]:
        """The hidden channels."""
        yield Group(
            name=self.name,
            kind="ffn",
            units=self.wo.in_features,
            members=(Member(f"{self.name}.wi.weight", 0), Member(f"{self.name}.wo.weight", 1)),
            taps=(Tap(f"{self.name}.wo", "in"),),
        )


class _Heads(nn.Module):
    """The projections of unscaled multi-head attention; heads, query-key dims and value dims may be pruned.

    T5 does not rotate, so any query-key dim may go; all heads keep the same ones.
    """

    head_indices: Tensor
    matched: ClassVar[tuple[str, ...]] = ("q", "k")
    """Projections whose outputs are multiplied, so that a mask on either of them removes a dim."""
    reads: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    writes: ClassVar[str] = "o"

    def __init__(self, name: str, width: int, memory: int, heads: int, head_dim: int, kept: Kept) -> None:
        super().__init__()
        self.name = name
        living = kept.indices(f"{name}.heads", heads)
        self.whole = len(living) == heads
        self.heads = len(living)
        self.dims = kept.count(f"{name}.dims", head_dim)
        self.values = kept.count(f"{name}.values", head_dim)
        self.q = sized_linear(width, self.heads * self.dims, bias=False)
        self.k = sized_linear(memory, self.heads * self.dims, bias=False)
        self.v = sized_linear(memory, self.heads * self.values, bias=False)
        self.o = sized_linear(self.heads * self.values, width, bias=False)
        self.register_buffer("head_indices", torch.tensor(living, dtype=torch.long), persistent=False)

    def groups(self) -> Iterator[Group]:
        """Heads, query-key dims and value dims that still live."""
        if not self.o.in_features:
            return
        query, key, value, output = (f"{self.name}.{part}" for part in "qkvo")
        wide, deep = Span(stride=self.dims, width=self.dims), Span(stride=self.values, width=self.values)
        yield Group(
            name=f"{self.name}.heads",
            kind="head",
            units=self.heads,
            members=(
                Member(f"{query}.weight", 0, (wide,)),
                Member(f"{key}.weight", 0, (wide,)),
                Member(f"{value}.weight", 0, (deep,)),
                Member(f"{output}.weight", 1, (deep,)),
            ),
            taps=(Tap(output, "in", (deep,)), Tap(value, "out", (deep,))),
        )
        yield value_group(self.name, self.heads, self.values, value, output)
        one_each = tuple(Span(offset=head * self.dims) for head in range(self.heads))
        yield Group(
            name=f"{self.name}.dims",
            kind="rotary",
            units=self.dims,
            members=(Member(f"{query}.weight", 0, one_each), Member(f"{key}.weight", 0, one_each)),
            taps=tuple(Tap(f"{self.name}.{part}", "out", one_each) for part in self.matched),
            removable=False,
        )


class _SelfAttention(_Heads):
    """Attention of all tokens to all tokens."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``x [N, T, d]``, ``bias [N, published heads, T, T]``."""
        if not self.o.in_features:
            return project(self.o, x[..., :0])
        queries = self.q(x).reshape(x.shape[0], -1, self.heads, self.dims).transpose(1, 2)
        keys = self.k(x).reshape(x.shape[0], -1, self.heads, self.dims).permute(0, 2, 3, 1)
        values = self.v(x).reshape(x.shape[0], -1, self.heads, self.values).transpose(1, 2)
        bias = bias if self.whole else bias[:, self.head_indices]
        mixed = (queries @ keys + bias).softmax(-1) @ values
        result: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return result


class _CrossAttention(_Heads):
    """Attention of one token over a memory, which is neither turned into keys nor into values.

    Both projections are linear, so they act on the one query and on the h mixtures instead of on all tokens:
    q . (W_k m) = (W_k^T q) . m  and  sum_t a_t W_v m_t = W_v sum_t a_t m_t.  All heads go through one
    product with the whole matrix; a mask keeps the channels of each head's own.
    """

    own_dims: Tensor
    own_values: Tensor
    matched: ClassVar[tuple[str, ...]] = ("q",)
    reads: ClassVar[tuple[str, ...]] = ("q",)
    recalls: ClassVar[tuple[str, ...]] = ("k", "v")

    def __init__(self, name: str, width: int, memory: int, heads: int, head_dim: int, kept: Kept) -> None:
        super().__init__(name, width, memory, heads, head_dim, kept)
        each = torch.eye(self.heads)
        self.register_buffer("own_dims", each.repeat_interleave(self.dims, 1), persistent=False)
        self.register_buffer("own_values", each.repeat_interleave(self.values, 1), persistent=False)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor) -> Tensor:
        """``x [N, 1, d]``, additive ``mask [N, 1, T]``, ``memory [N, T, d]``."""
        if not self.o.in_features:
            return project(self.o, x[..., :0])
        asked = (self.q(x) * self.own_dims) @ self.k.weight
        shares = (asked @ memory.transpose(1, 2) + mask).softmax(-1)
        mixed = (self.v(shares @ memory) * self.own_values).sum(1, keepdim=True)
        result: Tensor = self.o(mixed)
        return result


class _OneToken(nn.Module):
    """Self-attention of a single token, o(v(x)); q, k and the bias are there for the file's sake only.

    ``folded``: o is the one matrix W_o W_v ``[d, d]``, and there is no v.
    """

    writes: ClassVar[str] = "o"

    def __init__(
        self,
        name: str,
        width: int,
        inner: int,
        table: nn.Module | None,
        kept: Kept,
        *,
        dead: bool,
        folded: bool,
    ) -> None:
        super().__init__()
        self.name = name
        self.folded = folded
        if folded:
            self.o = nn.Linear(width, width, bias=False)
            return
        units = kept.count(f"{name}.values", inner)
        if dead:
            self.q = nn.Linear(width, inner, bias=False)
            self.k = nn.Linear(width, inner, bias=False)
        self.v = sized_linear(width, units, bias=False)
        self.o = sized_linear(units, width, bias=False)
        if dead and table is not None:
            self.relative_attention_bias = table

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return project(self.o, x)
        return project(self.o, self.v(x) if self.o.in_features else x[..., :0])

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers that read the stream, dead ones too."""
        return tuple(part for part in "qkv" if hasattr(self, part)) or ("o",)

    def groups(self) -> Iterator[Group]:
        """The channels between v and o; each is a unit of its own, whatever its head."""
        if self.folded:
            return
        yield Group(
            name=f"{self.name}.values",
            kind="value",
            units=self.o.in_features,
            members=(Member(f"{self.name}.v.weight", 0), Member(f"{self.name}.o.weight", 1)),
            taps=(Tap(f"{self.name}.o", "in"), Tap(f"{self.name}.v", "out")),
        )


class _Sizes:
    """The sizes of a T5 that all of its parts share.

    ``width`` is the published one; ``encoder`` and ``decoder`` are the dims of the streams that live.
    """

    def __init__(self, settings: Settings) -> None:
        self.width = settings.integer("d_model")
        self.hidden = settings.integer("d_ff")
        self.heads = settings.integer("num_heads")
        self.head_dim = settings.integer("d_kv")
        self.layers = settings.integer("num_layers")
        self.decoder_layers = settings.integer("num_decoder_layers", self.layers)
        self.buckets = settings.integer("relative_attention_num_buckets", 32, minimum=4)
        self.furthest = settings.integer("relative_attention_max_distance", 128)
        self.eps = settings.number("layer_norm_epsilon", 1e-6)
        self.kept = Kept(settings.config)
        self.encoder = self.kept.indices("encoder.residual", self.width)
        self.decoder = self.kept.indices("decoder.residual", self.width)

    def bias_table(self) -> nn.Embedding:
        return nn.Embedding(self.buckets, self.heads)

    def norm(self, width: int) -> RmsNorm:
        return RmsNorm(width, self.eps, self.width)

    def block(self, width: int, *inner: tuple[str, nn.Module]) -> nn.ModuleDict:
        parts = (_Sublayer(name, module, self.norm(width)) for name, module in inner)
        return nn.ModuleDict({"layer": nn.ModuleList(parts)})


class _Encoder(nn.Module):
    """T5 encoder over at most ``tokens`` tokens."""

    buckets: Tensor

    def __init__(self, sizes: _Sizes, tokens: int) -> None:
        super().__init__()
        width = len(sizes.encoder)
        self.entry = Entry(width)
        self.block = nn.ModuleList()
        for at in range(sizes.layers):
            name = f"encoder.block.{at}.layer"
            attention = _SelfAttention(
                f"{name}.0.SelfAttention", width, width, sizes.heads, sizes.head_dim, sizes.kept
            )
            if at == 0:
                attention.relative_attention_bias = sizes.bias_table()
            feed = _Feed(f"{name}.1.DenseReluDense", width, sizes.hidden, sizes.kept)
            self.block.append(sizes.block(width, ("SelfAttention", attention), ("DenseReluDense", feed)))
        self.final_layer_norm = sizes.norm(width)
        buckets = relative_buckets(tokens, sizes.buckets, sizes.furthest)
        self.register_buffer("buckets", buckets, persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [N, T, d]`` under the additive ``mask [N, 1, 1, T]``."""
        tokens = x.shape[1]
        first = cast("Any", self.block[0])["layer"][0].SelfAttention
        bias = first.relative_attention_bias(self.buckets[:tokens, :tokens]).permute(2, 0, 1) + mask
        x = self.entry(x)
        for block in self.block:
            attend, feed = cast("Any", block)["layer"]
            x = feed(attend(x, bias))
        normed: Tensor = self.final_layer_norm(x)
        return normed


class _Decoder(nn.Module):
    """T5 decoder over one token."""

    def __init__(self, sizes: _Sizes, *, dead: bool, folded: bool) -> None:
        super().__init__()
        inner, width, memory = sizes.heads * sizes.head_dim, len(sizes.decoder), len(sizes.encoder)
        self.entry = Entry(width)
        self.block = nn.ModuleList()
        for at in range(sizes.decoder_layers):
            name = f"decoder.block.{at}.layer"
            table = sizes.bias_table() if at == 0 else None
            own = _OneToken(
                f"{name}.0.SelfAttention", width, inner, table, sizes.kept, dead=dead, folded=folded
            )
            cross = _CrossAttention(
                f"{name}.1.EncDecAttention", width, memory, sizes.heads, sizes.head_dim, sizes.kept
            )
            feed = _Feed(f"{name}.2.DenseReluDense", width, sizes.hidden, sizes.kept)
            parts = (("SelfAttention", own), ("EncDecAttention", cross), ("DenseReluDense", feed))
            self.block.append(sizes.block(width, *parts))
        self.final_layer_norm = sizes.norm(width)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor) -> Tensor:
        """``x [N, 1, d]`` reading ``memory [N, T, d]`` under the additive ``mask [N, 1, 1, T]``."""
        x = self.entry(x)
        for block in self.block:
            own, cross, feed = cast("Any", block)["layer"]
            x = feed(cross(own(x), mask[:, 0], memory))
        normed: Tensor = self.final_layer_norm(x)
        return normed


class ChronosBolt(Teacher):
    """A Chronos-Bolt forecaster; see the module docstring.

    Args:
        settings: the checkpoint's configuration.
        drop_dead: build the decoder's self-attention without the weights that have no effect.
        fold_decoder: build it as one matrix; implies ``drop_dead``.
    """

    encoder_dims: Tensor | None
    decoder_dims: Tensor | None

    def __init__(
        self,
        settings: Settings,
        *,
        lookback: int,
        horizon: int,
        variates: int,
        drop_dead: bool,
        fold_decoder: bool,
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        chronos = settings.table("chronos_config")
        self.quantile_levels = chronos.levels("quantiles")
        if 0.5 not in self.quantile_levels:
            raise TeacherError("chronos-bolt config: quantiles lacks 0.5, which the point forecast is")
        self.median = self.quantile_levels.index(0.5)
        self.patch = chronos.integer("input_patch_size")
        chronos.only("input_patch_stride", self.patch)
        self.context = chronos.integer("context_length", minimum=self.patch)
        self.steps = chronos.integer("prediction_length")
        self.has_reg = bool(chronos.config.get("use_reg_token", False))
        self.start = settings.integer("decoder_start_token_id", 0, minimum=0)
        sizes = _Sizes(settings)
        self.shared = nn.Embedding(2 if self.has_reg else 1, sizes.width)
        self.input_patch_embedding = ResidualMlp(
            "input_patch_embedding", 2 * self.patch, sizes.hidden, len(sizes.encoder), sizes.kept, torch.relu
        )
        for stack, dims in (("encoder", sizes.encoder), ("decoder", sizes.decoder)):
            living = torch.tensor(dims) if len(dims) < sizes.width else None
            self.register_buffer(f"{stack}_dims", living, persistent=False)
        longest = min(lookback + (self._passes() - 1) * self.steps, self.context)
        self.encoder = _Encoder(sizes, -(-longest // self.patch) + self.has_reg)
        self.fold_decoder = fold_decoder
        self.decoder = _Decoder(sizes, dead=not drop_dead, folded=fold_decoder)
        self.output_patch_embedding = ResidualMlp(
            "output_patch_embedding",
            len(sizes.decoder),
            sizes.hidden,
            len(self.quantile_levels) * self.steps,
            sizes.kept,
            torch.relu,
        )
        if drop_dead:
            dead = [f"decoder.block.{at}.layer.0.SelfAttention" for at in range(sizes.decoder_layers)]
            self.dead_tensors = frozenset(
                [f"{name}.{part}.weight" for name in dead for part in ("q", "k")]
                + [f"{dead[0]}.relative_attention_bias.weight"]
            )

    def _passes(self) -> int:
        return -(-self.horizon // self.steps)

    def forward(self, past: Tensor) -> Tensor:
        return self.quantiles(past)[..., self.median]

    def quantiles(self, past: Tensor) -> Tensor:
        return cast("Tensor", self.outputs(past, states=False).quantiles)

    def states(self, past: Tensor) -> Tensor:
        hidden = self._encode(past.reshape(-1, past.shape[-1]))[0]
        return self._patches_only(hidden).reshape(past.shape[0], self.variates, -1, hidden.shape[-1])

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        context = past.reshape(-1, past.shape[-1])
        blocks: list[Tensor] = []
        seen: Tensor | None = None
        for at in range(self._passes()):
            hidden, mask, mean, scale = self._encode(context)
            if states and at == 0:
                seen = self._patches_only(hidden).reshape(past.shape[0], self.variates, -1, hidden.shape[-1])
            blocks.append(self._decode(hidden, mask) * scale.unsqueeze(-1) + mean.unsqueeze(-1))
            context = torch.cat([context, blocks[-1][:, self.median]], 1)
        ahead = torch.cat(blocks, -1)[..., : self.horizon].transpose(1, 2)
        quantiles = ahead.reshape(past.shape[0], self.variates, self.horizon, -1)
        return TeacherOutputs(forecast=quantiles[..., self.median], quantiles=quantiles, states=seen)

    def _patches_only(self, hidden: Tensor) -> Tensor:
        return hidden[:, :-1] if self.has_reg else hidden

    def _encode(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encoder output ``[N, T, d]``, additive mask ``[N, 1, 1, T]``, mean and scale ``[N, 1]``."""
        context = context[:, -self.context :]
        seen = context.isnan().logical_not()
        count = seen.sum(-1, keepdim=True)
        mean = context.where(seen, 0.0).sum(-1, keepdim=True) / count.clamp(min=1)
        centred = (context - mean).where(seen, 0.0)
        scale = (centred.square().sum(-1, keepdim=True) / count.clamp(min=1)).sqrt()
        scale = scale.where(scale != 0, _MIN_SCALE).where(count > 0, 1.0)

        padding = (-context.shape[1] % self.patch, 0)
        observed = functional.pad(seen.to(context), padding).reshape(context.shape[0], -1, self.patch)
        values = functional.pad(centred / scale, padding).reshape(context.shape[0], -1, self.patch)
        tokens = self.input_patch_embedding(torch.cat([values, observed], -1))
        visible = observed.amax(-1)
        if self.has_reg:
            tokens = torch.cat([tokens, self._token(1, self.encoder_dims, context.shape[0])], 1)
            visible = functional.pad(visible, (0, 1), value=1.0)
        mask = ((1.0 - visible) * torch.finfo(tokens.dtype).min)[:, None, None]
        return self.encoder(tokens, mask), mask, mean, scale

    def _decode(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Normalised quantiles ``[N, Q, 64]`` of the next block."""
        token = self._token(self.start, self.decoder_dims, hidden.shape[0])
        ahead = self.output_patch_embedding(self.decoder(token, mask, hidden))
        quantiles: Tensor = ahead.reshape(-1, len(self.quantile_levels), self.steps)
        return quantiles

    def _token(self, row: int, dims: Tensor | None, samples: int) -> Tensor:
        """A learned token ``[samples, 1, d]``; of the dims that live."""
        token = self.shared.weight[row]
        return (token if dims is None else token[dims]).expand(samples, 1, -1)

    def without_dead_weights(self) -> Teacher:
        """One matrix per decoder block in place of its self-attention, unless v and o are smaller by now."""
        if self.fold_decoder:
            return self
        own = {name: part for name, part in self.named_modules() if isinstance(part, _OneToken)}
        fold = all(2 * part.o.in_features >= part.o.out_features for part in own.values())
        state = {
            name: tensor.detach().clone()
            for name, tensor in self.state_dict().items()
            if name.rpartition("SelfAttention.")[0] + "SelfAttention" not in own
        }
        for name, part in own.items():
            wide, narrow = part.o.weight.detach(), part.v.weight.detach()
            state[f"{name}.o.weight"] = (wide.double() @ narrow.double()).to(wide) if fold else wide.clone()
            if not fold:
                state[f"{name}.v.weight"] = narrow.clone()
        smaller = build_with(FRONTEND, self.config, drop_dead=True, fold_decoder=fold)
        fill(smaller, state, "teacher")
        return smaller

    def structure(self) -> PrunableStructure:
        inside = (
            group
            for module in self.modules()
            if isinstance(module, _Heads | _OneToken | _Feed | ResidualMlp)
            for group in module.groups()
            if group.units
        )
        return PrunableStructure((*inside, self._encoder_stream(), self._decoder_stream()))

    def _encoder_stream(self) -> Group:
        """The dims of the encoder's residual stream; the decoder's cross-attention reads its output."""
        recalling = [part for part in self.decoder.modules() if isinstance(part, _CrossAttention)]
        return _stream(
            "encoder",
            self.encoder,
            entering=self.input_patch_embedding.outputs(),
            leaving=(Member(f"{part.name}.{at}.weight", 1) for part in recalling for at in part.recalls),
        )

    def _decoder_stream(self) -> Group:
        """The dims of the decoder's residual stream, which begins with a constant token."""
        leaving = self.output_patch_embedding.inputs()
        return _stream("decoder", self.decoder, entering=(), leaving=leaving)


def _stream(
    name: str, stack: _Encoder | _Decoder, *, entering: Iterable[Member], leaving: Iterable[Member]
) -> Group:
    """The dims of the residual stream of the stack ``name``."""
    inner = [part for part in stack.modules() if isinstance(part, _Heads | _OneToken | _Feed)]
    return residual_group(
        f"{name}.residual",
        stack.entry.channels,
        entry=f"{name}.entry",
        entering=entering,
        branches=(f"{part.name}.{part.writes}" for part in inner),
        readers=(f"{part.name}.{at}" for part in inner for at in part.reads),
        norms=(f"{name}.{at}" for at, part in stack.named_modules() if isinstance(part, RmsNorm)),
        leaving=leaving,
    )


class ChronosBoltFrontend(Frontend):
    """Chronos-Bolt checkpoints of any size."""

    family = "chronos-bolt"
    cards = BOLT_CARDS
    licence = "Apache-2.0"
    commercial = True

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return "ChronosBoltModelForForecasting" in (config.get("architectures") or ())

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        choices = {"drop_dead": (False, True), "fold_decoder": (False, True)}
        chosen = choose(self.family, options, choices)
        chosen["drop_dead"] |= chosen["fold_decoder"]
        settings = Settings(self.family, config)
        settings.only("dense_act_fn", "relu")
        settings.only("is_gated_act", False)
        teacher = ChronosBolt(settings, lookback=lookback, horizon=horizon, variates=variates, **chosen)
        teacher.options = chosen
        return teacher

    def rename(self, state: dict[str, Any]) -> dict[str, Any]:
        """Drops the copies of ``shared.weight`` that some writers store under its tied names."""
        tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        shared = state.get("shared.weight")
        return {
            name: tensor
            for name, tensor in state.items()
            if not (name in tied and shared is not None and torch.equal(tensor, shared))
        }


FRONTEND = ChronosBoltFrontend()
