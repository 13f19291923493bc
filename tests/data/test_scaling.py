"""One scaling for windows, statistics, self-test vectors and the device."""

from __future__ import annotations

import numpy as np

from tsfmc.compiler.data import Scaling, load_data


def test_every_variate_has_its_own_mean_and_deviation() -> None:
    scaling = Scaling([1.0, -10.0], [2.0, 0.5])
    raw = np.array([[1.0, 3.0, 5.0], [-10.0, -9.0, -11.0]])
    scaled = [[0.0, 1.0, 2.0], [0.0, 2.0, -2.0]]
    np.testing.assert_array_equal(scaling.scale(raw), scaled)
    np.testing.assert_array_equal(scaling.scale(np.stack([raw, raw]))[1], scaled)
    np.testing.assert_array_equal(scaling.unscale(np.array(scaled)), raw)


def test_float32_is_scaled_in_float64() -> None:
    scaling = Scaling([1e8], [1e-3])
    assert scaling.unscale(np.float32([[1.0]])).dtype == np.float64
    assert scaling.unscale(np.float32([[1.0]]))[0, 0] == 1e8 + 1e-3


def test_windows_are_scaled_by_it() -> None:
    data = load_data("sample", lookback=8, horizon=4)
    past, future = data.windows("train", 8, 4).batch([3])
    raw = data.scaling.unscale(np.concatenate([past[0].numpy(), future[0].numpy()], axis=-1))
    np.testing.assert_allclose(raw, data.values[3:15].T, rtol=1e-5, atol=1e-5 * float(data.std.max()))
