"""The teacher ``cycle``: the mean of the last cycles, repeated, each cycle weighted.

    c_k    the k-th last cycle of the window, less its mean            k = 1..K, each [P]
    y      = sum_k softmax(a)_k c_k, repeated to the horizon, plus the mean of the last cycle

P is the period and K the number of whole cycles in the window.  The published weights ``a`` are zeros: every
cycle counts alike.  States are the cycles themselves, ``[B, D, K, P]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher
from tsfmc.compiler.frontends.base import Frontend, TeacherCard
from tsfmc.compiler.frontends.settings import Settings, known_options
from tsfmc.compiler.ir.forecaster import Teacher

PUBLISHED = {"model_type": "cycle", "period": 24}


class Cycle(Teacher):
    """See the module docstring."""

    def __init__(
        self, config: Mapping[str, Any], period: int, *, lookback: int, horizon: int, variates: int
    ) -> None:
        super().__init__()
        self.config = config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.period = period
        self.weights = nn.Parameter(torch.zeros(lookback // period))

    def states(self, past: Tensor) -> Tensor:
        """The whole cycles at the end of ``past [B, D, L]``: ``[B, D, K, P]``."""
        whole = len(self.weights) * self.period
        return past[..., -whole:].unflatten(-1, (-1, self.period))

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        cycles = self.states(past)
        levels = cycles.mean(-1, keepdim=True)
        shape = (torch.softmax(self.weights, 0)[:, None] * (cycles - levels)).sum(-2)
        repeats = -(-self.horizon // self.period)
        return shape.repeat(1, 1, repeats)[..., : self.horizon] + levels[..., -1, :]


class CycleFrontend(Frontend):
    """Cycles of a fixed period; the weights of the one card are part of this file."""

    family = "cycle"
    cards = (
        TeacherCard(
            name="cycle-24",
            family="cycle",
            repo_id=None,
            revision=None,
            parameters=0,
            context=1 << 16,
            licence="Apache-2.0",
            commercial=True,
            quantiles=False,
            config=PUBLISHED,
        ),
    )
    licence = "Apache-2.0"
    commercial = True

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "cycle"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        known_options(self.family, options)
        period = Settings(self.family, config).integer("period")
        if lookback < period:
            raise TeacherError(f"cycle: lookback {lookback} holds no whole cycle of {period} steps")
        return Cycle(config, period, lookback=lookback, horizon=horizon, variates=variates)

    def load_package(
        self, name: str, *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> tuple[Teacher, Path]:
        """The weights are zeros, so this file is what determines them."""
        teacher = build_teacher(PUBLISHED, lookback=lookback, horizon=horizon, variates=variates, **options)
        return teacher, Path(__file__)


FRONTEND = CycleFrontend()
