"""Quantile heads with drawn numbers beside small folded students, for the tests of targets."""

from __future__ import annotations

import torch

from tsfmc.compiler.ir.forecaster import Forecaster
from tsfmc.compiler.ir.quantiles import QuantileForecaster, QuantileHead, Spread
from tsfmc.compiler.students import affine
from tsfmc.targets.base import Shape

LEVELS = (0.1, 0.5, 0.9)
SPREADS = {
    "constant": Spread("constant"),
    "deviation": Spread("deviation"),
    "differences": Spread("differences", 6),
}


def quantile_head(shape: Shape, spread: str) -> QuantileHead:
    """Drawn offsets that ascend."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(shape.variates, shape.horizon, len(LEVELS), generator=generator)
    return QuantileHead.of(offsets.sort(-1).values, LEVELS, SPREADS[spread])


def point_student(shape: Shape, form: str = "low-rank") -> Forecaster:
    """A folded student whose forecasts move with the window's level."""
    generator = torch.Generator().manual_seed(0)
    variates, lookback, horizon, rank = shape.variates, shape.lookback, shape.horizon, 4

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64) / 8

    if form == "shared":
        return affine.fold_shared(affine.mean_added(random(horizon, lookback))).eval()
    if form == "per-variate":
        return affine.fold_per_variate(random(variates, horizon, lookback)).eval()
    return affine.fold_low_rank(random(rank, lookback), 4 * random(variates, horizon, rank)).eval()


def quantile_student(shape: Shape, spread: str, form: str = "low-rank") -> QuantileForecaster:
    """A folded student with a head."""
    return QuantileForecaster(point_student(shape, form), quantile_head(shape, spread)).eval()
