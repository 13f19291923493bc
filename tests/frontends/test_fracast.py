"""Fracast against its golden vectors and against the installed package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fracast import FracastModel
from golden import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import find_card, load_teacher, open_teacher, save_teacher
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count


@pytest.fixture(scope="module")
def upstream() -> Any:
    return FracastModel.from_pretrained(weights="fp32")


def teacher_for(lookback: int, horizon: int, variates: int = 7) -> Teacher:
    return load_teacher("fracast", lookback=lookback, horizon=horizon, variates=variates)


def series(seed: int, *shape: int) -> torch.Tensor:
    """Seasonal random walks on scales of their own."""
    draw = np.random.default_rng(seed)
    steps = np.arange(shape[-1])
    period = draw.uniform(5, 60, (*shape[:-1], 1))
    values = np.sin(2 * np.pi * steps / period) * 3 + draw.normal(size=shape).cumsum(-1) * 0.2
    return torch.from_numpy((values * draw.uniform(0.1, 50, (*shape[:-1], 1)) + 7).astype("float32"))


@pytest.mark.parametrize("case", cases("fracast"))
def test_golden(kit: Any, case: Case) -> None:
    """Of the real windows in ../shared one or two, by the longest input, which is stored once."""
    task = case.settings
    lookback, horizon, variates = task["context"], task["horizon"], task["variates"]
    stored = case if "past" in case else replace(case, name="c2048")
    windows = 1 if lookback == 2048 else 2
    past = stored["past"][:windows, :, -lookback:]
    outputs = teacher_for(lookback, horizon, variates).outputs(past)
    expected = case["quantiles"][:windows]
    kit.close(outputs.quantiles, expected)
    kit.close(outputs.forecast, expected[..., 4])
    assert outputs.states.shape == (len(past), variates, lookback, 64)


def test_the_weights_are_the_packages_float32_ones() -> None:
    info = open_teacher("fracast", lookback=512, horizon=96, variates=7)[1]
    assert info.sha256 == "0d678f123f3d1f91c5065cca2b5d40eccc469360afc2381b27290486011ded2c"


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 999),
    lookback=st.sampled_from([40, 130, 511]),
    horizon=st.sampled_from([1, 48, 60]),
    gaps=st.booleans(),
)
def test_equals_the_package(
    kit: Any, upstream: Any, seed: int, lookback: int, horizon: int, gaps: bool
) -> None:
    past = series(seed, 2, 2, lookback)
    if gaps:
        past[0, 1, 3:9] = torch.nan
        past[1, 0, ::5] = torch.nan
    quantiles = teacher_for(lookback, horizon, 2).quantiles(past)
    expected = upstream.forecast_batch(past.reshape(4, lookback).numpy(), horizon=horizon)
    kit.close(quantiles, torch.from_numpy(expected.astype("float32")).reshape(quantiles.shape))


def test_a_lookback_beyond_the_width_keeps_its_end(kit: Any) -> None:
    past = series(1, 1, 1, 2100)
    outputs = teacher_for(2100, 8, 1).outputs(past)
    cut = teacher_for(2048, 8, 1).outputs(past[..., -2048:])
    kit.close(outputs.quantiles, cut.quantiles, 0, 0)
    assert outputs.states.shape == (1, 1, 2048, 64)


def test_states_are_the_encoding_of_the_lookback(kit: Any, upstream: Any) -> None:
    past = series(2, 1, 1, 96)
    states = teacher_for(96, 8, 1).states(past)
    low, high = past.amin(), past.amax()
    values, valid = torch.zeros(1, 1, 2048), torch.zeros(1, 1, 2048)
    values[..., -96:], valid[..., -96:] = (past - low) / (high - low), 1
    with torch.no_grad():
        encoded = upstream.core(values, valid.bool(), valid)
    kit.close(states[0], encoded[:, -96:], 1e-4, 1e-5)


def test_the_card_counts_the_parameters() -> None:
    teacher, info = open_teacher("fracast", lookback=64, horizon=8, variates=1)
    assert parameter_count(teacher) == info.parameters == find_card("fracast").parameters == 85_001
    assert info.licence == "Apache-2.0" and info.commercial
    assert teacher.structure().groups == ()


def test_save_and_load(kit: Any, tmp_path: Path) -> None:
    teacher = teacher_for(64, 8, 2)
    save_teacher(teacher, tmp_path)
    past = series(3, 1, 2, 64)
    kit.close(load_teacher(tmp_path).quantiles(past), teacher.quantiles(past), 0, 0)


def test_too_few_values() -> None:
    with pytest.raises(TeacherError, match="lookback is 7, expected at least 8"):
        teacher_for(7, 8)
    past = torch.full((1, 1, 20), torch.nan)
    past[..., :7] = 1.0
    with pytest.raises(TeacherError, match="fewer than 8 finite values"):
        teacher_for(20, 8, 1)(past)


def test_export(kit: Any, tmp_path: Path) -> None:
    teacher = teacher_for(64, 40, 2)
    past = series(4, 3, 2, 64)
    run = kit.onnx_forecast(teacher, tmp_path / "fracast.onnx", past[:2])
    kit.close(run(past), teacher(past), 1e-4, 1e-4)
