"""Time-MoE: a causal decoder over single time steps with a sparse mixture of experts.

Source: parity with the authors' code.  One token is one time step:

    x_0 = silu(gate s) * emb s
    x  <- x + attention(rms(x))
    x  <- x + sum over the top-2 experts e of p_e expert_e(rms(x)) + sigmoid(g rms(x)) shared(rms(x))

with p the softmax over all experts; the two largest are used as they are, not renormalised.  A head
of h steps reads the last token; longer horizons append the forecast and go on (96 = 64 + 32).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import TeacherError
from ..ir.forecaster import Teacher, TeacherOutputs
from ..ir.prunable import Group, Kept, Member, PrunableStructure, Tap, residual_group
from .base import Frontend, TeacherCard
from .blocks.decoder import (
    KeysValues,
    Normalize,
    RotaryAttention,
    check_heads,
    head_lengths,
    normalised,
    plan_heads,
    structure_of,
)
from .blocks.layers import Entry, GatedFfn, RmsNorm
from .checkpoint import rebuild_with
from .options import choose
from .settings import Settings

Evaluation = Literal["auto", "sparse", "dense"]
"""How experts are evaluated: ``sparse`` runs each on the tokens that chose it (the shapes depend on
the data), ``dense`` runs all on all tokens and weights the others with zero (static, for export and
for transforms that trace); ``auto`` is dense while a program is being exported, else sparse."""

STREAM = "model.residual"
"""Group of the dims of the residual stream."""


class MixtureOfExperts(nn.Module):
    """Routed experts plus one shared expert behind a sigmoid gate.

    A surviving expert keeps its published number in the state dict.  With fewer than ``top_k``
    survivors all of them are chosen; the softmax runs over the survivors.
    """

    def __init__(
        self,
        name: str,
        width: int,
        units: int,
        experts: int,
        top_k: int,
        evaluation: Evaluation,
        kept: Kept,
    ) -> None:
        super().__init__()
        self.name = name
        self.evaluation = evaluation
        numbers = kept.indices(f"{name}.experts", experts)
        self.top_k = min(top_k, len(numbers))
        self.gate = nn.Linear(width, len(numbers), bias=False)
        self.experts = nn.ModuleDict(
            {str(e): GatedFfn(f"{name}.experts.{e}", width, units // top_k, kept) for e in numbers}
        )
        self.shared_expert = GatedFfn(f"{name}.shared_expert", width, units, kept)
        self.shared_expert_gate = nn.Linear(width, 1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[N, T, d]`` to ``[N, T, d]``."""
        flat = tokens.flatten(0, 1)
        probabilities = F.softmax(self.gate(flat), dim=-1)
        shares, chosen = probabilities.topk(self.top_k, dim=-1)
        dense = self.evaluation == "dense" or (self.evaluation == "auto" and torch.compiler.is_exporting())
        routed = (self._dense if dense else self._sparse)(flat, shares, chosen)
        shared: Tensor = torch.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return (routed + shared).view_as(tokens)

    def _sparse(self, flat: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
        """Tokens sorted by expert, one contiguous group an expert, and added back."""
        choice = chosen.flatten()
        order = choice.argsort(stable=True)
        token = order // self.top_k
        counts = torch.bincount(choice, minlength=len(self.experts)).tolist()
        groups = torch.split(flat[token], counts)
        outputs = torch.cat(
            [expert(group) for expert, group in zip(self.experts.values(), groups, strict=True)]
        )
        return torch.zeros_like(flat).index_add(0, token, outputs * shares.flatten()[order, None])

    def _dense(self, flat: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
        """All experts on all tokens, weighted with zero where they were not chosen."""
        weights = flat.new_zeros(flat.shape[0], len(self.experts)).scatter(-1, chosen, shares)
        routed = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts.values()):
            routed = routed + weights[:, i : i + 1] * expert(flat)
        return routed

    def groups(self) -> Iterator[Group]:
        """Whole experts with their router rows, and the hidden units of each expert on its own."""
        experts = [cast(GatedFfn, expert) for expert in self.experts.values()]
        yield Group(
            name=f"{self.name}.experts",
            kind="expert",
            units=len(experts),
            members=(
                Member(f"{self.name}.gate.weight", 0),
                *(
                    Member(f"{expert.name}.{part}.weight", owner=i)
                    for i, expert in enumerate(experts)
                    for part in expert.parts
                ),
            ),
            taps=(Tap(f"{self.name}.gate", "out"),),
            removable=False,
            chosen=self.top_k,
        )
        for expert in (*experts, self.shared_expert):
            yield from expert.groups()


class DecoderLayer(nn.Module):
    """Pre-norm attention and pre-norm mixture of experts."""

    def __init__(self, name: str, settings: Settings, positions: int, evaluation: Evaluation) -> None:
        super().__init__()
        published, kept = settings.integer("hidden_size"), Kept(settings.config)
        width = kept.count(STREAM, published)
        self.self_attn = RotaryAttention(
            f"{name}.self_attn",
            published,
            settings.integer("num_attention_heads"),
            positions,
            settings.number("rope_theta", 10000),
            kept,
            width,
        )
        self.ffn_layer = MixtureOfExperts(
            f"{name}.ffn_layer",
            width,
            settings.integer("intermediate_size"),
            settings.integer("num_experts"),
            settings.integer("num_experts_per_tok"),
            evaluation,
            kept,
        )
        self.input_layernorm = _norm(settings)
        self.post_attention_layernorm = _norm(settings)

    def forward(
        self, tokens: Tensor, seen: KeysValues | None, start: int, queries: int
    ) -> tuple[Tensor, KeysValues | None]:
        """See ``RotaryAttention.forward``."""
        mixed, seen = self.self_attn(self.input_layernorm(tokens), seen, start, queries)
        tokens = tokens[:, -queries:] + mixed
        return tokens + self.ffn_layer(self.post_attention_layernorm(tokens)), seen


def _norm(settings: Settings) -> RmsNorm:
    """A norm of the residual stream."""
    width = settings.integer("hidden_size")
    return RmsNorm(Kept(settings.config).count(STREAM, width), settings.number("rms_norm_eps", 1e-6), width)


class PointEmbedding(nn.Module):
    """A gated linear embedding of one value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb_layer = nn.Linear(1, width, bias=False)
        self.gate_layer = nn.Linear(1, width, bias=False)

    def forward(self, series: Tensor) -> Tensor:
        """``[N, T]`` to ``[N, T, d]``."""
        values = series.unsqueeze(-1)
        tokens: Tensor = F.silu(self.gate_layer(values)) * self.emb_layer(values)
        return tokens


class Decoder(nn.Module):
    """Embedding, layers and the final norm."""

    def __init__(self, settings: Settings, positions: int, evaluation: Evaluation) -> None:
        super().__init__()
        width = Kept(settings.config).count(STREAM, settings.integer("hidden_size"))
        self.embed_layer = PointEmbedding(width)
        self.entry = Entry(width)
        self.layers = nn.ModuleList(
            DecoderLayer(f"model.layers.{i}", settings, positions, evaluation)
            for i in range(settings.integer("num_hidden_layers"))
        )
        self.norm = _norm(settings)

    def forward(
        self, series: Tensor, seen: list[KeysValues | None], start: int, queries: int
    ) -> tuple[Tensor, list[KeysValues | None]]:
        """States of the last ``queries`` of the new values ``[N, T]``: ``[N, queries, d]``.

        ``seen`` has the keys and values of the ``start`` values before, one entry a layer.  Below the
        last layer every token is needed, in the last one only those that are asked for.
        """
        tokens, now = self.entry(self.embed_layer(series)), []
        for layer, before in zip(self.layers, seen, strict=True):
            last = layer is self.layers[-1]
            tokens, after = layer(tokens, before, start, queries if last else tokens.shape[1])
            now.append(after)
        return self.norm(tokens), now


class Head(nn.Module):
    """A linear map from the last state to ``steps`` values."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.out_layer = nn.Linear(width, steps, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., steps]``."""
        values: Tensor = self.out_layer(states)
        return values


class TimeMoe(Teacher):
    """Time-MoE with fixed lookback and horizon; each variate is forecast on its own.

    Args:
        settings: upstream's ``config.json``, with ``tsfmc.kept`` after pruning.
        lookback: L, in steps (one token each).
        horizon: H; the passes of the roll-out reuse the keys and values of the tokens before.
        variates: D.
        normalize: ``window`` is the recipe of the authors' README, ``(x - mean) / std`` over the lookback
            with unbiased std, undone on the forecast; the model was trained on such series and has no
            normalisation inside, so it is the default.  The recipe has no epsilon, nor has this; a
            constant window (std 0) is divided by 1 and forecast as that constant.  ``none`` feeds
            ``past`` as it is, as the authors' evaluation and DistilTS do with series scaled by their
            training split.
        experts: see ``Evaluation``.
        used_heads_only: build the heads that this horizon uses, without the others.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        lookback: int,
        horizon: int,
        variates: int,
        normalize: Normalize,
        experts: Evaluation,
        used_heads_only: bool,
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.normalize = normalize
        lengths = head_lengths(settings, "horizon_lengths")
        self.plan = plan_heads(lengths, horizon)
        self.model = Decoder(settings, lookback + horizon, experts)
        width, needed = self.model.entry.channels, {head for head, _ in self.plan}
        self.lm_heads = nn.ModuleDict(
            {
                str(i): Head(width, steps)
                for i, steps in enumerate(lengths)
                if i in needed or not used_heads_only
            }
        )
        self.dead_tensors = frozenset(
            f"lm_heads.{i}.out_layer.weight" for i in range(len(lengths)) if str(i) not in self.lm_heads
        )

    def forward(self, past: Tensor) -> Tensor:
        """Point forecast ``[B, D, H]`` of ``past [B, D, L]``."""
        return self._roll_out(past, states=1)[0]

    def states(self, past: Tensor) -> Tensor:
        """Last-layer states after the final norm ``[B, D, L, d]``, of the first pass."""
        series, _, _ = normalised(past.flatten(0, 1), self.normalize)
        hidden, _ = self.model(series, [None] * len(self.model.layers), 0, self.lookback)
        return self._by_variate(hidden)

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Forecast and states in one evaluation."""
        forecast, hidden = self._roll_out(past, states=self.lookback if states else 1)
        return TeacherOutputs(forecast, states=self._by_variate(hidden) if states else None)

    def structure(self) -> PrunableStructure:
        """Heads, value dims and rotary pairs of attention, experts and the units of each, and the stream."""
        return PrunableStructure((*structure_of(self.model.layers).groups, self._stream()))

    def _stream(self) -> Group:
        """The dims of the residual stream."""
        branches, readers = [], []
        for i, layer in enumerate(self.model.layers):
            attention, mixture = f"model.layers.{i}.self_attn", cast(DecoderLayer, layer).ffn_layer
            ffns = [cast(GatedFfn, ffn) for ffn in (*mixture.experts.values(), mixture.shared_expert)]
            branches += [f"{attention}.o_proj", *(f"{ffn.name}.{ffn.parts[-1]}" for ffn in ffns)]
            readers += [f"{attention}.{part}_proj" for part in "qkv"]
            readers += [f"{mixture.name}.gate", f"{mixture.name}.shared_expert_gate"]
            readers += [f"{ffn.name}.{part}" for ffn in ffns for part in ffn.parts[:-1]]
        embedding = (f"model.embed_layer.{part}_layer.weight" for part in ("emb", "gate"))
        return residual_group(
            STREAM,
            self.model.entry.channels,
            entry="model.entry",
            entering=(Member(name, 0) for name in embedding),
            branches=branches,
            readers=(*readers, *(f"lm_heads.{i}.out_layer" for i in self.lm_heads)),
            norms=(name for name, part in self.named_modules() if isinstance(part, RmsNorm)),
        )

    def without_dead_weights(self) -> Teacher:
        """Without the heads that this horizon does not use."""
        used = {str(head) for head, _ in self.plan}
        return self if set(self.lm_heads) == used else rebuild_with(FRONTEND, self, used_heads_only=True)

    @contextmanager
    def sample_major(self) -> Iterator[None]:
        """Dense experts: sparse evaluation sorts the tokens of all samples by expert."""
        mixtures = [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
        before = [mixture.evaluation for mixture in mixtures]
        for mixture in mixtures:
            mixture.evaluation = "dense"
        try:
            yield
        finally:
            for mixture, evaluation in zip(mixtures, before, strict=True):
                mixture.evaluation = evaluation

    def _roll_out(self, past: Tensor, *, states: int) -> tuple[Tensor, Tensor]:
        """The forecast ``[B, D, H]`` and the lookback's last ``states`` states ``[B * D, states, d]``."""
        series, mean, std = normalised(past.flatten(0, 1), self.normalize)
        hidden, seen = self.model(series, [None] * len(self.model.layers), 0, states)
        forecast: list[Tensor] = []
        context, start = hidden, self.lookback
        for i, (head, steps) in enumerate(self.plan):
            if i:
                hidden, seen = self.model(forecast[-1], seen, start, 1)
                start += forecast[-1].shape[1]
            forecast.append(self.lm_heads[str(head)](hidden[:, -1])[:, :steps])
        return self._by_variate(torch.cat(forecast, dim=-1) * std + mean), context

    def _by_variate(self, values: Tensor) -> Tensor:
        """``[B * D, ...]`` to ``[B, D, ...]``."""
        return values.reshape(-1, self.variates, *values.shape[1:])


class TimeMoeFrontend(Frontend):
    """Time-MoE 50M and 200M; the revisions are the commits of sktime's reference forecasts."""

    family: ClassVar[str] = "time-moe"
    licence: ClassVar[str] = "Apache-2.0"
    commercial: ClassVar[bool] = True
    cards: ClassVar[tuple[TeacherCard, ...]] = tuple(
        TeacherCard(
            name=f"time-moe-{size.lower()}",
            family="time-moe",
            repo_id=f"Maple728/TimeMoE-{size}",
            revision=commit,
            parameters=parameters,
            context=4096,
            licence="Apache-2.0",
            commercial=True,
            quantiles=False,
            config={
                "model_type": "time_moe",
                "input_size": 1,
                "hidden_size": width,
                "intermediate_size": 4 * width,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "num_key_value_heads": 12,
                "num_experts": 8,
                "num_experts_per_tok": 2,
                "horizon_lengths": [1, 8, 32, 64],
                "hidden_act": "silu",
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-6,
                "rope_theta": 10000,
                "use_dense": False,
            },
        )
        for size, width, parameters, commit in (
            ("50M", 384, 113_352_192, "446753ee48ff3726d0606a81d0092d54acee995e"),
            ("200M", 768, 453_196_800, "794591bfeb1225fdf742cec0f4c71f20c3f3b87e"),
        )
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By ``model_type``."""
        return config.get("model_type") == "time_moe"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> TimeMoe:
        """See ``Frontend.build``; options: ``normalize``, ``experts``, ``used_heads_only`` of ``TimeMoe``."""
        settings = Settings(self.family, config)
        chosen = choose(
            self.family,
            options,
            {
                "normalize": get_args(Normalize),
                "experts": get_args(Evaluation),
                "used_heads_only": (False, True),
            },
        )
        check_heads(settings)
        settings.only("input_size", 1)
        settings.only("hidden_act", "silu")
        settings.only("use_dense", False)
        settings.only("num_key_value_heads", settings.integer("num_attention_heads"))
        if lookback < 2 and chosen["normalize"] == "window":
            raise TeacherError(
                f"{self.family}: lookback is {lookback}, expected at least 2 steps to take a deviation of",
                hint="or normalize='none'",
            )
        longest = settings.integer("max_position_embeddings", 4096)
        if lookback + horizon > longest:
            raise TeacherError(
                f"{self.family}: lookback {lookback} + horizon {horizon} are {lookback + horizon} steps, "
                f"expected at most {longest} (max_position_embeddings)",
                hint=f"use a lookback of at most {longest - horizon}" if horizon < longest else "",
            )
        teacher = TimeMoe(settings, lookback=lookback, horizon=horizon, variates=variates, **chosen)
        teacher.options = chosen
        return teacher


FRONTEND = TimeMoeFrontend()
