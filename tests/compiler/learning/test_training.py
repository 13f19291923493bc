"""The training loop: what a plan says is what happens to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.learning.training import TrainingPlan, TrainingResult, train

PLAN = TrainingPlan(epochs=3, learning_rate=0.05, batch_size=4, patience=9, seed=1)
WINDOWS = 16


class Line(nn.Module):
    """``y = w x`` against ``y = 2 x + noise``; window i is number i."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []
        self.path: list[float] = []

    def forward(self, indices: Tensor) -> dict[str, Tensor]:
        self.seen.append(indices.tolist())
        self.path.append(float(self.w.detach()))
        x = 1 + indices.float() / WINDOWS
        noise = torch.sin(7.0 * indices)
        return {"loss": (self.w * x - 2 * x - noise).square().mean()}


def run(
    plan: TrainingPlan, folder: Path | None, validate: Any = None, **more: Any
) -> tuple[Line, TrainingResult, list[float]]:
    """The trained line, the result, and the weight at every judgement."""
    line, judged = Line(), list[float]()

    def judge() -> float:
        judged.append(line.w.item())
        return -float(len(judged)) if validate is None else float(validate(line))

    def fetch(indices: Sequence[int]) -> tuple[Tensor, ...]:
        return (torch.as_tensor(list(indices)),)

    result = train(
        line,
        windows=WINDOWS,
        fetch=fetch,
        validate=judge,
        plan=plan,
        workspace=folder,
        progress=Silent(),
        title="test",
        **more,
    )
    return line, result, judged


def averages(path: Sequence[float], decay: float) -> list[float]:
    """The running average by its definition, after every step; ``path`` has the weight after each."""
    found, mean = [], path[0]
    for step, weight in enumerate(path, start=1):
        warm = min(decay, (1 + step) / (10 + step))
        mean = warm * mean + (1 - warm) * weight
        found.append(mean)
    return found


def test_every_epoch_visits_all_windows_in_an_order_of_its_own(tmp_path: Path) -> None:
    line, _, _ = run(PLAN, tmp_path)
    flat = [index for batch in line.seen for index in batch]
    epochs = [tuple(flat[at : at + WINDOWS]) for at in range(0, len(flat), WINDOWS)]
    assert len(epochs) == 3 and len(set(epochs)) == 3
    assert all(sorted(epoch) == list(range(WINDOWS)) for epoch in epochs)
    assert run(replace(PLAN, seed=2), tmp_path / "other")[0].seen != line.seen
    assert run(PLAN, tmp_path / "again")[0].seen == line.seen


def test_averaged_weights_are_judged_and_kept_and_never_trained_on(tmp_path: Path) -> None:
    plain, _, _ = run(replace(PLAN, averaging=0), tmp_path / "plain")
    line, _, judged = run(replace(PLAN, averaging=0.9), tmp_path / "averaged")
    # Judging puts the averages in; were they left there, the path of the weights would be another one.
    assert line.path == plain.path
    # path[i] is the weight before step i, so the weights after steps 1 .. n-1 are path[1:].
    expected = averages(plain.path[1:], 0.9)
    steps = WINDOWS // PLAN.batch_size
    assert judged[1] == pytest.approx(expected[steps - 1], rel=1e-5)
    assert judged[2] == pytest.approx(expected[2 * steps - 1], rel=1e-5)
    assert line.w.item() == judged[-1]  # the last epoch is the best here


def test_the_average_warms_up(tmp_path: Path) -> None:
    """A decay of nearly 1 would stay where training started; the warm-up forgets that start."""
    line, _, judged = run(replace(PLAN, averaging=0.9999), tmp_path)
    steps = WINDOWS // PLAN.batch_size
    expected = averages(line.path[1:], 0.9999)[2 * steps - 1]
    assert judged[2] == pytest.approx(expected, rel=1e-5)
    assert abs(expected) > 0.2 * abs(line.path[2 * steps])


def test_weight_decay_shrinks_weights(tmp_path: Path) -> None:
    """AdamW: before the gradient's step, w <- (1 - rate * decay) w."""
    plan = replace(PLAN, epochs=1, batch_size=WINDOWS)
    ends = []
    for decay in (0.0, 0.5):
        line = Line()
        with torch.no_grad():
            line.w.fill_(3.0)
        train(
            line,
            windows=WINDOWS,
            fetch=lambda indices: (torch.as_tensor(list(indices)),),
            validate=lambda: 0.0,
            plan=replace(plan, weight_decay=decay),
            workspace=tmp_path / str(decay),
            progress=Silent(),
            title="test",
        )
        ends.append(line.w.item())
    assert ends[0] - ends[1] == pytest.approx(PLAN.learning_rate * 0.5 * 3.0, rel=1e-4)


def test_a_resumed_run_has_the_same_average(tmp_path: Path) -> None:
    plan = replace(PLAN, averaging=0.99)
    whole = run(plan, tmp_path / "whole")[2]
    run(replace(plan, epochs=2), tmp_path / "killed")
    resumed = run(plan, tmp_path / "killed")[2]
    assert resumed[-1] == whole[-1]


def test_patience_ends_it_and_the_best_epoch_comes_back(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    plan = replace(PLAN, epochs=5, patience=2)
    line, result, judged = run(plan, tmp_path, validate=lambda _: next(losses))
    assert result.validation == (3.0, 1.0, 2.0, 2.0) and result.best_epoch == 1
    assert line.w.item() == judged[1]


def test_the_untrained_state_is_a_candidate_only_where_asked(tmp_path: Path) -> None:
    rising = iter(range(100))
    kept, result, _ = run(PLAN, None, validate=lambda _: next(rising), keep_initial=True)
    assert result.best_epoch == 0 and kept.w.item() == 0
    moved, result, _ = run(PLAN, None, validate=lambda _: next(rising))
    assert result.best_epoch == 1 and moved.w.item() != 0


def test_without_a_workspace_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(PLAN, None)
    assert not list(tmp_path.iterdir())
