"""Verdicts over folds, against sums written out."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tsfmc.compiler.learning.affine import Setting, setting_of
from tsfmc.compiler.learning.branch_origin import Judge, branch_basis
from tsfmc.compiler.learning.statistics import window_sums


class Windows:
    """``[N, 1, 2]`` pasts and futures."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(count)
        self.past = torch.randn(count, 1, 2, generator=generator)
        self.future = torch.randn(count, 1, 2, generator=generator)

    def batch(self, indices: Any) -> tuple[Tensor, Tensor]:
        return self.past[list(indices)], self.future[list(indices)]


class Parts(torch.nn.Module):
    """A student whose affine part is the past, and whose branch says ``says`` times the past squared."""

    def __init__(self, says: float) -> None:
        super().__init__()
        self.says = torch.nn.Parameter(torch.tensor(says))

    def parts(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return past, self.says * past.square(), past


def fold(count: int, skip: int) -> Any:
    return SimpleNamespace(judged=range(skip, count), judged_of=Windows(count))


def error(origin: Any, says: float, gain: float) -> float:
    past, future = origin.judged_of.batch(origin.judged)
    return float((future - past - gain * says * past.square()).square().mean())


def test_every_gain_and_epoch_is_judged_by_the_mean_log_ratio() -> None:
    folds, says = [fold(700, 3), fold(40, 0)], [0.0, 0.3, -0.4]
    judge = Judge(gains=(0.5, 1.0))
    for origin in folds:
        judge.open()
        for epoch in says:
            judge.measure(origin, Parts(epoch))  # type: ignore[arg-type]
    for epoch, value in enumerate(says):
        means = [
            sum(math.log(error(f, value, gain) / error(f, 0, 0)) for f in folds) / 2 for gain in (0.5, 1.0)
        ]
        verdict = judge.verdict(epoch)
        assert verdict.log_ratio == pytest.approx(min(means), abs=1e-6)
        assert verdict.gain == (0.5, 1.0)[means.index(min(means))]
        spread = verdict.ratios[0] - verdict.ratios[1]
        assert verdict.standard_error == pytest.approx(abs(spread) / 2)
    lowest = min(range(3), key=lambda epoch: judge.verdict(epoch).log_ratio)
    assert judge.best() == judge.verdict(lowest)


def test_nothing_trained_scores_nothing_and_wins_ties() -> None:
    judge = Judge()
    judge.open()
    for _ in range(3):
        assert judge.measure(fold(20, 0), Parts(0.0)) == 0  # type: ignore[arg-type]
    assert judge.best().epochs == 0


def test_a_setting_comes_back_from_plain_fields() -> None:
    setting = Setting("low-rank", 8, 10.0, math.inf, 1.0, (("a", 0.25), ("b", 0.75)))
    assert setting_of(json.loads(json.dumps(asdict(setting)))) == setting


@pytest.mark.parametrize(("size", "directions"), [(3, 3), (6, 6), (100, 8)])
def test_an_embedding_has_as_many_directions_as_there_are(size: int, directions: int) -> None:
    """At most ``lookback - 1``, the level being none of them, and as many as there are outputs."""
    generator = torch.Generator().manual_seed(0)
    past, future = (torch.randn(60, 2, n, generator=generator).double() for n in (10, 4))
    _, embedding = branch_basis(window_sums(past, future), Setting("shared", 0, 5.0), size)
    assert embedding.shape == (directions, 10)
