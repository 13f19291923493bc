"""Timer: a causal decoder over tokens of 96 steps.

Source: parity with the authors' code.  Post-norm layers:

    x <- layernorm(x + attention(x));  x <- layernorm(x + down(silu(gate x) * up x))

and a linear head from the last token to the next 96 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from ..base.errors import TeacherError
from ..ir.forecaster import Teacher, TeacherOutputs
from ..ir.prunable import Kept, PrunableStructure
from .base import Frontend, TeacherCard
from .blocks.decoder import (
    Normalize,
    RotaryAttention,
    check_heads,
    head_lengths,
    normalised,
    plan_heads,
    structure_of,
)
from .blocks.layers import GatedFfn
from .options import choose
from .settings import Settings

ROTARY_BASE = 10000
"""Upstream reads no other base, whatever ``rope_theta`` says."""


class DecoderLayer(nn.Module):
    """Post-norm attention and post-norm gated FFN."""

    def __init__(self, name: str, settings: Settings, positions: int) -> None:
        super().__init__()
        width, kept = settings.integer("hidden_size"), Kept(settings.config)
        heads = settings.integer("num_attention_heads")
        self.self_attn = RotaryAttention(f"{name}.self_attn", width, heads, positions, ROTARY_BASE, kept)
        self.ffn_layer = GatedFfn(f"{name}.ffn_layer", width, settings.integer("intermediate_size"), kept)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, queries: int) -> Tensor:
        """Outputs ``[N, queries, d]`` of the last ``queries`` of ``tokens [N, T, d]``."""
        mixed, _ = self.self_attn(tokens, None, 0, queries)
        tokens = self.norm1(tokens[:, -queries:] + mixed)
        normed: Tensor = self.norm2(tokens + self.ffn_layer(tokens))
        return normed


class PatchEmbedding(nn.Module):
    """A linear embedding of ``steps`` values."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.steps = steps
        self.emb = nn.Linear(steps, width, bias=False)

    def forward(self, series: Tensor) -> Tensor:
        """``[N, T * steps]`` to ``[N, T, d]``."""
        tokens: Tensor = self.emb(series.reshape(series.shape[0], -1, self.steps))
        return tokens


class Decoder(nn.Module):
    """Embedding, layers and the final norm."""

    def __init__(self, settings: Settings, positions: int) -> None:
        super().__init__()
        width = settings.integer("hidden_size")
        self.embed_layer = PatchEmbedding(settings.integer("input_token_len"), width)
        self.layers = nn.ModuleList(
            DecoderLayer(f"model.layers.{i}", settings, positions)
            for i in range(settings.integer("num_hidden_layers"))
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, series: Tensor, *, every: bool) -> Tensor:
        """States of all tokens, or of the last one only, of ``series [N, L]``: ``[N, S or 1, d]``."""
        tokens = self.embed_layer(series)
        for layer in self.layers:
            narrow = layer is self.layers[-1] and not every
            tokens = layer(tokens, 1 if narrow else tokens.shape[1])
        states: Tensor = self.norm(tokens)
        return states


class Timer(Teacher):
    """Timer with fixed lookback and horizon; each variate is forecast on its own.

    Args:
        settings: upstream's ``config.json``, with ``tsfmc.kept`` after pruning.
        lookback: L, a multiple of the token length (96).
        horizon: H.  Up to 96 one pass; beyond, the forecast is appended and the whole series goes through
            again, normalised anew in every pass as upstream's forward does it.  (Upstream's own
            ``generate`` with a key-value cache normalises the appended token by itself alone; that is
            not copied.)  Because every pass changes the normalisation there is nothing to cache.
        variates: D.
        normalize: ``window``, the default, is upstream's ``revin``: ``(x - mean) / std`` over the series of
            the pass with unbiased std and no epsilon, undone on its forecast; a constant window (std 0) is
            divided by 1 and forecast as that constant.  ``none`` feeds ``past`` as it is.
    """

    def __init__(
        self, settings: Settings, *, lookback: int, horizon: int, variates: int, normalize: Normalize
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.normalize = normalize
        lengths = head_lengths(settings, "output_token_lens")
        self.plan = plan_heads(lengths, horizon)
        self.model = Decoder(settings, (lookback + horizon) // settings.integer("input_token_len") + 1)
        self.lm_heads = nn.ModuleList(
            nn.Linear(settings.integer("hidden_size"), steps, bias=False) for steps in lengths
        )

    def forward(self, past: Tensor) -> Tensor:
        """Point forecast ``[B, D, H]`` of ``past [B, D, L]``."""
        return self._roll_out(past, states=False)[0]

    def states(self, past: Tensor) -> Tensor:
        """States of the tokens after the final norm ``[B, D, L / 96, d]``, of the first pass."""
        series, _, _ = normalised(past.flatten(0, 1), self.normalize)
        return self._by_variate(self.model(series, every=True))

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Forecast and states in one evaluation."""
        forecast, hidden = self._roll_out(past, states=states)
        return TeacherOutputs(forecast, states=self._by_variate(hidden) if states else None)

    def structure(self) -> PrunableStructure:
        """Heads, value dims and rotary pairs of every attention, and the units of every FFN."""
        return structure_of(self.model.layers)

    def _roll_out(self, past: Tensor, *, states: bool) -> tuple[Tensor, Tensor]:
        """The forecast ``[B, D, H]`` and the first pass's states ``[B * D, S or 1, d]``."""
        series = past.flatten(0, 1)
        first: Tensor | None = None
        for head, steps in self.plan:
            scaled, mean, std = normalised(series, self.normalize)
            hidden = self.model(scaled, every=states and first is None)
            first = hidden if first is None else first
            series = torch.cat([series, self.lm_heads[head](hidden[:, -1])[:, :steps] * std + mean], dim=-1)
        return self._by_variate(series[:, self.lookback :]), cast(Tensor, first)

    def _by_variate(self, values: Tensor) -> Tensor:
        """``[B * D, ...]`` to ``[B, D, ...]``."""
        return values.reshape(-1, self.variates, *values.shape[1:])


class TimerFrontend(Frontend):
    """Timer-base-84m; the revision is the commit that sktime's reference forecasts were made with."""

    family: ClassVar[str] = "timer"
    licence: ClassVar[str] = "Apache-2.0"
    commercial: ClassVar[bool] = True
    cards: ClassVar[tuple[TeacherCard, ...]] = (
        TeacherCard(
            name="timer-84m",
            family="timer",
            repo_id="thuml/timer-base-84m",
            revision="70077a71acce1b4c00d98332fcaabc694255d8e5",
            parameters=84_142_080,
            context=2880,
            licence="Apache-2.0",
            commercial=True,
            quantiles=False,
            config={
                "model_type": "timer",
                "input_token_len": 96,
                "output_token_lens": [96],
                "hidden_size": 1024,
                "intermediate_size": 2048,
                "num_hidden_layers": 8,
                "num_attention_heads": 8,
                "hidden_act": "silu",
                "attention_dropout": 0.0,
                "max_position_embeddings": 10000,
                "rope_theta": 10000,
            },
        ),
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By ``model_type``."""
        return config.get("model_type") == "timer"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Timer:
        """See ``Frontend.build``; the option is ``normalize`` of ``Timer``.

        Raises:
            TeacherError: also a lookback that is not a multiple of the token length.
        """
        settings = Settings(self.family, config)
        chosen = choose(self.family, options, {"normalize": get_args(Normalize)})
        check_heads(settings)
        settings.only("hidden_act", "silu")
        settings.only("attention_dropout", 0.0, 0)  # upstream drops out at inference too
        settings.only("rope_theta", ROTARY_BASE, float(ROTARY_BASE))
        _check_tokens(settings, lookback, horizon)
        teacher = Timer(settings, lookback=lookback, horizon=horizon, variates=variates, **chosen)
        teacher.options = chosen
        return teacher


def _check_tokens(settings: Settings, lookback: int, horizon: int) -> None:
    family, token = settings.family, settings.integer("input_token_len")
    if lookback % token:
        below = lookback // token * token
        nearest = f"{below} or {below + token}" if below else f"{token}"
        raise TeacherError(
            f"{family}: lookback is {lookback}, expected a multiple of {token} (input_token_len)",
            hint=f"use {nearest}",
        )
    lengths = head_lengths(settings, "output_token_lens")
    if len(plan_heads(lengths, horizon)) > 1 and any(length % token for length in lengths):
        raise TeacherError(
            f"{family}: output_token_lens {list(lengths)} cannot roll out to horizon {horizon}, "
            f"expected lengths that are whole tokens of {token}",
            hint=f"use horizon {lengths[-1]}",
        )
    tokens, longest = (lookback + horizon) // token, settings.integer("max_position_embeddings", 10000)
    if tokens > longest:
        raise TeacherError(
            f"{family}: lookback {lookback} and horizon {horizon} make {tokens} tokens, "
            f"expected at most {longest} (max_position_embeddings)"
        )


FRONTEND = TimerFrontend()
