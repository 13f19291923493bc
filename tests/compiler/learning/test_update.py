"""Statistics that are kept: added to in chunks, solved again, refused where rows do not follow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import MissingError, UsageError, VerificationError
from tsfmc.compiler.learning.affine import Setting, solve
from tsfmc.compiler.learning.statistics import Sums, hankel_sums, window_sums
from tsfmc.compiler.learning.update import (
    ENOUGH_CHUNKS,
    PRIORS,
    Header,
    State,
    check_follows,
    read_state,
    save_state,
    state_of,
)

LOOKBACK, HORIZON, VARIATES = 10, 4, 2
SPAN = LOOKBACK + HORIZON
SHARED = Setting("shared", 0, 5.0, prior=30.0)


def _rows(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cycle = np.sin(2 * np.pi * np.arange(count)[:, None] / [6, 8])
    return 50 + cycle * [3, 40] + 0.3 * rng.standard_normal((count, VARIATES)) * [3, 40]


def _header(**changes: object) -> Header:
    facts = {
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "variates": ("a", "b"),
        "step": "h",
        "last": "2024-01-02T03:00:00",
        "setting": SHARED,
        "rows_added": 0,
        "recipe": "",
        "teacher": {},
    }
    return Header(**{**facts, **changes})  # type: ignore[arg-type]


def _prior() -> Sums:
    walk = torch.randn(200, 1, SPAN, generator=torch.Generator().manual_seed(1)).cumsum(-1).double()
    return window_sums(
        walk[..., :LOOKBACK], walk[..., LOOKBACK - 1 : LOOKBACK].expand(-1, -1, HORIZON), "teacher"
    )


def _compiled(setting: Setting = SHARED, *, prior: bool = True) -> State:
    """As after a compile on 120 rows, of which 80 were training."""
    rows = _rows(120)
    scale = np.stack([rows[:80].mean(0), rows[:80].std(0)])
    sums = hankel_sums((rows[:80] - scale[0]) / scale[1], LOOKBACK, HORIZON)
    return state_of(_header(), sums, _prior() if prior else None, rows[80 - SPAN + 1 :], scale, setting)


def _without_data() -> State:
    nothing = np.zeros((0, VARIATES))
    alone = replace(SHARED, prior=0.0)
    return state_of(_header(last=None), None, _prior(), nothing, nothing, alone)


def _same(left: State, right: State, folder: Path) -> bool:
    save_state(left, folder / "left")
    save_state(right, folder / "right")
    maps = torch.equal(left.solution().maps(), right.solution().maps())
    return maps and (folder / "left").read_bytes() == (folder / "right").read_bytes()


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 900), max_size=3),
    free=st.booleans(),
    form=st.sampled_from(["shared", "per-variate"]),
)
def test_updates_in_steps_equal_one_update_bit_for_bit(
    cuts: list[int], free: bool, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = _rows(900, seed=2)
    start = _without_data() if free else _compiled(replace(SHARED, form=form))  # type: ignore[arg-type]
    steps = start
    edges = [0, *sorted(cuts), 900]
    for first, last in pairwise(edges):
        steps = steps.extend(rows[first:last])
    assert _same(steps, start.extend(rows), tmp_path_factory.mktemp("states"))


@pytest.mark.parametrize(
    "setting",
    [Setting("shared", 0, 5.0), Setting("per-variate", 0, 5.0), Setting("low-rank", 3, 5.0, pooling=0.7)],
    ids=lambda setting: setting.form,
)
def test_an_update_is_a_solve_on_all_rows(setting: Setting) -> None:
    state = _compiled(setting, prior=False)
    more = _rows(600, seed=3)
    rows = (np.concatenate([_rows(120), more]) - state.scale[0]) / state.scale[1]
    expected = solve(hankel_sums(rows, LOOKBACK, HORIZON), setting).maps()
    found = state.extend(more)
    assert found.windows == 720 - SPAN + 1
    assert found.sums.count > state.sums.count  # whole chunks are in the sums, the rest is kept as rows
    assert len(found.rows) < found.header.chunk + SPAN - 1
    assert torch.allclose(found.solution().maps(), expected, atol=1e-9)


def test_without_new_rows_the_blend_with_the_teacher_and_the_prior_stay() -> None:
    rows = _rows(80)
    scale = np.stack([rows.mean(0), rows.std(0)])
    sums = hankel_sums((rows - scale[0]) / scale[1], LOOKBACK, HORIZON)
    taught = Sums(
        sums.count,
        sums.gram,
        {**sums.cross, "teacher": sums.cross["truth"] * 0.3},
        {**sums.square, "teacher": sums.square["truth"]},
    )
    setting = Setting("shared", 0, 5.0, 2.0, 1.0, (("teacher", 1.0),), prior=30.0)
    state = state_of(_header(), taught, _prior(), rows[-SPAN + 1 :], scale, setting)
    assert torch.allclose(state.solution().maps(), solve(taught, setting, _prior()).maps(), atol=1e-12)


def test_a_chunk_goes_into_the_sums_with_its_last_row() -> None:
    state = _compiled(prior=False)
    missing = state.header.chunk + SPAN - 1 - len(state.rows)
    assert state.extend(_rows(missing - 1)).sums.count == state.sums.count
    assert state.extend(_rows(missing)).sums.count == state.sums.count + state.header.chunk


@pytest.mark.parametrize(("known", "new"), [("h", None), (None, "h"), ("h", "h")])
def test_the_step_is_that_of_the_first_rows_that_have_one(known: str | None, new: str | None) -> None:
    state = _compiled(prior=False)
    state = replace(state, header=replace(state.header, step=known))
    assert state.extend(_rows(3), step=new).header.step == "h"


def test_what_is_not_there_weighs_nothing() -> None:
    assert _compiled(prior=False).weight() == 0.0


def test_the_weight_of_the_prior_is_chosen_once_enough_chunks_have_judged() -> None:
    state = _compiled()
    chunk = state.header.chunk
    few = state.extend(_rows(chunk * (ENOUGH_CHUNKS - 1), seed=4))
    assert len(few.judged) < ENOUGH_CHUNKS and few.weight() == SHARED.prior
    # A prior that repeats the last value says nothing about cycles: none of it is best.
    many = few.extend(_rows(2 * chunk, seed=5))
    assert len(many.judged) >= ENOUGH_CHUNKS and many.weight() == PRIORS[0]


def test_the_prior_is_judged_on_futures_that_it_was_not_fitted_to() -> None:
    state = _compiled()
    more = _rows(600, seed=6)
    found = state.extend(more).judged[0]
    scaled = state.scaled(np.concatenate([state.rows, more])[: state.header.chunk + SPAN - 1])
    unseen = hankel_sums(scaled[HORIZON - 1 :], LOOKBACK, HORIZON)
    assert unseen.count == state.header.chunk - HORIZON + 1
    pooled = solve(state.sums, replace(SHARED, prior=PRIORS[1]), state.prior).maps()[0]
    windows = np.lib.stride_tricks.sliding_window_view(scaled[HORIZON - 1 :], SPAN, axis=0)
    past, future = windows[..., :LOOKBACK], windows[..., LOOKBACK:]
    mean = past.mean(-1, keepdims=True)
    # Windows of the chunk whose futures overlap with those in the sums do not judge.
    error = ((past - mean) @ pooled.numpy().T + mean - future) ** 2
    assert found[1] == pytest.approx(error.sum() / (unseen.count * HORIZON), rel=1e-9)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = _compiled().extend(_rows(300, seed=7), last="2024-02-01T00:00:00")
    save_state(state, tmp_path / "statistics")
    assert _same(read_state(tmp_path / "statistics")[0], state, tmp_path)
    assert read_state(tmp_path / "statistics")[0].header == state.header


def test_statistics_that_are_missing_or_broken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no statistics beside the artifact"):
        read_state(tmp_path / "statistics")
    (tmp_path / "statistics").write_bytes(b"not safetensors")
    with pytest.raises(VerificationError, match="not statistics that this version reads"):
        read_state(tmp_path / "statistics")


@pytest.mark.parametrize(
    ("first", "step", "message"),
    [
        ("2024-01-02T03:00", "h", "rows until .* are in the statistics already"),
        ("2024-01-02T05:00", "h", "a gap after the last row"),
        ("2024-01-02T04:00", "2h", "has step 2h, the statistics have h"),
    ],
)
def test_rows_that_do_not_follow_are_refused(first: str, step: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_follows(_header(), np.array([first], dtype="datetime64[us]"), step, "new.csv")


def test_rows_that_follow_or_have_no_time_are_taken() -> None:
    check_follows(_header(), np.array(["2024-01-02T04:00"], dtype="datetime64[us]"), "h", "new.csv")
    check_follows(_header(), np.array(["2024-01-02T04:00"], dtype="datetime64[us]"), None, "new.csv")
    check_follows(_header(), None, None, "new.csv")
    check_follows(_header(last=None), np.array(["2020-01-01"], dtype="datetime64[us]"), "h", "new.csv")
