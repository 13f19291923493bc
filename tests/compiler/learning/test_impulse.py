"""Whether a forecaster is one affine map is asked of it, and the map is found."""

from __future__ import annotations

import numpy as np
import torch
from artifacts import LinearForecaster

from tsfmc.compiler.learning.impulse import impulse_response
from tsfmc.compiler.students.affine import AffineMap, AffineMaps


def test_the_map_of_each_chosen_variate_oldest_step_first() -> None:
    model = AffineMaps(lookback=6, horizon=4, variates=3)
    torch.nn.init.normal_(model.matrices)
    maps = impulse_response(model, 3, 6, [2, 0])
    assert maps is not None and maps.shape == (2, 4, 6)
    np.testing.assert_allclose(maps, model.matrices.detach()[[2, 0]].transpose(1, 2), atol=1e-5)


def test_a_bias_is_not_part_of_the_map() -> None:
    model = AffineMap(lookback=5, horizon=2, bias=True)
    torch.nn.init.normal_(model.matrix)
    torch.nn.init.constant_(model.bias, 7.0)
    maps = impulse_response(model, 1, 5, [0])
    assert maps is not None
    np.testing.assert_allclose(maps[0], model.matrix.detach().T, atol=1e-5)


def test_a_forecaster_that_divides_by_the_spread_has_none() -> None:
    """Its window [-1, 1] times two gives twice the forecast; only sums of two windows tell."""
    assert impulse_response(LinearForecaster(32, 8), 3, 32, [0]) is None
