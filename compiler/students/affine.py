"""One affine map shared by all variates: what a DLinear folds into."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ir.forecaster import Forecaster


class AffineMap(Forecaster):
    """``forecast = past @ weight.T + bias`` with ``weight [H, L]`` and, where needed, ``bias [H]``."""

    def __init__(self, lookback: int, horizon: int, bias: bool) -> None:
        super().__init__()
        self.lookback, self.horizon = lookback, horizon
        self.config = {"kind": "affine", "lookback": lookback, "horizon": horizon, "bias": bias}
        # Stored as [L, H], the layout every runtime multiplies from the right without a transpose.
        self.matrix = nn.Parameter(torch.zeros(lookback, horizon))
        self.bias = nn.Parameter(torch.zeros(horizon)) if bias else None

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        forecast = past @ self.matrix
        return forecast if self.bias is None else forecast + self.bias
