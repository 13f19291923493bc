"""Quantile forecasts: a point forecast of any student, and offsets from it in units of the window's spread.

    y_q = y + s(x) o_q                      o [D, H, Q] ascending in q
    s(x)^2 = c + sum_k a_k v_k(x)           c, a_k >= 0, one number a variate

    v_0   variance of the window            v_k   mean square of its differences at lag k

The variance of what is to come is affine in squares of what was, as in an ARCH model (Engle, "Autoregressive
conditional heteroscedasticity", 1982).  With c = 0 quantiles keep their place under any shift and scale of
the window; with c alone they are the empirical quantiles of the residuals.

Quantiles never cross, in any precision: s >= 0, the offsets ascend by more than a rounding, and rounding is
monotone, so fl(s o_q) ascends with o_q and fl(y + fl(s o_q)) with that, fused or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.levels import MEDIAN
from .forecaster import Forecaster

GAP = 1e-5
"""Least distance of neighbouring offsets, of the largest: some hundred roundings of float32."""


@dataclass(frozen=True)
class SpreadFeatures:
    """What the spread of a window is made of.

    Attributes:
        variance: whether the variance of the window is among the features.
        lags: of the differences whose mean square is among them.
        constant: whether there is a part that no window changes.
    """

    variance: bool = True
    lags: tuple[int, ...] = ()
    constant: bool = False

    @property
    def count(self) -> int:
        """Features of a window, the constant left out."""
        return int(self.variance) + len(self.lags)

    @property
    def parts(self) -> int:
        """Features and the constant."""
        return self.count + int(self.constant)

    def of(self, past: Tensor) -> list[Tensor]:
        """``v_k [B, D, 1]`` of ``past [B, D, L]``, in the order variance, lags."""
        found = []
        if self.variance:
            centred = past - past.mean(dim=-1, keepdim=True)
            found.append((centred * centred).mean(dim=-1, keepdim=True))
        for lag in self.lags:
            difference = past[..., lag:] - past[..., :-lag]
            found.append((difference * difference).mean(dim=-1, keepdim=True))
        return found


class QuantileHead(nn.Module):
    """Offsets from a point forecast in units of the window's spread.

    Args:
        levels: Q quantile levels, ascending.
        features: what the spread is made of.

    Attributes:
        weights: ``[K, D, 1]`` of the features and, last, the constant; None for a single part, whose weight
            the offsets have in them.
        offsets: ``[D, H, Q]``.
    """

    def __init__(
        self, variates: int, horizon: int, levels: Sequence[float], features: SpreadFeatures
    ) -> None:
        super().__init__()
        self.levels, self.features = tuple(levels), features
        weights = torch.zeros(features.parts, variates, 1) if features.parts > 1 else None
        self.weights = None if weights is None else nn.Parameter(weights, requires_grad=False)
        self.offsets = nn.Parameter(torch.zeros(variates, horizon, len(self.levels)), requires_grad=False)

    def spread(self, past: Tensor) -> Tensor:
        """``s(x) [B, D, 1]`` of ``past [B, D, L]``."""
        found = self.features.of(past)
        if self.weights is None:
            return torch.sqrt(found[0]) if found else torch.ones_like(past[..., :1])
        weights = list(self.weights)
        parts = [weight * feature for weight, feature in zip(weights, found, strict=False)]
        total = sum(parts[1:], parts[0])
        return torch.sqrt(total + weights[-1] if self.features.constant else total)

    def forward(self, past: Tensor, point: Tensor) -> Tensor:
        """``past [B, D, L]`` and its point forecast ``[B, D, H]`` to quantiles ``[B, D, H, Q]``."""
        if not self.features.count:
            return point.unsqueeze(-1) + self.offsets
        return point.unsqueeze(-1) + self.spread(past).unsqueeze(-1) * self.offsets

    @torch.no_grad()
    def filled(self, weights: Tensor, offsets: Tensor) -> QuantileHead:
        """Takes its numbers: ``weights [K, D]``, ``offsets [D, H, Q]``; returns itself.

        What does not ascend in Q, or by less than ``GAP``, is moved up until it does.
        """
        if self.weights is not None:
            self.weights.copy_(weights[..., None])
        self.offsets.copy_(ascending(offsets))
        return self.eval()


def ascending(offsets: Tensor) -> Tensor:
    """``[..., Q]`` with every offset at least ``GAP`` of the largest above the one before it."""
    gap = GAP * float(offsets.abs().max().clamp_min(1e-30))
    steps = gap * torch.arange(offsets.shape[-1], dtype=offsets.dtype)
    return torch.cummax(offsets - steps, dim=-1).values + steps


class QuantileForecaster(Forecaster):
    """A forecaster and its quantile head: ``past [B, D, L]`` to ``[B, D, H, Q]``."""

    def __init__(self, point: Forecaster, head: QuantileHead) -> None:
        super().__init__()
        self.lookback, self.horizon = point.lookback, point.horizon
        self.config = point.config
        self.point, self.head = point, head

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to quantiles ``[B, D, H, Q]``."""
        quantiles: Tensor = self.head(past, self.point(past))
        return quantiles


class MedianForecaster(Forecaster):
    """The point forecast of a quantile forecaster: ``past [B, D, L]`` to its median ``[B, D, H]``."""

    def __init__(self, quantiles: QuantileForecaster) -> None:
        super().__init__()
        self.lookback, self.horizon, self.config = quantiles.lookback, quantiles.horizon, quantiles.config
        self.quantiles = quantiles
        self.place = quantiles.head.levels.index(MEDIAN)

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        forecast: Tensor = self.quantiles(past)[..., self.place]
        return forecast
