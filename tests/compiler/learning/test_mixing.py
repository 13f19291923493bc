"""Which mix of teachers is chosen, on series where it is known which one should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from series import make_data, waves, windows_of

from tsfmc.compiler.data.splits import Splits
from tsfmc.compiler.learning.grid import Grid
from tsfmc.compiler.learning.mixing import Mixing, choose_mix, mixes_of
from tsfmc.compiler.learning.pieces import Labels
from tsfmc.compiler.learning.statistics import WindowStatistics

LOOKBACK, HORIZON = 20, 6
DATA = make_data(waves(620), Splits(420, 90, 110))


def labels_with(error: float, seed: int) -> Labels:
    """The truth and an error of its own."""
    _, truth = windows_of(DATA, "train", LOOKBACK, HORIZON)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    forecasts = (truth + error * noise).numpy().astype(np.float32)
    return lambda first, last: forecasts[first:last]


def reversed_truth(first: int, last: int) -> np.ndarray:
    """A teacher that is wrong about everything."""
    _, truth = windows_of(DATA, "train", LOOKBACK, HORIZON)
    return -truth[first:last].numpy().astype(np.float32)


def chosen(**teachers: Labels) -> Mixing:
    statistics = WindowStatistics(DATA, LOOKBACK, HORIZON, list(teachers.items()), blocks=6)
    grid = Grid(mixes=mixes_of(statistics.teachers), ridges=(1.0, 100.0), distill=(0.0, 0.5, 2.0, math.inf))
    return choose_mix(statistics, grid)


def test_the_mixes() -> None:
    assert mixes_of([]) == () and mixes_of(["a"]) == ((("a", 1.0),),)
    assert [dict(mix) for mix in mixes_of(["a", "b"])] == [
        {"a": 1.0}, {"b": 1.0}, {"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}, {"a": 0.25, "b": 0.75},
    ]  # fmt: skip
    three = mixes_of(["a", "b", "c"])
    assert len(three) == 4 and dict(three[-1]) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})


def test_the_teacher_that_knows_is_taken_wherever_it_stands() -> None:
    good = labels_with(0.05, 0)
    assert dict(chosen(teacher=good, other=reversed_truth).chosen) == {"teacher": 1.0}
    assert dict(chosen(teacher=reversed_truth, other=good).chosen) == {"other": 1.0}


def test_of_two_that_know_alike_the_first_is_taken_alone() -> None:
    """A second one that says the same is another licence to heed and brings nothing."""
    same = labels_with(0.05, 0)
    assert dict(chosen(teacher=same, other=same).chosen) == {"teacher": 1.0}


def test_every_mix_stands_in_the_table_with_its_best_setting() -> None:
    mixing = chosen(teacher=labels_with(0.05, 0), other=reversed_truth)
    assert [row["teachers"] for row in mixing.table] == [dict(mix) for mix in mixes_of(("teacher", "other"))]
    assert [row["teachers"] for row in mixing.table if row["chosen"]] == [dict(mixing.chosen)]
    by_name = {tuple(row["teachers"]): row for row in mixing.table[:2]}
    assert by_name[("teacher",)]["log_ratio"] < by_name[("other",)]["log_ratio"]
    assert by_name[("other",)]["lambda"] == 0.5, "the smallest weight that is tried"
