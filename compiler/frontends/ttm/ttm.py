"""TTM, Tiny Time Mixers r1 and r2 (Ekambaram et al., arXiv:2401.03955), as an own forward pass.

For every variate on its own (mode ``common_channel``):

1. z = (past - mean) / sqrt(var + 1e-5) over the lookback (population variance), cut into P patches;
2. patches -> d by a linear layer, then the encoder: level i of n (i = n-1 ... 0) sees the same numbers
   as P * 2^i patches of width d / 2^i (adaptive patching) and runs mixer layers on them;
3. a mixer layer is x + gate(MLP(norm(x))), first over patches, then over features, with
   gate(y) = y * softmax(linear(y)) and MLP = linear, GELU, linear;
4. adapter d -> d', decoder (mixer layers at one level), flatten, linear to the model's horizon;
5. forecast = head * sqrt(var + 1e-5) + mean; a shorter horizon is a prefix.

States are the encoder's output, [B, D, P, d].  Module names are upstream's, so state dicts load as they are.
Coupled groups: the hidden channels of every MLP.  The width d is not one: LayerNorm mixes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ...base.errors import TeacherError
from ...ir.forecaster import Teacher, TeacherOutputs
from ...ir.prunable import Group, Kept, Member, PrunableStructure, Tap
from ..base import Frontend
from ..blocks.layers import project, sized_linear
from ..settings import Settings, known_options
from .cards import CARDS, revisions_for

_VARIANCE_FLOOR = 1e-5

# Field -> the values that the forward pass below implements (the first stands for a missing field).
_IMPLEMENTED: Mapping[str, tuple[Any, ...]] = {
    "mode": ("common_channel",),
    "decoder_mode": ("common_channel",),
    "norm_mlp": ("LayerNorm",),
    "scaling": ("std", True),
    "loss": ("mse", "mae", "pinball", "huber", None),
    "gate_mode": ("softmax",),
    "use_register_context_gating": (False,),
    "self_attn": (False,),
    "use_positional_encoding": (False,),
    "resolution_prefix_tuning": (False,),
    "enable_forecast_channel_mixing": (False,),
    "decoder_raw_residual": (False,),
    "multi_scale": (False,),
    "register_tokens": (0,),
    "fft_length": (0,),
    "multi_quantile_head": (False,),
    "decompose": (False,),
    "enable_base_norm_always": (False,),
    "categorical_vocab_size_list": (None,),
    "prediction_channel_indices": (None,),
    "exogenous_channel_indices": (None,),
    "masked_context_length": (None,),
}


class _Mlp(nn.Module):
    """linear, GELU, linear; ``hidden`` channels may be pruned down to none."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = sized_linear(width, hidden)
        self.fc2 = sized_linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        if not self.fc1.out_features:
            return project(self.fc2, x[..., :0])
        return project(self.fc2, functional.gelu(self.fc1(x)))


class _Mixer(nn.Module):
    """x + gate(MLP(norm(x))) along the last axis, or along the one before it (``over_patches``)."""

    def __init__(self, name: str, channels: int, mixed: int, build: _Build, *, over_patches: bool) -> None:
        super().__init__()
        self.over_patches = over_patches
        self.norm = nn.ModuleDict({"norm": nn.LayerNorm(channels, eps=build.norm_eps)})
        units = mixed * build.expansion
        build.units[f"{name}.mlp"] = units
        self.mlp = _Mlp(mixed, build.kept.count(f"{name}.mlp", units))
        self.gating_block = nn.ModuleDict({"attn_layer": nn.Linear(mixed, mixed)}) if build.gated else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, D, patches, channels]`` to the same."""
        mixed: Tensor = self.norm["norm"](x)
        mixed = self.mlp(mixed.transpose(2, 3) if self.over_patches else mixed)
        if self.gating_block is not None:
            mixed = mixed * self.gating_block["attn_layer"](mixed).softmax(-1)
        return x + (mixed.transpose(2, 3) if self.over_patches else mixed)


class _Build:
    """What every mixer of one model has in common, and the groups that were met while building."""

    def __init__(self, settings: Settings) -> None:
        self.norm_eps = settings.number("norm_eps", 1e-5)
        self.expansion = settings.integer("expansion_factor", 2)
        self.gated = bool(settings.config.get("gated_attn", True))
        self.kept = Kept(settings.config)
        self.units: dict[str, int] = {}


class _Layer(nn.Module):
    """Mixing over patches (when there are several), then over features."""

    def __init__(self, name: str, patches: int, width: int, build: _Build) -> None:
        super().__init__()
        self.patch_mixer = (
            _Mixer(f"{name}.patch_mixer", width, patches, build, over_patches=True) if patches > 1 else None
        )
        self.feature_mixer = _Mixer(f"{name}.feature_mixer", width, width, build, over_patches=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.patch_mixer is None else self.patch_mixer(x)
        mixed: Tensor = self.feature_mixer(x)
        return mixed


class _Level(nn.Module):
    """Mixer layers at ``factor`` times as many patches of a ``factor``-th of the width."""

    def __init__(self, name: str, patches: int, width: int, layers: int, factor: int, build: _Build) -> None:
        super().__init__()
        self.factor = factor
        self.mixer_layers = nn.ModuleList(
            _Layer(f"{name}.mixer_layers.{k}", patches * factor, width // factor, build)
            for k in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        patches, width = x.shape[2:]
        x = x.reshape(*x.shape[:2], patches * self.factor, width // self.factor)
        for layer in self.mixer_layers:
            x = layer(x)
        return x.reshape(*x.shape[:2], patches, width)


class _Tower(nn.Module):
    """Encoder or decoder: ``levels`` adaptive levels, or plain layers when there are none."""

    def __init__(self, name: str, patches: int, width: int, layers: int, levels: int, build: _Build) -> None:
        super().__init__()
        name = f"{name}.mixers"
        self.mixers = nn.ModuleList(
            _Level(f"{name}.{at}", patches, width, layers, _factor(width, level), build)
            for at, level in enumerate(reversed(range(levels)))
        )
        if not levels:
            self.mixers.extend(_Layer(f"{name}.{k}", patches, width, build) for k in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for mixer in self.mixers:
            x = mixer(x)
        return x


def _factor(width: int, level: int) -> int:
    """2^level, or 1 where upstream switches adaptive patching off because too little width is left."""
    factor: int = 2**level
    if width // factor <= 4:
        return 1
    if width % factor:
        raise TeacherError(f"ttm config: d_model={width} cannot be divided by {factor} for adaptive patching")
    return factor


class Ttm(Teacher):
    """A TTM point forecaster; see the module docstring."""

    def __init__(self, settings: Settings, *, lookback: int, horizon: int, variates: int) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.patch = settings.integer("patch_length")
        width = settings.integer("d_model")
        self.patches = (lookback - self.patch) // self.patch + 1
        levels = settings.integer("adaptive_patching_levels", 0, minimum=0)
        build = _Build(settings)
        self.backbone = nn.ModuleDict(
            {
                "encoder": nn.ModuleDict(
                    {
                        "patcher": nn.Linear(self.patch, width),
                        "mlp_mixer_encoder": _Tower(
                            "backbone.encoder.mlp_mixer_encoder",
                            self.patches,
                            width,
                            settings.integer("num_layers"),
                            levels,
                            build,
                        ),
                    }
                )
            }
        )
        if settings.config.get("use_decoder", True):
            inner = settings.integer("decoder_d_model")
            parts: dict[str, nn.Module] = {} if inner == width else {"adapter": nn.Linear(width, inner)}
            parts["decoder_block"] = _Tower(
                "decoder.decoder_block",
                self.patches,
                inner,
                settings.integer("decoder_num_layers"),
                settings.integer("decoder_adaptive_patching_levels", 0, minimum=0),
                build,
            )
            self.decoder, width = nn.ModuleDict(parts), inner
        else:
            self.decoder = nn.ModuleDict()
        outputs = settings.integer("prediction_length")
        self.head = nn.ModuleDict({"base_forecast_block": nn.Linear(self.patches * width, outputs)})
        self._groups = build.units

    def _encode(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder output ``[B, D, P, d]``, mean and scale ``[B, D, 1]``."""
        mean = past.mean(-1, keepdim=True)
        scale = ((past - mean).square().mean(-1, keepdim=True) + _VARIANCE_FLOOR).sqrt()
        series = ((past - mean) / scale)[..., self.lookback - self.patches * self.patch :]
        encoder = self.backbone["encoder"]
        patches = encoder["patcher"](series.reshape(*series.shape[:2], self.patches, self.patch))  # type: ignore[index]
        return encoder["mlp_mixer_encoder"](patches), mean, scale  # type: ignore[index]

    def _decode(self, states: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        for part in self.decoder.values():
            states = part(states)
        ahead = self.head["base_forecast_block"](states.flatten(-2))[..., : self.horizon]
        forecast: Tensor = ahead * scale + mean
        return forecast

    def forward(self, past: Tensor) -> Tensor:
        return self._decode(*self._encode(past))

    def states(self, past: Tensor) -> Tensor:
        return self._encode(past)[0]

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        encoded = self._encode(past)
        return TeacherOutputs(forecast=self._decode(*encoded), states=encoded[0] if states else None)

    def structure(self) -> PrunableStructure:
        return PrunableStructure(
            tuple(
                Group(
                    name=name,
                    kind="ffn",
                    units=self.get_submodule(f"{name}.fc1").out_features,  # type: ignore[arg-type]
                    members=(
                        Member(f"{name}.fc1.weight", 0),
                        Member(f"{name}.fc1.bias", 0),
                        Member(f"{name}.fc2.weight", 1),
                    ),
                    taps=(Tap(f"{name}.fc2", "in"),),
                )
                for name in self._groups
            )
        )


class TtmFrontend(Frontend):
    """TTM r1 and r2 checkpoints; one checkpoint per lookback and longest horizon."""

    family = "ttm"
    cards = CARDS
    licence = "Apache-2.0"
    commercial = True

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "tinytimemixer"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        known_options(self.family, options)
        settings = Settings(self.family, config)
        for field, allowed in _IMPLEMENTED.items():
            settings.only(field, *allowed)
        patch = settings.integer("patch_length")
        settings.only("patch_stride", patch)
        context = settings.integer("context_length")
        if context <= patch:
            raise TeacherError(f"ttm config: context_length={context} has to exceed patch_length={patch}")
        longest = settings.integer("prediction_filter_length", settings.integer("prediction_length"))
        if lookback != context:
            raise TeacherError(
                f"ttm: this checkpoint takes lookback {context} only, got {lookback}",
                hint=revisions_for(lookback, horizon),
            )
        if horizon > longest:
            raise TeacherError(
                f"ttm: this checkpoint forecasts at most {longest} steps, got horizon {horizon}",
                hint=revisions_for(lookback, horizon),
            )
        return Ttm(settings, lookback=lookback, horizon=horizon, variates=variates)


FRONTEND = TtmFrontend()
