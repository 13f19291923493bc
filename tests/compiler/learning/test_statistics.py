"""Sufficient statistics: they are the sums that they claim to be, add up, and never look ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from series import make_data, teacher_of, unscaled, waves, windows_of
from torch import Tensor

from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.learning.statistics import (
    Sums,
    WindowStatistics,
    hankel_sums,
    series_sums,
    window_sums,
)

RELATIVE = 1e-10


def direct(past: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sums by their definition, window by window, with the digits of long doubles.

    Args:
        past: ``[N, D, L]``.
        target: ``[N, D, H]``.
    """
    x, y = past.numpy().astype(np.longdouble), target.numpy().astype(np.longdouble)
    mean = x.mean(axis=-1, keepdims=True)
    x, y = x - mean, y - mean
    gram = np.stack([x[:, d].T @ x[:, d] for d in range(x.shape[1])])
    cross = np.stack([x[:, d].T @ y[:, d] for d in range(x.shape[1])])
    return gram, cross, (y * y).sum(axis=0)


def assert_same(sums: Sums, past: Tensor, target: Tensor, name: str = "truth", rel: float = RELATIVE) -> None:
    """Against ``direct``, relative to the largest entry that each variate's sums could have."""
    gram, cross, square = direct(past, target)
    assert sums.count == len(past)
    for d in range(past.shape[1]):
        diagonal, norm = gram[d].diagonal().max(), square[d].max()
        assert np.abs(sums.gram[d].numpy() - gram[d]).max() <= rel * diagonal
        assert np.abs(sums.cross[name][d].numpy() - cross[d]).max() <= rel * np.sqrt(diagonal * norm)
        assert np.abs(sums.square[name][d].numpy() - square[d]).max() <= rel * norm


def slices(series: np.ndarray, lookback: int, horizon: int) -> tuple[Tensor, Tensor]:
    view = np.lib.stride_tricks.sliding_window_view(series, lookback + horizon, axis=0)
    both = torch.from_numpy(view.copy())
    return both[..., :lookback], both[..., lookback:]


SHAPES = [
    "noise",
    "constant",
    "level",
    "step",
    "drift",
    "walk",
    "spike",
    "wave",
    "cancel",
]


def series_of(kind: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """One variate ``[T]`` of a kind that is hard on sums."""
    noise = rng.standard_normal(rows)
    ramp = np.arange(rows)
    match kind:
        case "constant":
            return np.full(rows, 0.1)  # no binary fraction: its mean is not exactly itself
        case "level":
            return 1e6 + noise
        case "step":
            return noise + 1e4 * (ramp > rows // 2)
        case "drift":
            return noise + 1e3 * ramp
        case "walk":
            return np.cumsum(100 * noise)
        case "spike":
            return noise + 1e6 * (ramp == rows // 3)
        case "wave":
            return np.sin(2 * np.pi * ramp / 7)
        case "cancel":
            return 1e-3 * noise + 1e3 * np.sin(2 * np.pi * ramp / (4 * rows))
    return noise


@settings(max_examples=50, deadline=None)
@given(
    windows=st.integers(1, 90),
    lookback=st.integers(1, 40),
    horizon=st.integers(1, 17),
    kinds=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_hankel_sums_are_direct_sums(
    windows: int, lookback: int, horizon: int, kinds: list[str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = windows + lookback + horizon - 1
    series = np.stack([series_of(kind, rows, rng) for kind in kinds], axis=1)
    assert_same(hankel_sums(series, lookback, horizon), *slices(series, lookback, horizon))


@pytest.mark.parametrize("kind", SHAPES)
def test_hankel_sums_of_a_long_lookback(kind: str) -> None:
    """The recursion runs over hundreds of rows, and rounding does not pile up."""
    series = series_of(kind, 500, np.random.default_rng(1))[:, None]
    assert_same(hankel_sums(series, 240, 24), *slices(series, 240, 24))


def test_a_drift_that_would_cancel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uncentred sums of such a segment have not enough digits: without the way round it, this fails."""
    series = np.random.default_rng(0).standard_normal((12_000, 1)) + 1e3 * np.arange(12_000)[:, None]
    monkeypatch.setattr("tsfmc.compiler.learning.statistics.LOST_DIGITS", np.inf)
    with pytest.raises(AssertionError):
        assert_same(hankel_sums(series, 4, 2), *slices(series, 4, 2))
    monkeypatch.undo()
    assert_same(hankel_sums(series, 4, 2), *slices(series, 4, 2))


def test_a_constant_variate_gives_exact_zeros() -> None:
    series = np.full((100, 2), 0.1)
    series[:, 1] = 1e9 + 0.3
    for sums in (hankel_sums(series, 24, 6), window_sums(*slices(series, 24, 6))):
        assert not sums.gram.any() and not sums.cross["truth"].any() and not sums.square["truth"].any()


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 30),
    variates=st.integers(1, 3),
    lookback=st.integers(1, 12),
    horizon=st.integers(1, 8),
    level=st.sampled_from([0.0, 1e7]),
)
def test_sums_over_windows_in_any_order(
    count: int, variates: int, lookback: int, horizon: int, level: float
) -> None:
    rng = np.random.default_rng(count)
    past = torch.from_numpy(level + rng.standard_normal((count, variates, lookback)))
    target = torch.from_numpy(level + rng.standard_normal((count, variates, horizon)))
    sums = window_sums(past, target, "teacher")
    assert_same(sums, past, target, "teacher")
    order = torch.from_numpy(rng.permutation(count))
    assert_same(window_sums(past[order], target[order], "teacher"), past, target, "teacher")


def test_sums_add() -> None:
    past, target = slices(waves(200), 12, 5)
    whole = window_sums(past, target)
    first, second = window_sums(past[:70], target[:70]), window_sums(past[70:], target[70:])
    for sums in (first + second, second + first):
        assert_same(sums, past, target)
    assert first.count == 70  # adding leaves its parts as they are
    accumulated = first.accumulate(second)
    assert accumulated.count == whole.count and accumulated.gram is first.gram
    assert_same(accumulated, past, target)


def test_pooled_is_all_variates_as_one() -> None:
    past, target = slices(waves(200), 12, 5)
    pooled = window_sums(past, target).pooled()
    assert_same(pooled, past.reshape(-1, 1, 12), target.reshape(-1, 1, 5))


class Watched:
    """Values that note how many rows were asked for at once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.longest = values, 0

    def __getitem__(self, rows: Any) -> np.ndarray:
        found = self.values[rows]
        self.longest = max(self.longest, len(found))
        return found


def test_memory_is_bounded_by_pieces() -> None:
    """Many more windows than a piece holds: read piece by piece, labels too, and nothing lost at a seam."""
    rows, lookback, horizon = 40_000, 6, 3
    values = waves(rows, 1)
    data = make_data(values, Splits(39_000, 500, 500))
    watched = Watched(values)
    object.__setattr__(data, "values", watched)
    asked: list[int] = []
    windows = 39_000 - lookback - horizon + 1

    def labels(first: int, last: int) -> np.ndarray:
        asked.extend(range(first, last))
        longest.append(last - first)
        return np.full((last - first, 1, horizon), 0.5, np.float32)

    longest: list[int] = []
    sums = series_sums(data, lookback, horizon, 0, windows, [("teacher", labels)])
    assert watched.longest <= (1 << 14) + lookback + horizon and max(longest) <= 1024
    assert asked == list(range(windows))
    past, target = windows_of(make_data(values, Splits(39_000, 500, 500)), "train", lookback, horizon)
    assert_same(sums, past, target)
    assert_same(sums, past, torch.full_like(target, 0.5), "teacher")


def test_a_stretch_without_windows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no windows in 5\.\.5"):
        series_sums(make_data(waves()), 12, 5, 5, 5)


@settings(max_examples=15, deadline=None)
@given(
    begin=st.integers(0, 100),
    count=st.integers(1, 120),
    lookback=st.integers(2, 20),
    horizon=st.integers(1, 9),
)
def test_series_sums_with_a_teacher(begin: int, count: int, lookback: int, horizon: int) -> None:
    """Any stretch of training: scaled like the windows that models see, and labels beside their windows."""
    data = make_data(waves(500))
    labels, forecast = teacher_of(data, lookback, horizon)
    sums = series_sums(data, lookback, horizon, begin, begin + count, [("teacher", labels)])
    past, future = windows_of(data, "train", lookback, horizon)
    chosen = slice(begin, begin + count)
    assert_same(sums, past[chosen], future[chosen])
    assert_same(sums, past[chosen], forecast[chosen], "teacher")
    seen, _ = data.windows("train", lookback, horizon).batch(range(begin, begin + count))
    torch.testing.assert_close(seen.double(), past[chosen], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", ["ffill", "interpolate"])
def test_gaps_are_summed_as_they_were_filled(policy: Any, tmp_path: Path) -> None:
    """Missing rows and empty cells: the sums are those of the filled windows that models are given."""
    frame = pd.DataFrame(waves(400, 2), columns=["a", "b"])
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=400, freq="h"))
    frame.loc[50:70, "a"] = np.nan
    frame = frame.drop(index=range(120, 135))
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    data = load_data(tmp_path / "gaps.csv", lookback=12, horizon=5, missing=policy)
    assert data.filled.cells and data.filled.rows
    count = len(data.windows("train", 12, 5))
    sums = series_sums(data, 12, 5, 0, count)
    assert_same(sums, *windows_of(data, "train", 12, 5))
    past, future = data.windows("train", 12, 5).batch(range(count))
    assert_same(sums, past.double(), future.double(), rel=1e-5)


# --- folds -------------------------------------------------------------------------------------------

LOOKBACK, HORIZON, BLOCKS = 24, 7, 6


def folds_of(values: np.ndarray, splits: Splits, blocks: int = BLOCKS) -> list[tuple[str, Sums, Sums]]:
    """All folds, by value: a source may overwrite a fold once the next one is asked for."""
    data = unscaled(make_data(values, splits))
    labels, _ = teacher_of(data, LOOKBACK, HORIZON)
    source = WindowStatistics(data, LOOKBACK, HORIZON, [("teacher", labels)], blocks=blocks)
    found = []
    for fold in source.folds():
        copy = Sums(fold.fit.count, fold.fit.gram.clone(), dict(fold.fit.cross), dict(fold.fit.square))
        copy = Sums(
            copy.count,
            copy.gram,
            {name: value.clone() for name, value in copy.cross.items()},
            {name: value.clone() for name, value in copy.square.items()},
        )
        found.append((fold.name, copy, fold.judged))
    return found


def test_folds_are_the_windows_that_they_say() -> None:
    values, splits = waves(620), Splits(400, 100, 120)
    data = unscaled(make_data(values, splits))
    past, future = windows_of(data, "train", LOOKBACK, HORIZON)
    _, forecast = teacher_of(data, LOOKBACK, HORIZON)
    edges = [len(past) * block // BLOCKS for block in range(BLOCKS + 1)]
    folds = folds_of(values, splits)
    assert [name for name, _, _ in folds] == ["block 2", "block 3", "block 4", "block 5", "validation"]
    for block, (_, fit, judged) in zip(range(2, BLOCKS), folds, strict=False):
        until = edges[block] - HORIZON + 1
        assert_same(fit, past[:until], future[:until])
        assert_same(fit, past[:until], forecast[:until], "teacher")
        assert_same(judged, past[edges[block] : edges[block + 1]], future[edges[block] : edges[block + 1]])
        assert judged.cross.keys() == {"truth"}  # a judgement knows the truth alone
    _, fit, judged = folds[-1]
    assert_same(fit, past, future)
    assert_same(fit, past, forecast, "teacher")
    assert_same(judged, *windows_of(data, "val", LOOKBACK, HORIZON))


@pytest.mark.parametrize("block", [2, 3, 5, "validation"])
def test_a_fit_never_sees_what_is_judged(block: int | str) -> None:
    """Rows from the first judged future on are poison; the row before it is used."""
    values, splits = waves(620), Splits(400, 100, 120)
    windows = 400 - LOOKBACK - HORIZON + 1
    first_judged = 400 if block == "validation" else windows * int(block) // BLOCKS + LOOKBACK
    name = "validation" if block == "validation" else f"block {block}"
    poisoned = values.copy()
    poisoned[first_judged:] = np.nan
    fit, judged = next((fit, judged) for found, fit, judged in folds_of(poisoned, splits) if found == name)
    clean = next(fit for found, fit, _ in folds_of(values, splits) if found == name)
    for one, other in ((fit.gram, clean.gram), (fit.cross["truth"], clean.cross["truth"])):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert judged.square["truth"].isnan().any()
    poisoned[first_judged - 1] = np.nan
    fit = next(fit for found, fit, _ in folds_of(poisoned, splits) if found == name)
    assert fit.cross["truth"].isnan().any()


def test_the_test_split_is_never_read() -> None:
    values, splits = waves(620), Splits(400, 100, 120)
    poisoned = values.copy()
    poisoned[500:] = np.nan
    for (name, fit, judged), (other, fit2, judged2) in zip(
        folds_of(values, splits), folds_of(poisoned, splits), strict=True
    ):
        assert name == other
        torch.testing.assert_close(fit.gram, fit2.gram, rtol=0, atol=0)
        torch.testing.assert_close(judged.square["truth"], judged2.square["truth"], rtol=0, atol=0)


@pytest.mark.parametrize(("blocks", "folds"), [(6, 5), (15, 14), (60, 1)])
def test_blocks_shorter_than_a_future_leave_validation_alone(blocks: int, folds: int) -> None:
    """Training has 370 windows: blocks of 61 and of 24 windows are longer than a future, those of 6 not."""
    found = folds_of(waves(620), Splits(400, 100, 120), blocks)
    assert len(found) == folds and found[-1][0] == "validation"
    assert found[-1][1].count == 400 - LOOKBACK - HORIZON + 1


def test_all_of_training_whether_or_not_folds_were_walked() -> None:
    data = make_data(waves(620), Splits(400, 100, 120))
    labels, forecast = teacher_of(data, LOOKBACK, HORIZON)
    past, future = windows_of(data, "train", LOOKBACK, HORIZON)
    walked, fresh = (WindowStatistics(data, LOOKBACK, HORIZON, [("teacher", labels)]) for _ in range(2))
    assert len(list(walked.folds())) == 7  # blocks 2 to 7 of the default 8, and validation
    for source in (walked, fresh):
        assert source.targets == ("truth", "teacher") and source.windows == len(past)
        assert_same(source.all(), past, future)
        assert_same(source.all(), past, forecast, "teacher")
    again = list(walked.folds())[-1]  # a second walk starts anew
    assert_same(again.fit, past, future)


def test_a_prior_is_in_every_fold_of_a_source_of_its_own() -> None:
    source = WindowStatistics(make_data(waves(620), Splits(400, 100, 120)), LOOKBACK, HORIZON, key="plain")
    prior = source.all()
    other = source.with_prior(prior, "walks")
    assert all(fold.prior is prior for fold in other.folds())
    assert (source.key, source.prior) == ("plain", None)
    assert other.key not in ("plain", source.with_prior(prior, "cycles").key)
