"""Chronos-2 (arXiv:2510.15821) through its package, chronos-forecasting, which ``tsfmc[chronos]`` installs.

The variates of a window are one group: they attend to each other at every token (``joint=True``, the
package's multivariate mode), or not at all (``joint=False``).  All of the horizon comes in one pass of at
most ``max_output_patches`` (64) patches of 16 steps; NaN marks a missing value.

The package multiplies a boolean by a float mask with einsum, which becomes an invalid ONNX graph; the same
mask is built here by a broadcast product.  The tail after the encoder is written here too, so that one
evaluation gives forecasts and states.

The point forecast is the median.  States are the encoder's output at the context patches, without REG and
future tokens, [B, D, ceil(L / 16), d].  The blocks belong to the package: they are not pruned.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor

from ...base.errors import MissingError, TeacherError
from ...ir.forecaster import Teacher, TeacherOutputs
from ..base import Frontend
from ..options import choose
from ..settings import Settings
from .cards import CHRONOS_2_CARDS

_PREFIX = "model."


class Chronos2(Teacher):
    """Chronos-2; see the module docstring.

    Args:
        model: the package's ``Chronos2Model``.
        settings: the configuration it was built from.
        joint: whether the variates of a window attend to each other.
    """

    def __init__(
        self, model: Any, settings: Settings, *, lookback: int, horizon: int, variates: int, joint: bool
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.joint = joint
        chronos = settings.table("chronos_config")
        self.quantile_levels = chronos.levels("quantiles")
        if 0.5 not in self.quantile_levels:
            raise TeacherError("chronos-2 config: quantiles lacks 0.5, which the point forecast is")
        self.median = self.quantile_levels.index(0.5)
        self.patch = chronos.integer("output_patch_size")
        self.ahead = -(-horizon // self.patch)
        self.model = model
        model.encoder._construct_and_invert_group_time_mask = _group_mask

    def forward(self, past: Tensor) -> Tensor:
        return self.quantiles(past)[..., self.median]

    def quantiles(self, past: Tensor) -> Tensor:
        return cast("Tensor", self.outputs(past, states=False).quantiles)

    def states(self, past: Tensor) -> Tensor:
        return cast("Tensor", self.outputs(past).states)

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        batch = past.shape[0]
        groups = torch.arange(batch, device=past.device)[:, None].expand(-1, self.variates).reshape(-1)
        encoded, scaling, _, patches = self.model.encode(
            context=past.reshape(-1, past.shape[-1]),
            group_ids=groups if self.joint else None,
            num_output_patches=self.ahead,
        )
        hidden = encoded.last_hidden_state
        scaled = self.model.output_patch_embedding(hidden[:, -self.ahead :])
        scaled = scaled.reshape(-1, self.ahead, len(self.quantile_levels), self.patch).transpose(1, 2)
        ahead = self.model.instance_norm.inverse(scaled.flatten(1), scaling)
        ahead = ahead.reshape(batch, self.variates, len(self.quantile_levels), self.ahead * self.patch)
        quantiles = ahead[..., : self.horizon].transpose(2, 3)
        return TeacherOutputs(
            forecast=quantiles[..., self.median],
            quantiles=quantiles,
            states=hidden[:, :patches].reshape(batch, self.variates, patches, -1) if states else None,
        )


def _group_mask(group_ids: Tensor, attention_mask: Tensor, floating_type: torch.dtype) -> Tensor:
    """Additive mask ``[T, 1, N, N]``: row q reads row b at token t if both are of one group and b has t."""
    same = (group_ids[:, None] == group_ids[None]).to(floating_type)
    visible = same[:, :, None] * attention_mask.to(floating_type)[None]
    return (1.0 - visible.permute(2, 0, 1).unsqueeze(1)) * torch.finfo(floating_type).min


class Chronos2Frontend(Frontend):
    """Chronos-2 checkpoints of any size."""

    family = "chronos-2"
    cards = CHRONOS_2_CARDS
    licence = "Apache-2.0"
    commercial = True

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return "Chronos2Model" in (config.get("architectures") or ())

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        chosen = choose(self.family, options, {"joint": (True, False)})
        settings = Settings(self.family, config)
        chronos = settings.table("chronos_config")
        patch = chronos.integer("output_patch_size")
        chronos.only("input_patch_size", patch)
        chronos.only("input_patch_stride", patch)
        chronos.only("use_reg_token", True)  # the package's forward pass counts on it
        settings.only("is_gated_act", False)
        longest = patch * chronos.integer("max_output_patches", 1)
        if horizon > longest:
            raise TeacherError(
                f"chronos-2: horizon {horizon} is beyond the {longest} steps of one pass",
                hint="ask for a shorter horizon",
            )
        teacher = Chronos2(
            _package_model(settings),
            settings,
            lookback=lookback,
            horizon=horizon,
            variates=variates,
            **chosen,
        )
        teacher.options = chosen
        return teacher

    def rename(self, state: dict[str, Any]) -> dict[str, Any]:
        """Upstream's names stand under ``model.`` here; a checkpoint that tsfmc saved has them already."""
        if all(name.startswith(_PREFIX) for name in state):
            return state
        return {f"{_PREFIX}{name}": tensor for name, tensor in state.items()}


def _package_model(settings: Settings) -> Any:
    try:
        from chronos.chronos2.config import Chronos2CoreConfig  # type: ignore[import-untyped]
        from chronos.chronos2.model import Chronos2Model  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError(
            f"teacher family chronos-2 needs chronos-forecasting: {error}",
            hint="pip install 'tsfmc[chronos]'",
        ) from error
    for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
        settings.integer(name)
    # The package writes into the tables it is given.
    fields = {
        name: deepcopy(value)
        for name, value in settings.config.items()
        if name not in ("tsfmc", "dtype", "torch_dtype")
    }
    return Chronos2Model(Chronos2CoreConfig(**fields))


FRONTEND = Chronos2Frontend()
