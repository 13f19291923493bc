"""Synthetic windows: seeded, scaled, and of the calendar of their step."""

from __future__ import annotations

import numpy as np
import pytest

from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.data.calendar import cycles_of
from tsfmc.compiler.data.synthetic import CHUNK_WINDOWS, synthetic_windows
from tsfmc.compiler.data.synthetic_data import synthetic_data


def test_equal_seeds_give_equal_windows_however_many_are_asked_for() -> None:
    few = synthetic_windows(3, 48, 12, step="h", seed=5)
    many = synthetic_windows(CHUNK_WINDOWS + 1, 48, 12, step="h", seed=5)
    assert np.array_equal(few, many[:3])
    assert not np.allclose(many[0], many[CHUNK_WINDOWS])
    assert not np.allclose(few, synthetic_windows(3, 48, 12, step="h", seed=6))


@pytest.mark.parametrize("step", ["h", "10min", "D", "W", "MS", "B", "YS", None])
def test_windows_are_scaled_over_their_lookback(step: str | None) -> None:
    windows = synthetic_windows(500, 96, 24, step=step)
    past = windows[:, :96]
    assert windows.shape == (500, 120) and np.isfinite(windows).all()
    assert np.abs(past.mean(axis=1)).max() < 1e-9
    deviation = past.std(axis=1)
    assert deviation.max() < 1 + 1e-9 and np.quantile(deviation, 0.02) > 1 - 1e-9


def _similarity(step: str | None, lag: int) -> float:
    """Mean correlation, ``lag`` apart, of what is left of windows without their level and trend."""
    windows = synthetic_windows(400, 512, 1, step=step)
    rough = np.diff(windows[:, ::4], n=2, axis=1)
    rough = rough[rough.std(axis=1) > 0]
    products = (rough[:, lag // 4 :] * rough[:, : -lag // 4]).mean(axis=1) / (rough**2).mean(axis=1)
    return float(products.mean())


@pytest.mark.parametrize(("step", "day"), [("h", 24), ("15min", 96)])
def test_windows_repeat_with_the_day_of_their_step(step: str, day: int) -> None:
    others = [_similarity(step, lag) for lag in (day // 2, day - 8, day + 8, day + day // 2)]
    assert _similarity(step, day) > max(others) + 0.05


def test_windows_of_an_unknown_step_have_no_day() -> None:
    assert _similarity(None, 24) < _similarity("h", 24) / 2


def test_calendar_cycles_in_steps() -> None:
    assert cycles_of("30min").periods == pytest.approx((48, 336, 17531.64))
    assert cycles_of("D").periods == pytest.approx((7, 30.436875, 365.2425))
    assert cycles_of("MS").periods == pytest.approx((12, 60, 120))
    assert cycles_of("QS").periods == pytest.approx((4, 20, 40))
    assert cycles_of(None).periods is None


@pytest.mark.parametrize("step", ["fortnight", "", "0h"])
def test_what_is_no_step_is_refused(step: str) -> None:
    with pytest.raises(UsageError, match=r"step .* is not understood .*expected a pandas offset alias"):
        synthetic_windows(1, 8, 2, step=step)


def test_windows_of_a_synthetic_data_set_have_no_row_in_common() -> None:
    data = synthetic_data("h", lookback=16, horizon=4, variates=("a", "b"), windows=101, seed=3)
    drawn = synthetic_windows(102, 16, 4, step="h", seed=3).reshape(51, 2, 20)
    parts = [data.windows(part, 16, 4) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [41, 5, 5]
    found = np.concatenate([np.concatenate(part.batch(range(len(part))), axis=-1) for part in parts])
    assert np.allclose(found, drawn, atol=1e-5)
    assert (data.mean == 0).all() and (data.std == 1).all()
    assert "nothing was measured" in data.unmeasured


def test_a_synthetic_data_set_refuses_what_it_has_not() -> None:
    with pytest.raises(UsageError, match="empty or repeated"):
        synthetic_data("h", lookback=16, horizon=4, variates=("a", "a"))
    data = synthetic_data("h", lookback=16, horizon=4, windows=30)
    with pytest.raises(UsageError, match="windows of 20 rows"):
        data.windows("train", 16, 5)
