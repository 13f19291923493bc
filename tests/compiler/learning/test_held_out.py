"""Stretches of training, each labelled by a teacher that has seen nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.held_out import (
    HeldOutForecasts,
    Stretch,
    forecasts_of,
    keep_stretch,
    kept_stretch,
    stretches,
)


@given(st.integers(1, 5000), st.integers(1, 12), st.integers(2, 700))
def test_no_row_is_tuned_on_and_labelled(windows: int, count: int, span: int) -> None:
    parts = stretches(windows, count, span)
    assert [part.begin for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == windows and len(parts) == count
    for part in parts:
        last_row_seen = part.seen - 1 + span - 1
        assert part.seen == 0 or last_row_seen == part.begin - 1  # as much as the embargo leaves
        assert part.seen <= part.begin


def test_labels_are_the_teachers_forecasts(unit: CompileUnit) -> None:
    windows = unit.data.windows("train", 48, 12)
    assert unit.teacher is not None
    found = forecasts_of(unit.teacher, windows.batch, Stretch(7, 80, 0))
    with torch.inference_mode():
        expected = unit.teacher(windows.batch(range(7, 80))[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_kept_labels_are_believed_for_their_stretch_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, part = tmp_path / "work/stretch.safetensors", Stretch(2, 4, 1)
    assert kept_stretch(path, part) is None
    keep_stretch(path, part, torch.ones(2, 3, 4))
    found = kept_stretch(path, part)
    assert found is not None and torch.equal(found, torch.ones(2, 3, 4))
    assert kept_stretch(path, Stretch(2, 4, 0)) is None
    path.write_bytes(path.read_bytes()[:-1])
    assert kept_stretch(path, part) is None and "computed again" in caplog.text


def test_the_key_is_of_the_numbers() -> None:
    ones = torch.ones(2, 3, 4).numpy()
    assert HeldOutForecasts(ones).key == HeldOutForecasts(ones.copy()).key != HeldOutForecasts(2 * ones).key
