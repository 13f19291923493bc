"""Moirai 2.0 (uni2ts): a causal encoder over the patches of all variates that forecasts quantiles.

Source: parity with uni2ts.  With patches of p = 16 steps, left zeros up to a
multiple of p:

1. loc, scale of each variate's series (:func:`~.moirai_encoder.location_and_scale`);
2. [normalised patch, observed mask] -> d by a residual MLP; the mask is 0 in the left padding only;
3. one encoder over all tokens of all variates, where a token sees no later time of any variate;
4. from the last token of each variate a residual MLP gives num_predict_token = 4 patches x 9 quantiles.

The future tokens that upstream appends are never seen by an earlier token, so none are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import TeacherError
from ...ir.forecaster import Teacher, TeacherOutputs
from ...ir.prunable import Kept, PrunableStructure
from ..base import Frontend, TeacherCard
from ..blocks.layers import ResidualMlp
from ..options import choose
from ..settings import Settings
from .encoder import STREAM, Encoder, TokenLayout, check_encoder, location_and_scale

Rollout = Literal["quantiles", "median"]

MEDIAN = 0.5


class Moirai2(Teacher):
    """Moirai 2.0 with fixed lookback, horizon and variates; variates attend to each other.

    Args:
        settings: upstream's ``config.json``, with ``tsfmc.kept`` after pruning.
        lookback: L, any.  Upstream pads on the left to whole patches; so does this.
        horizon: H, any.  Up to 64 steps (4 patches) one pass.
        variates: D.
        rollout: what happens beyond.  ``quantiles``, the default, is upstream's rule: the 9 quantiles go on
            as 9 paths, each appended to the lookback and normalised anew; the 81 values of a step give the
            next 9 quantiles.  Upstream's own code of it fails for more than one variate; here path q holds
            the q-th quantile of every variate.  ``median`` follows the median alone: a ninth of the work
            after the first pass, and other numbers beyond the first block.  Both are deterministic and
            export.
    """

    observed: Tensor

    def __init__(
        self, settings: Settings, *, lookback: int, horizon: int, variates: int, rollout: Rollout
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates, self.rollout = lookback, horizon, variates, rollout
        self.quantile_levels = settings.levels("quantile_levels")
        self.patch, self.block_tokens = settings.integer("patch_size"), settings.integer("num_predict_token")
        width, kept = settings.integer("d_model"), Kept(settings.config)
        levels = len(self.quantile_levels)
        stream = kept.count(STREAM, width)
        self.in_proj = ResidualMlp("in_proj", 2 * self.patch, width, stream, kept, F.silu)
        self.encoder = Encoder(settings, settings.integer("d_ff"))
        out = self.block_tokens * levels * self.patch
        self.out_proj = ResidualMlp("out_proj", stream, width, out, kept, F.silu)
        tokens = [
            -(-lookback // self.patch) + done * self.block_tokens
            for done in range(-(-horizon // (self.block_tokens * self.patch)))
        ]
        self.layouts = nn.ModuleList(self._layout(count) for count in tokens)
        missing = tokens[0] * self.patch - lookback
        observed = (torch.arange(tokens[-1] * self.patch) >= missing).float().reshape(-1, self.patch)
        self.register_buffer("observed", observed, persistent=False)

    def forward(self, past: Tensor) -> Tensor:
        """Median forecast ``[B, D, H]`` of ``past [B, D, L]``."""
        return self._median(self.quantiles(past))

    def quantiles(self, past: Tensor) -> Tensor:
        """``[B, D, H, Q]`` at ``quantile_levels``; they may cross, as upstream's do."""
        return self._roll_out(past, states=False)[0]

    def states(self, past: Tensor) -> Tensor:
        """Encoder outputs, after the final norm, of the past tokens ``[B, D, ceil(L / p), d]``."""
        return self._by_variate(self._encode(past, every=True)[0])

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Forecast, quantiles and states in one evaluation; the states are those of the first pass."""
        quantiles, hidden = self._roll_out(past, states=states)
        return TeacherOutputs(
            self._median(quantiles), quantiles, self._by_variate(hidden) if states else None
        )

    def structure(self) -> PrunableStructure:
        """Heads and value dims of attention, the units of FFNs and both residual MLPs, and the stream."""
        inside = (*self.in_proj.groups(), *self.encoder.groups(), *self.out_proj.groups())
        stream = self.encoder.stream(entering=self.in_proj.outputs(), leaving=self.out_proj.inputs())
        return PrunableStructure((*inside, stream))

    def _layout(self, tokens: int) -> TokenLayout:
        return TokenLayout(
            torch.arange(self.variates).repeat_interleave(tokens),
            torch.arange(tokens).repeat(self.variates),
            self.encoder.head_width,
            causal=True,
        )

    def _roll_out(self, past: Tensor, *, states: bool) -> tuple[Tensor, Tensor]:
        """Quantiles ``[B, D, H, Q]`` and the states of the first pass."""
        quantiles, hidden = self._predict(past, every=states)
        blocks, paths = [quantiles], 1
        series = past[:, None]
        while len(blocks) < len(self.layouts):
            if self.rollout == "median":
                following = self._median(quantiles)[:, None]
            else:
                following = quantiles.permute(0, 3, 1, 2)
            paths = following.shape[1]
            series = torch.cat([series.expand(-1, paths, -1, -1), following], dim=-1)
            each, _ = self._predict(series.flatten(0, 1), every=False)
            quantiles = torch.unflatten(each, 0, (-1, paths)).permute(0, 2, 3, 1, 4).flatten(-2)
            if paths > 1:
                quantiles = empirical_quantiles(quantiles, self.quantile_levels)
            blocks.append(quantiles)
        return torch.cat(blocks, dim=2)[:, :, : self.horizon], hidden

    def _predict(self, series: Tensor, *, every: bool) -> tuple[Tensor, Tensor]:
        """The next block's quantiles ``[N, D, 64, Q]`` of ``series [N, D, L']``, and states of its tokens."""
        hidden, loc, scale = self._encode(series, every=every)
        last = self._by_variate(hidden)[:, :, -1]
        shape = (self.block_tokens, len(self.quantile_levels), self.patch)
        quantiles = torch.unflatten(self.out_proj(last), -1, shape).transpose(-1, -2).flatten(2, 3)
        return quantiles * scale[..., None] + loc[..., None], hidden

    def _encode(self, series: Tensor, *, every: bool) -> tuple[Tensor, Tensor, Tensor]:
        """States ``[N, S or D, d]`` of all tokens or the variates' last; loc and scale ``[N, D, 1]``."""
        tokens = -(-series.shape[-1] // self.patch)
        done = (tokens - -(-self.lookback // self.patch)) // self.block_tokens
        loc, scale = location_and_scale(series)
        missing = tokens * self.patch - series.shape[-1]
        padded = F.pad(series, (missing, 0)) if missing else series
        patches = torch.unflatten((padded - loc) / scale, -1, (tokens, self.patch))
        inputs = torch.cat([patches, self.observed[:tokens].expand_as(patches)], dim=-1)
        asking = slice(None) if every else slice(tokens - 1, None, tokens)
        layout = cast(TokenLayout, self.layouts[done])
        return self.encoder(self.in_proj(inputs).flatten(1, 2), layout, asking), loc, scale

    def _by_variate(self, states: Tensor) -> Tensor:
        return torch.unflatten(states, 1, (self.variates, -1))

    def _median(self, quantiles: Tensor) -> Tensor:
        return quantiles[..., self.quantile_levels.index(MEDIAN)]


def empirical_quantiles(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles ``[..., Q]`` of ``values [..., n]``, linear between order statistics, as ``torch.quantile``.

    That has no counterpart in ONNX; a sort and two gathers at constant places have.
    """
    places = [level * (values.shape[-1] - 1) for level in levels]
    # a place that is an integer but for rounding is that integer: 0.7 * 80 = 56
    places = [round(place) if math.isclose(place, round(place), abs_tol=1e-9) else place for place in places]
    ordered = values.sort(dim=-1).values
    lower = ordered[..., [math.floor(place) for place in places]]
    upper = ordered[..., [math.ceil(place) for place in places]]
    return torch.lerp(lower, upper, ordered.new_tensor([place % 1 for place in places]))


PUBLISHED: Mapping[str, Any] = {
    "attn_dropout_p": 0.0,
    "d_ff": 1024,
    "d_model": 384,
    "dropout_p": 0.0,
    "max_seq_len": 512,
    "num_layers": 6,
    "num_predict_token": 4,
    "patch_size": 16,
    "quantile_levels": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "scaling": True,
}


class Moirai2Frontend(Frontend):
    """Moirai 2.0-R; ``context`` of the card is max_seq_len patches, the architecture has no limit.

    The revision is the commit that several public projects pin, one with the parameter count of its file.
    """

    family: ClassVar[str] = "moirai-2"
    licence: ClassVar[str] = "CC-BY-NC-4.0"
    commercial: ClassVar[bool] = False
    cards: ClassVar[tuple[TeacherCard, ...]] = (
        TeacherCard(
            name="moirai-2-small",
            family="moirai-2",
            repo_id="Salesforce/moirai-2.0-R-small",
            revision="30f43ff08c8494f4943ae1521e9d4e94a0fbb389",
            parameters=11_387_208,
            context=8192,
            licence="CC-BY-NC-4.0",
            commercial=False,
            quantiles=True,
            config=PUBLISHED,
        ),
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By ``num_predict_token``."""
        return "num_predict_token" in config and "d_ff" in config

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Moirai2:
        """See ``Frontend.build``; the option is ``rollout`` of ``Moirai2``.

        Raises:
            TeacherError: also quantile levels without the median, which is the point forecast.
        """
        settings = Settings(self.family, config)
        check_encoder(settings)
        if MEDIAN not in (levels := settings.levels("quantile_levels")):
            raise TeacherError(
                f"{self.family} config: quantile_levels is {list(levels)}, expected levels with {MEDIAN}"
            )
        chosen = choose(self.family, options, {"rollout": get_args(Rollout)})
        teacher = Moirai2(settings, lookback=lookback, horizon=horizon, variates=variates, **chosen)
        teacher.options = chosen
        return teacher


FRONTEND = Moirai2Frontend()
