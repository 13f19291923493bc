"""Fracast, a pretrained 85,001-parameter forecaster whose weights lie in its PyPI package (Apache-2.0).

The modules are the package's (``fracast==0.1.0``, the float32 weights); the loop over the encoder's stages is
written here, for batches of windows.  For every variate on its own, with W = 2048:

1. z = (past - min) / max(max - min, 1e-5) over the finite values, left-padded with masked zeros to W;
2. features (value, coverage, recency, phase under the four most significant periods) -> d = 64;
3. ten stages, dilation 2^i, one shared block: scale and shift by the dilation, causal depthwise
   convolution, pointwise layer, RMSNorm, SwiGLU, RMSNorm (both residual);
4. the package's head reads the encoded context and gives nine deciles of the next 48 steps;
5. a longer horizon appends the median to the context (the last W points are kept) and repeats from 1.

The padding in front of a short lookback holds no values, and the stages are causal, so what they make of it
depends on the detected periods alone.  Windows of a batch share few sets of periods: the padded positions
are computed once a set.  The result is the package's up to float32 rounding.  An exported program runs the
package's own encoder instead, because that sharing depends on the data.

States are the encoder's output at the positions of the lookback, [B, D, min(L, W), 64].  Outputs are not
differentiable, and the family cannot be pruned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import MissingError, TeacherError
from ..ir.forecaster import Teacher, TeacherOutputs
from .base import Frontend, TeacherCard
from .checkpoint import WEIGHTS, build_with, fill, read_config, read_weights
from .settings import Settings, known_options

# Its README names autogluon/fev_datasets (which holds ETT and Jena weather), autogluon/chronos_datasets
# (which holds electricity) and three more collections as its pre-training data.
_SEEN = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "electricity")
_MIN_FINITE = 8
_MIN_SPAN = 1e-5
_GROUP = 64
"""Series whose encodings are held at once (0.5 MB each)."""
_CHUNK = 2
"""Series that go through the stages together, so that their activations stay in the processor's cache."""


class Fracast(Teacher):
    """Fracast-0; see the module docstring.

    Args:
        config: the package's ``config.json``.
        core: its encoder.
        head: its head.
    """

    def __init__(
        self, config: Mapping[str, Any], core: Any, head: Any, *, lookback: int, horizon: int, variates: int
    ) -> None:
        super().__init__()
        self.config = config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        settings = Settings("fracast", config).table("model")
        self.quantile_levels = settings.levels("quantiles")
        self.width = settings.integer("W")
        self.block_steps = settings.integer("horizon")
        self.core, self.head = core, head
        self.requires_grad_(False)

    def forward(self, past: Tensor) -> Tensor:
        return self.outputs(past, states=False).forecast

    def quantiles(self, past: Tensor) -> Tensor:
        return cast("Tensor", self.outputs(past, states=False).quantiles)

    def states(self, past: Tensor) -> Tensor:
        return cast("Tensor", self.outputs(past).states)

    @torch.no_grad()
    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        median = self.quantile_levels.index(0.5)
        context = past.flatten(0, 1)
        blocks: list[Tensor] = []
        seen: Tensor | None = None
        for at in range(-(-self.horizon // self.block_steps)):
            context = context[:, -self.width :]
            wanted = states and at == 0
            quantiles, encoded = self._predict(context, states=wanted)
            seen = encoded if wanted else seen
            blocks.append(quantiles)
            context = torch.cat([context, quantiles[..., median]], 1)
        ahead = torch.cat(blocks, 1)[:, : self.horizon]
        ahead = ahead.reshape(*past.shape[:2], *ahead.shape[1:])
        return TeacherOutputs(
            forecast=ahead[..., median],
            quantiles=ahead,
            states=None if seen is None else seen.reshape(*past.shape[:2], *seen.shape[1:]),
        )

    def _predict(self, context: Tensor, *, states: bool) -> tuple[Tensor, Tensor | None]:
        """Deciles ``[N, 48, 9]`` after ``context [N, L]`` (L <= W), and states ``[N, L, d]`` if wanted.

        Location and span are taken in float64, as the package does.
        """
        finite = context.isfinite()
        low = context.where(finite, torch.inf).amin(1, keepdim=True).double()
        high = context.where(finite, -torch.inf).amax(1, keepdim=True).double()
        span = (high - low).clamp(min=_MIN_SPAN)
        padded = self.width - context.shape[1]
        values = functional.pad(((context - low) / span).where(finite, 0.0).float(), (padded, 0))
        valid = functional.pad(finite, (padded, 0))

        if torch.compiler.is_exporting():
            encoded = self.core(values[:, None], valid[:, None], valid[:, None].to(values))
            return self._read(encoded, values, valid, low, span), encoded[:, padded:]
        if bool((finite.sum(1) < _MIN_FINITE).any()):
            raise TeacherError(
                f"fracast: a series has fewer than {_MIN_FINITE} finite values in its lookback"
            )
        periods = self._periods(values, valid)
        # Neighbours in this order share their periods, so a group needs few encodings of the padding.
        order = torch.unique(periods, dim=0, return_inverse=True)[1].argsort()
        quantiles = values.new_empty(len(values), self.block_steps, len(self.quantile_levels))
        seen = values.new_empty(*context.shape, self.core.d) if states else None
        for group in torch.split(order, _GROUP):
            encoded = self._encode(values[group], valid[group], periods[group], padded)
            quantiles[group] = self._read(encoded, values[group], valid[group], low[group], span[group])
            if seen is not None:
                seen[group] = encoded[:, padded:]
        return quantiles, seen

    def _read(self, encoded: Tensor, values: Tensor, valid: Tensor, low: Tensor, span: Tensor) -> Tensor:
        """The head's deciles ``[N, 48, 9]``, in the units of the context."""
        scaled: Tensor = self.head.forward_horizon(
            encoded, last_obs=values[:, -1:], ctx=values, ctx_mask=valid
        )
        return (scaled * span.unsqueeze(-1) + low.unsqueeze(-1)).float()

    def _periods(self, values: Tensor, valid: Tensor) -> Tensor:
        """The significant periods of every series ``[N, K]``, 0 where there is none."""
        from fracast._core.periodic.seasonal_fill import detect_periods

        encoder = self.core.periodic
        found: Tensor = detect_periods(
            values, valid, top_k=encoder.top_k, min_period=encoder.min_period, alpha=encoder.alpha
        )
        return found

    def _encode(self, values: Tensor, valid: Tensor, periods: Tensor, padded: int) -> Tensor:
        """The encoder ``[N, W] -> [N, W, d]``; the ``padded`` positions run once per set of periods."""
        encoded = values.new_empty(*values.shape, self.core.d)
        sets, kind = torch.unique(periods, dim=0, return_inverse=True)
        lefts: list[Tensor] = []
        if padded:
            nothing = values.new_zeros(len(sets), padded)
            parts = [
                self._stages(self._features(empty, empty, some, 0), [])
                for empty, some in zip(torch.split(nothing, _CHUNK), torch.split(sets, _CHUNK), strict=True)
            ]
            encoded[:, :padded] = torch.cat([part for part, _ in parts])[kind]
            lefts = [torch.cat(stage) for stage in zip(*(tails for _, tails in parts), strict=True)]
        for part in torch.split(torch.arange(len(values), device=values.device), _CHUNK):
            features = self._features(
                values[part, padded:], valid[part, padded:].to(values), periods[part], padded
            )
            encoded[part, padded:] = self._stages(features, [left[kind[part]] for left in lefts])[0]
        return encoded

    def _features(self, values: Tensor, valid: Tensor, periods: Tensor, start: int) -> Tensor:
        """Input features ``[n, T, d]`` of positions ``start ... start + T - 1``."""
        from fracast._core.periodic.official_encoding import _phase_encoding, _recency_encoding

        core = self.core
        positions = torch.arange(start, start + values.shape[1], device=values.device).expand(values.shape)
        recency = _recency_encoding(positions, self.width)
        features = core.in_proj(torch.cat([values.unsqueeze(-1), valid.unsqueeze(-1), recency], -1))
        phases = _phase_encoding(positions, periods, n_harmonics=core.periodic.n_harm)
        encoded: Tensor = features + core.periodic.proj(phases)
        return encoded

    def _stages(self, x: Tensor, lefts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All stages over ``x [n, T, d]``.

        Args:
            x: input features.
            lefts: per stage the inputs of its convolution just before ``x``; zeros when the list is empty.

        Returns:
            The encoding ``[n, T, d]``, and the same per-stage inputs at its end.
        """
        block, steps = self.core.block, x.shape[1]
        taps = block.dw_weight.squeeze(1).unbind(1)
        tails: list[Tensor] = []
        for stage, dilation in enumerate(self.core.dilations()):
            x = self.core.scale(x, dilation)
            reach = (len(taps) - 1) * dilation
            left = lefts[stage] if lefts else x.new_zeros(len(x), reach, x.shape[2])
            line = torch.cat([left, x], 1)
            tails.append(line[:, steps:].clone() if not lefts else left)
            mixed = torch.addcmul(block.dw_bias, line[:, :steps], taps[0])
            for at, tap in enumerate(taps[1:], start=1):
                mixed.addcmul_(line[:, at * dilation : at * dilation + steps], tap)
            x = _rms_norm(block.norm1, block.pw(mixed).add_(x))
            gate, value = block.ffn.up(x).chunk(2, -1)
            x = _rms_norm(block.norm2, block.ffn.down(functional.silu(gate).mul_(value)).add_(x))
        return self.core.norm(x), tails


def _rms_norm(norm: torch.nn.RMSNorm, x: Tensor) -> Tensor:
    """``norm(x)``, overwriting ``x``."""
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x.mul_(scale).mul_(norm.weight)


class FracastFrontend(Frontend):
    """Fracast-0 from its package, or a checkpoint directory in its format."""

    family = "fracast"
    licence = "Apache-2.0"
    commercial = True
    cards = (
        TeacherCard(
            name="fracast",
            family="fracast",
            repo_id=None,
            revision=None,
            parameters=85_001,
            context=2048,
            licence="Apache-2.0",
            commercial=True,
            quantiles=True,
            overlap=dict.fromkeys(_SEEN, "yes"),
            extra="demo",
        ),
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        model = config.get("model")
        return isinstance(model, Mapping) and model.get("family") == "fracast"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        known_options(self.family, options)
        model = Settings(self.family, config).table("model")
        for field in ("share_stages", "separable_conv", "causal", "recency_encoding", "periodic_phase"):
            model.only(field, True)
        model.only("scale_cond", "film")
        if lookback < _MIN_FINITE:
            raise TeacherError(f"fracast: lookback is {lookback}, expected at least {_MIN_FINITE}")
        core, head = _package().model.build_from_cfg({key: config[key] for key in ("model", "pyramid")})
        return Fracast(config, core, head, lookback=lookback, horizon=horizon, variates=variates)

    def load_package(
        self, name: str, *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> tuple[Teacher, Path]:
        weights = Path(_package().__file__).parents[1] / "weights"
        teacher = build_with(
            self, read_config(weights), lookback=lookback, horizon=horizon, variates=variates, **options
        )
        fill(teacher, read_weights([weights / WEIGHTS]), f"package fracast ({WEIGHTS})")
        return teacher, weights / WEIGHTS


def _package() -> Any:
    try:
        import fracast._core.model
    except ImportError as error:
        raise MissingError(
            f"teacher family fracast needs its package: {error}", hint="pip install 'tsfmc[demo]'"
        ) from error
    return fracast._core


FRONTEND = FracastFrontend()
