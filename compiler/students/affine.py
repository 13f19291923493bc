"""What a DLinear folds into: one affine map, one each, or a low-rank basis with a head each.

    AffineMap     y_d = W x_d + b        one matrix shared by all variates
    AffineMaps    y_d = W_d x_d          one matrix a variate
    LowRankMap    y_d = C_d (A x_d)      a basis shared by all variates, a head each

Matrices are stored transposed, ``[inputs, outputs]``, the layout every runtime multiplies from the right
without a transpose.

An instance-normalised student forecasts ``m + W (x - m)``, m the window's mean.  Its map has rows that sum
to one, so no mean is taken at run time.  In the low-rank form the mean is one more row of the basis,
``1^T / L``, with a head of ones, and the other rows are centred so that they sum to zero:

    C (A x) + m  =  [C, 1] [A (I - 1 1^T / L); 1^T / L] (x)      for a map in centred coordinates

Rounding to float32 keeps the digits of the input: the error of a forecast is that of a product of float32
numbers of the window's size, not of the window's spread.  At an offset of 1e4 with unit spread that leaves
about three decimals, as it does in every other float32 form that reads the window unshifted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ir.forecaster import Forecaster
from ..ir.products import product_of_each


class AffineMap(Forecaster):
    """``forecast = past @ weight.T + bias`` with ``weight [H, L]`` and, where needed, ``bias [H]``."""

    def __init__(self, lookback: int, horizon: int, bias: bool) -> None:
        super().__init__()
        self.lookback, self.horizon = lookback, horizon
        self.config = {"kind": "affine", "lookback": lookback, "horizon": horizon, "bias": bias}
        self.matrix = nn.Parameter(torch.zeros(lookback, horizon))
        self.bias = nn.Parameter(torch.zeros(horizon)) if bias else None

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        forecast = past @ self.matrix
        return forecast if self.bias is None else forecast + self.bias


class AffineMaps(Forecaster):
    """One matrix a variate, ``matrices [D, L, H]``: one batched product."""

    def __init__(self, lookback: int, horizon: int, variates: int) -> None:
        super().__init__()
        self.lookback, self.horizon = lookback, horizon
        self.config = {"kind": "affine_maps", "lookback": lookback, "horizon": horizon, "variates": variates}
        self.matrices = nn.Parameter(torch.zeros(variates, lookback, horizon))

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        return product_of_each(past, self.matrices)


class LowRankMap(Forecaster):
    """``basis [L, r']`` shared by all variates and ``heads [D, r', H]``: two small products.

    ``r' = rank + 1``: the last column of the basis takes the window's mean.
    """

    def __init__(self, lookback: int, horizon: int, variates: int, rank: int) -> None:
        super().__init__()
        self.lookback, self.horizon = lookback, horizon
        self.config = {
            "kind": "low_rank_map",
            "lookback": lookback,
            "horizon": horizon,
            "variates": variates,
            "rank": rank,
        }
        self.basis = nn.Parameter(torch.zeros(lookback, rank + 1))
        self.heads = nn.Parameter(torch.zeros(variates, rank + 1, horizon))

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        return product_of_each(past @ self.basis, self.heads)


@torch.no_grad()
def fold_shared(weight: Tensor, bias: Tensor | None = None) -> AffineMap:
    """``weight [H, L]`` and ``bias [H]``, float64, in the units of the window, rounded once."""
    horizon, lookback = weight.shape
    folded = AffineMap(lookback, horizon, bias=bias is not None)
    folded.matrix.copy_(weight.T)
    if folded.bias is not None and bias is not None:
        folded.bias.copy_(bias)
    return folded


@torch.no_grad()
def fold_per_variate(weights: Tensor) -> AffineMaps:
    """``weights [D, H, L]``, float64, in centred coordinates."""
    variates, horizon, lookback = weights.shape
    folded = AffineMaps(lookback, horizon, variates)
    folded.matrices.copy_(mean_added(weights).transpose(1, 2))
    return folded


@torch.no_grad()
def fold_low_rank(basis: Tensor, heads: Tensor) -> LowRankMap:
    """``basis [r, L]`` and ``heads [D, H, r]``, float64, in centred coordinates."""
    rank, lookback = basis.shape
    variates, horizon, _ = heads.shape
    folded = LowRankMap(lookback, horizon, variates, rank)
    folded.basis[:, :rank] = (basis - basis.mean(dim=1, keepdim=True)).T
    folded.basis[:, rank] = 1 / lookback
    folded.heads[:, :rank] = heads.transpose(1, 2)
    folded.heads[:, rank] = 1
    return folded


def mean_added(weight: Tensor) -> Tensor:
    """``W + (1 - W 1) 1^T / L``: what ``m + W (x - m)`` is in the units of the window; ``[..., H, L]``."""
    return weight + (1 - weight.sum(dim=-1, keepdim=True)) / weight.shape[-1]
