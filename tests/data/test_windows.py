"""Windows: count, stride, scaling, and independence of how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import DataError, UsageError
from tsfmc.compiler.data import PARTS, Dataset, Splits, load_data


def dataset(splits: Splits, variates: int = 2) -> Dataset:
    """Row t of variate d holds ``100 d + t``, so a window says where it comes from."""
    rows = splits.train + splits.val + splits.test
    values = np.arange(rows)[:, None] + 100.0 * np.arange(variates)
    names = tuple(f"v{d}" for d in range(variates))
    mean, std = np.zeros(variates), np.ones(variates)
    return Dataset("numbers", "0" * 64, names, None, rows, splits, mean, std, values)


tasks = st.integers(1, 12).flatmap(
    lambda lookback: st.integers(1, 6).flatmap(
        lambda horizon: st.tuples(
            st.just(lookback),
            st.just(horizon),
            st.builds(
                Splits,
                st.integers(lookback + horizon, 40),
                st.integers(horizon, 20),
                st.integers(horizon, 20),
            ),
        )
    )
)


@given(tasks)
def test_every_future_lies_in_its_part_and_every_position_is_used_once(
    task: tuple[int, int, Splits],
) -> None:
    lookback, horizon, splits = task
    data = dataset(splits)
    for part in PARTS:
        windows = data.windows(part, lookback, horizon)
        past, future = windows.batch(range(len(windows)))
        begin, end = splits.span(part)
        first_future = begin + lookback if part == "train" else begin
        starts = torch.arange(first_future, end - horizon + 1)
        assert future[:, 0, 0].tolist() == starts.tolist()
        assert past.shape == (len(windows), 2, lookback)
        assert future.shape == (len(windows), 2, horizon)
        steps = torch.cat([past, future], dim=-1).diff(dim=-1)
        assert torch.equal(steps, torch.ones_like(steps))
        assert torch.equal(past[:, 1] - past[:, 0], torch.full_like(past[:, 0], 100.0))


@given(tasks, st.integers(1, 7), st.sampled_from(PARTS))
def test_batches_do_not_depend_on_the_batch_size(task: tuple[int, int, Splits], size: int, part: str) -> None:
    lookback, horizon, splits = task
    windows = dataset(splits).windows(part, lookback, horizon)
    whole = windows.batch(torch.arange(len(windows)))
    pieces = [windows.batch(range(i, min(i + size, len(windows)))) for i in range(0, len(windows), size)]
    for place in (0, 1):
        assert torch.equal(whole[place], torch.cat([piece[place] for piece in pieces]))


def test_batch_takes_any_order_and_refuses_what_is_outside() -> None:
    windows = dataset(Splits(20, 5, 5)).windows("train", 4, 2)
    past, _ = windows.batch(torch.tensor([3, 0, 3]))
    assert past[:, 0, 0].tolist() == [3, 0, 3]
    assert past.dtype == torch.float32
    assert past.is_contiguous()
    for outside in (-1, len(windows)):
        with pytest.raises(IndexError, match="train windows"):
            windows.batch([outside])


def test_no_window_names_split_rows_and_need() -> None:
    data = dataset(Splits(20, 3, 9))
    with pytest.raises(
        DataError, match=r"the val split has 3 rows, .* lookback 4 and horizon 6 needs 6 and 4"
    ):
        data.windows("train", 4, 6)
    with pytest.raises(DataError, match=r"the train split has 20 rows, .* needs 21"):
        data.windows("test", 18, 3)
    with pytest.raises(UsageError, match="horizon 0 is not positive"):
        data.windows("test", 4, 0)


def test_scaling_uses_the_train_split_and_the_population_deviation(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(50, 9, (60, 2)).round(3)
    text = "\n".join(["a,b", *(f"{a},{b}" for a, b in values)])
    (tmp_path / "noise.csv").write_text(text)
    data = load_data(tmp_path / "noise.csv", lookback=5, horizon=2, split="40,10,10")
    np.testing.assert_allclose(data.mean, values[:40].mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(data.std, values[:40].std(axis=0, ddof=0), rtol=1e-14)
    _, future = data.windows("test", 5, 2).batch([0])
    expected = (values[50:52] - values[:40].mean(axis=0)) / values[:40].std(axis=0)
    np.testing.assert_allclose(future[0].T.numpy(), expected, rtol=1e-6)


def test_values_are_a_memory_map_and_a_batch_a_copy() -> None:
    data = load_data("sample", lookback=512, horizon=96)
    assert isinstance(data.values, np.memmap)
    past, _ = data.windows("train", 512, 96).batch([0])
    past.zero_()
    again, _ = data.windows("train", 512, 96).batch([0])
    assert again.abs().sum() > 0


@settings(max_examples=20)
@given(st.integers(30, 400))
def test_fractions_follow_the_ltsf_convention(rows: int) -> None:
    from tsfmc.compiler.data.splits import resolve_split

    splits = resolve_split("ltsf", rows, "x")
    assert (splits.train, splits.test) == (int(rows * 0.7), int(rows * 0.2))
    assert splits.train + splits.val + splits.test == rows
    assert resolve_split("0.7,0.1,0.2", rows, "x") == splits
    assert resolve_split("0.5, 0.1, 0.1", rows, "x").train == int(rows * 0.5)
    assert resolve_split("20,5,5", rows, "x") == Splits(20, 5, 5)
