"""What affine students fold into: ``m + W (x - m)`` without taking a mean at run time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tsfmc.compiler.ir.forecaster import Forecaster, parameter_count
from tsfmc.compiler.ir.products import product_of_each
from tsfmc.compiler.students import from_config
from tsfmc.compiler.students.affine import (
    AffineMap,
    AffineMaps,
    LowRankMap,
    fold_low_rank,
    fold_per_variate,
    fold_shared,
    mean_added,
)


def centred(weights: Tensor, past: Tensor) -> Tensor:
    """``m + W_d (x - m)`` in float64; weights ``[D, H, L]``."""
    past = past.double()
    mean = past.mean(-1, keepdim=True)
    return torch.einsum("dhl,bdl->bdh", weights, past - mean) + mean


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4),
    variates=st.integers(1, 4),
    lookback=st.integers(1, 40),
    horizon=st.integers(1, 9),
    rank=st.integers(1, 6),
    level=st.sampled_from([0.0, 100.0]),
)
def test_every_form_is_its_map_in_centred_coordinates(
    batch: int, variates: int, lookback: int, horizon: int, rank: int, level: float
) -> None:
    generator = torch.Generator().manual_seed(lookback)
    basis = torch.randn(rank, lookback, generator=generator).double()
    heads = torch.randn(variates, horizon, rank, generator=generator).double()
    weights = torch.randn(variates, horizon, lookback, generator=generator).double()
    past = level + torch.randn(batch, variates, lookback, generator=generator)
    same = weights[:1].expand(variates, -1, -1)
    folded: list[tuple[Forecaster, Tensor]] = [
        (fold_shared(mean_added(weights[0])), same),
        (fold_per_variate(weights), weights),
        (fold_low_rank(basis, heads), heads @ basis),
    ]
    for model, maps in folded:
        expected = centred(maps, past)
        # Float32 keeps the digits of the products that are summed.
        size = float((past.abs().double() @ torch.ones(lookback, 1).double()).max()) * float(
            maps.abs().max() + 1
        )
        assert float((model(past).detach() - expected).abs().max()) <= 1e-6 * size
        rebuilt = from_config(model.config)
        rebuilt.load_state_dict(model.state_dict(), strict=True)
        assert type(rebuilt) is type(model) and torch.equal(rebuilt(past), model(past))


def test_rows_sum_to_one() -> None:
    """So a shifted window has a shifted forecast, without a mean."""
    weights = torch.randn(2, 5, 7, 11).double()
    torch.testing.assert_close(mean_added(weights).sum(-1), torch.ones(2, 5, 7).double())
    # What is added is the same for every step of the window.
    added = mean_added(weights) - weights
    torch.testing.assert_close(added, added[..., :1].expand_as(added))


def test_a_map_with_a_bias_in_the_units_of_the_window() -> None:
    weight, bias = torch.randn(3, 8).double(), torch.randn(3).double()
    past = torch.randn(2, 4, 8)
    folded = fold_shared(weight, bias)
    torch.testing.assert_close(folded(past), (past.double() @ weight.T + bias).float())
    assert folded.bias is not None and fold_shared(weight).bias is None
    torch.testing.assert_close(fold_shared(weight)(past), (past.double() @ weight.T).float())


def test_the_low_rank_form_has_one_more_row_for_the_mean() -> None:
    folded = fold_low_rank(torch.randn(3, 10).double(), torch.randn(2, 4, 3).double())
    assert folded.basis.shape == (10, 4) and folded.heads.shape == (2, 4, 4)
    torch.testing.assert_close(folded.basis[:, -1], torch.full((10,), 0.1))
    torch.testing.assert_close(folded.basis[:, :-1].sum(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert torch.equal(folded.heads[:, -1], torch.ones(2, 4))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (AffineMap(512, 96, bias=False), 49_152),
        (AffineMap(512, 96, bias=True), 49_248),
        (AffineMaps(512, 96, 21), 1_032_192),
        (LowRankMap(512, 96, 21, 8), 9 * (512 + 21 * 96)),
    ],
)
def test_sizes(model: Forecaster, parameters: int) -> None:
    assert parameter_count(model) == parameters
    assert model(torch.ones(2, 21, 512)).shape == (2, 21, 96)


def test_product_of_each() -> None:
    rows, matrices = torch.randn(5, 3, 4), torch.randn(3, 4, 6)
    expected = torch.stack([rows[:, d] @ matrices[d] for d in range(3)], dim=1)
    torch.testing.assert_close(product_of_each(rows, matrices), expected)
