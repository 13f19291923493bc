"""Quantile forecasts: a point forecast of any student, and offsets from it in units of the window's spread.

    y_q = y + s(x) o_q                      o [D, H, Q] ascending in q

    constant        s = 1                                     quantiles of the residuals themselves
    deviation       s = standard deviation of the window
    differences     s = root mean square of x_t - x_(t - lag)

With the last two, quantiles keep their place under any shift and scale of the window, as a point forecast of
an instance-normalised student does.

Quantiles never cross, in any precision: s >= 0, the offsets ascend by more than a rounding, and rounding is
monotone, so fl(s o_q) ascends with o_q and fl(y + fl(s o_q)) with that, fused or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..data.levels import MEDIAN
from .forecaster import Forecaster

GAP = 1e-5
"""Least distance of neighbouring offsets, of the largest: some hundred roundings of float32."""


@dataclass(frozen=True)
class Spread:
    """What offsets are counted in; ``lag`` is that of differences, else 0."""

    kind: Literal["constant", "deviation", "differences"]
    lag: int = 0

    def of(self, past: Tensor) -> Tensor:
        """``s(x) [B, D, 1]`` of ``past [B, D, L]``."""
        if self.kind == "constant":
            return torch.ones_like(past[..., :1])
        if self.kind == "deviation":
            deviations = past - past.mean(dim=-1, keepdim=True)
        else:
            deviations = past[..., self.lag :] - past[..., : -self.lag]
        return torch.sqrt((deviations * deviations).mean(dim=-1, keepdim=True))

    def __str__(self) -> str:
        return f"{self.kind} at lag {self.lag}" if self.lag else self.kind


class QuantileHead(nn.Module):
    """Offsets ``[D, H, Q]`` from a point forecast in units of the window's spread.

    Args:
        levels: Q quantile levels, ascending.
        spread: what the offsets are counted in.
    """

    def __init__(self, variates: int, horizon: int, levels: Sequence[float], spread: Spread) -> None:
        super().__init__()
        self.levels, self.spread = tuple(levels), spread
        self.offsets = nn.Parameter(torch.zeros(variates, horizon, len(self.levels)), requires_grad=False)

    def forward(self, past: Tensor, point: Tensor) -> Tensor:
        """``past [B, D, L]`` and its point forecast ``[B, D, H]`` to quantiles ``[B, D, H, Q]``."""
        if self.spread.kind == "constant":
            return point.unsqueeze(-1) + self.offsets
        return point.unsqueeze(-1) + self.spread.of(past).unsqueeze(-1) * self.offsets

    @classmethod
    @torch.no_grad()
    def of(cls, offsets: Tensor, levels: Sequence[float], spread: Spread) -> QuantileHead:
        """The head with these ``offsets [D, H, Q]``.

        What does not ascend in Q, or by less than ``GAP``, is moved up until it does.
        """
        variates, horizon, _ = offsets.shape
        head = cls(variates, horizon, levels, spread)
        head.offsets.copy_(ascending(offsets))
        return head.eval()


def ascending(offsets: Tensor) -> Tensor:
    """``[..., Q]`` with every offset at least ``GAP`` of the largest above the one before it."""
    gap = GAP * float(offsets.abs().max().clamp_min(1e-30))
    steps = gap * torch.arange(offsets.shape[-1], dtype=offsets.dtype)
    return torch.cummax(offsets - steps, dim=-1).values + steps


class QuantileForecaster(Forecaster):
    """A forecaster and its quantile head: ``past [B, D, L]`` to ``[B, D, H, Q]``."""

    def __init__(self, point: Forecaster, head: QuantileHead) -> None:
        super().__init__()
        self.lookback, self.horizon, self.inputs = point.lookback, point.horizon, point.inputs
        self.config = point.config
        self.point, self.head = point, head

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to quantiles ``[B, D, H, Q]``."""
        window = past[..., : self.lookback] if self.inputs else past
        quantiles: Tensor = self.head(window, self.point(past))
        return quantiles


class MedianForecaster(Forecaster):
    """The point forecast of a quantile forecaster: ``past [B, D, L]`` to its median ``[B, D, H]``."""

    def __init__(self, quantiles: QuantileForecaster) -> None:
        super().__init__()
        self.lookback, self.horizon, self.config = quantiles.lookback, quantiles.horizon, quantiles.config
        self.inputs = quantiles.inputs
        self.quantiles = quantiles
        self.place = quantiles.head.levels.index(MEDIAN)

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        forecast: Tensor = self.quantiles(past)[..., self.place]
        return forecast
