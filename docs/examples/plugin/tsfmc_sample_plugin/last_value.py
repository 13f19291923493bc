"""The student ``last_value``: one linear map of what the window does around its last value.

    y = W (x - x_L 1) + b + x_L 1        (NLinear of Zeng et al., "Are Transformers Effective for Time Series
                                          Forecasting?", AAAI 2023, section 4)

It folds into one matrix: W' = W + (1 - W 1) e_L^T, so that y = W' x + b.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tsfmc.compiler.ir.forecaster import Forecaster, Student
from tsfmc.compiler.students.affine import AffineMap


class LastValue(Student):
    """See the module docstring.  There is no embedding to align.

    Args:
        bias: whether the map has one.
    """

    embedding_dim = 0

    def __init__(self, lookback: int, horizon: int, bias: bool = True) -> None:
        super().__init__()
        self.lookback, self.horizon = lookback, horizon
        self.config = {"kind": "last_value", "lookback": lookback, "horizon": horizon, "bias": bias}
        self.map = nn.Linear(lookback, horizon, bias=bias)
        nn.init.zeros_(self.map.weight)

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        last = past[..., -1:]
        forecast: Tensor = self.map(past - last) + last
        return forecast

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        return {"affine": AffineMap}

    @torch.no_grad()
    def fold(self) -> Forecaster:
        """The affine map, in float64 and rounded once."""
        weight = self.map.weight.double().clone()
        weight[:, -1] += 1 - weight.sum(dim=1)
        folded = AffineMap(self.lookback, self.horizon, bias=self.map.bias is not None)
        folded.matrix.copy_(weight.T)
        if folded.bias is not None:
            folded.bias.copy_(self.map.bias)
        return folded
