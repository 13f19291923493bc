"""Inputs beside the window: the joint least squares, judged by rolling origins, on data where they matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from series import make_data, teacher_of, waves, windows_of

from tsfmc.compiler.data.encoding import encode_cycle
from tsfmc.compiler.data.inputs import calendar_groups, column_groups, input_rows, seconds_of
from tsfmc.compiler.learning.affine import Setting, blend, ridge_of, squared_error
from tsfmc.compiler.learning.inputs import (
    Projection,
    choose_inputs,
    input_sums,
    solve_with_inputs,
)
from tsfmc.compiler.learning.statistics import Sums, WindowStatistics, series_sums

LOOKBACK, HORIZON = 16, 4
RNG = np.random.default_rng(3)


def with_columns(rows=900, effect=2.0, kind="known"):
    """Waves that a column moves: at the same step (known ahead), or a step later (past)."""
    values = waves(rows, 3)
    column = np.repeat(RNG.standard_normal(rows // 3 + 1), 3)[:rows]
    moved = np.roll(column, HORIZON) if kind == "past" else column
    data = make_data(values + effect * moved[:, None])
    known, past = (("price",), ()) if kind == "known" else ((), ("price",))
    groups = column_groups(known, past, [column.std()], LOOKBACK, HORIZON)
    data = replace(data, known=known, past=past, beside=column[:, None])
    return data, input_rows(data, groups, LOOKBACK, HORIZON)


def joint(data, rows, setting, ridge, labels=None):
    """The minimiser over W and B of each variate at once, from windows alone."""
    past, future = windows_of(data, "train", LOOKBACK, HORIZON)
    inputs = torch.from_numpy(rows.at(np.arange(len(past))))
    mean = past.mean(-1, keepdim=True)
    x, y = past - mean, future - mean
    if setting.distill:
        truth, teacher = blend(setting, HORIZON)
        y = y * truth + (torch.from_numpy(labels(0, len(past))).double() - mean) * teacher
    found = []
    own = ridge_of(inputs.T @ inputs, ridge / len(past))
    for d in range(x.shape[1]):
        both = torch.cat([x[:, d], inputs], dim=1)
        gram = both.T @ both
        # The student's ridge counts in what the inputs leave of the windows' Gram.
        left = x[:, d].T @ x[:, d] - (x[:, d].T @ inputs) @ torch.linalg.solve(
            inputs.T @ inputs + own * torch.eye(inputs.shape[1]), inputs.T @ x[:, d]
        )
        penalty = torch.full((len(gram),), own, dtype=torch.float64)
        penalty[:LOOKBACK] = ridge_of(left, setting.ridge / len(past))
        found.append(torch.linalg.solve(gram + torch.diag(penalty), both.T @ y[:, d]))
    return torch.stack(found)


@pytest.mark.parametrize("taught", [False, True])
def test_student_and_inputs_are_the_joint_minimiser(taught):
    data, rows = with_columns()
    labels, _ = teacher_of(data, LOOKBACK, HORIZON)
    setting = Setting("per-variate", 0, 5.0, *((0.5, 1.0, (("teacher", 1.0),)) if taught else ()))
    statistics = WindowStatistics(data, LOOKBACK, HORIZON, [("teacher", labels)])
    inputs = input_sums(data, rows, 0, statistics.windows, statistics.labels)
    solution, effect = solve_with_inputs(statistics.all(), inputs, setting, 3.0)
    wanted = joint(data, rows, setting, 3.0, labels)
    assert torch.allclose(solution.maps().mT, wanted[:, :LOOKBACK], rtol=1e-8, atol=1e-10)
    assert torch.allclose(effect, wanted[:, LOOKBACK:], rtol=1e-8, atol=1e-10)


def test_what_is_left_of_a_block_are_the_sums_of_what_is_left_of_its_windows():
    data, rows = with_columns()
    fitted = input_sums(data, rows, 0, 200)
    projection = Projection.of(fitted, 200, 10.0)
    got = projection.remainder(
        series_sums(data, LOOKBACK, HORIZON, 200, 300), input_sums(data, rows, 200, 300)
    )
    past, future = windows_of(data, "train", LOOKBACK, HORIZON)
    mean = past.mean(-1, keepdim=True)
    inputs = torch.from_numpy(rows.at(np.arange(200, 300)))
    x = (past - mean)[200:300].transpose(0, 1) - inputs @ projection.window
    y = (future - mean)[200:300].transpose(0, 1) - inputs @ projection.target["truth"]
    wanted = Sums(100, x.mT @ x, {"truth": x.mT @ y}, {"truth": y.square().sum(1)})
    for mine, other in (
        (got.gram, wanted.gram),
        (got.cross["truth"], wanted.cross["truth"]),
        (got.square["truth"], wanted.square["truth"]),
    ):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("kind", ["known", "past"])
def test_an_input_that_matters_is_kept_and_lowers_the_error(kind):
    data, rows = with_columns(kind=kind)
    statistics = WindowStatistics(data, LOOKBACK, HORIZON)
    choice = choose_inputs(statistics, rows, Setting("shared"))
    assert choice.kept == ("price",)
    (chosen,) = [row for row in choice.table if row["chosen"]]
    assert chosen["log_ratio"] < -0.2


def test_an_input_that_says_nothing_is_dropped():
    data, rows = with_columns(effect=0.0)
    statistics = WindowStatistics(data, LOOKBACK, HORIZON)
    assert choose_inputs(statistics, rows, Setting("shared")).kept == ()


def test_without_inputs_the_candidates_are_what_the_student_was_judged_by():
    data, rows = with_columns()
    statistics = WindowStatistics(data, LOOKBACK, HORIZON)
    table = choose_inputs(statistics, rows, Setting("low-rank", 3)).table
    assert table[0]["inputs"] == [] and table[0]["log_ratio"] == 0


def test_groups_are_added_one_by_one_and_what_says_nothing_stays_out():
    data, rows = with_columns()
    noise = RNG.standard_normal(len(data.beside))
    data = replace(data, known=("noise", "price"), beside=np.stack([noise, data.beside[:, 0]], 1))
    groups = column_groups(data.known, (), data.beside.std(0), LOOKBACK, HORIZON)
    rows = input_rows(data, groups, LOOKBACK, HORIZON)
    choice = choose_inputs(WindowStatistics(data, LOOKBACK, HORIZON), rows, Setting("shared"))
    assert choice.kept == ("price",)
    tried = [row["inputs"] for row in choice.table]
    assert tried[0] == [] and ["noise"] in tried and ["price"] in tried and ["noise", "price"] in tried


def test_harmonics_of_the_first_step_fix_those_of_every_later_one():
    (hour, weekday, yearday) = calendar_groups(3600.0)
    assert (hour.width, weekday.width, yearday.width) == (8, 12, 4)
    stamps = np.datetime64("2024-02-27T22:00:00", "us") + np.arange(40) * np.timedelta64(1, "h")
    for group in (hour, weekday, yearday):
        found = encode_cycle(group.name, group.harmonics, seconds_of(stamps))
        now, later = found[:-5], found[5:]
        effect, *_ = np.linalg.lstsq(now, later, rcond=None)
        assert np.abs(now @ effect - later).max() < 1e-9


def test_cycles_that_a_step_cannot_see_are_left_out():
    assert [group.name for group in calendar_groups(86_400.0)] == ["weekday", "yearday"]
    assert [group.width for group in calendar_groups(86_400.0)] == [6, 4]
    assert calendar_groups(None) == ()


def test_a_level_of_window_and_column_together_moves_the_forecast_with_it():
    _, rows = with_columns()
    lifted = replace(rows, columns=rows.columns + 50.0)
    starts = np.arange(20)
    assert np.allclose(rows.at(starts), lifted.at(starts))


def test_the_error_with_inputs_is_that_of_its_forecasts():
    """End to end from sums: the judged error equals the mean squared error of forecasts, window by window."""
    data, rows = with_columns()
    statistics = WindowStatistics(data, LOOKBACK, HORIZON)
    setting = Setting("low-rank", 3)
    sums = input_sums(data, rows, 0, statistics.windows)
    solution, effect = solve_with_inputs(statistics.all(), sums, setting, 10.0)
    past, future = windows_of(data, "val", LOOKBACK, HORIZON)
    first = data.windows("val", LOOKBACK, HORIZON).first
    starts = np.arange(first, first + len(past))
    forecast = solution.predict(past) + torch.einsum("ne,deh->ndh", torch.from_numpy(rows.at(starts)), effect)
    wanted = float((forecast - future).square().mean())
    projection = Projection.of(sums, statistics.windows, 10.0)
    block = series_sums(data, LOOKBACK, HORIZON, int(starts[0]), int(starts[-1]) + 1)
    judged = input_sums(data, rows, int(starts[0]), int(starts[-1]) + 1)
    assert squared_error(projection.remainder(block, judged), solution) == pytest.approx(wanted, rel=1e-9)
