"""Rows pushed one by one give what the same rows in a table give, also over a restart."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest
from artifacts import SHAPE, VARIATES, make_artifact, make_windows, raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsfmc.compiler import api
from tsfmc.compiler.data.reading import Reading
from tsfmc.targets.artifact.device.errors import InputError
from tsfmc.targets.artifact.device.rows import Table, read_window

START, HOUR = datetime(2024, 1, 1), timedelta(hours=1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    place = tmp_path_factory.mktemp("made") / "onnx"
    make_artifact(place)
    return place


@pytest.fixture(scope="module")
def forecaster(artifact):
    return api.load(artifact)


def series(count):
    """``[D, count]``."""
    walks = raw(make_windows(4))
    return np.concatenate(list(walks), axis=-1)[:, :count]


def filled(stream, values, start=0):
    for step, row in enumerate(values.T):
        stream.push(row.tolist(), START + (start + step) * HOUR)
    return stream


def test_a_full_window_gives_its_forecast(forecaster):
    values = series(50)
    stream = filled(forecaster.stream(), values)
    expected = forecaster.forecast(values[:, -SHAPE.lookback :])
    assert np.array_equal(stream.forecast(), expected)
    assert stream.last == START + 49 * HOUR


def test_too_few_rows_say_how_many(forecaster):
    stream = filled(forecaster.stream(), series(31))
    assert not stream.ready
    with pytest.raises(InputError, match="has 31 rows, expected 32"):
        stream.forecast()
    assert filled(stream, series(1), start=31).ready


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=st.sampled_from(["ffill", "interpolate"]),
    gone=st.sets(st.integers(1, 78), max_size=30),
    empty=st.sets(st.tuples(st.integers(0, 2), st.integers(1, 78)), max_size=30),
)
def test_gaps_are_filled_as_in_a_table(forecaster, policy, gone, empty):
    values = series(80)
    for variate, step in empty:
        values[variate, step] = np.nan
    there = [step for step in range(80) if step not in gone]
    rows = [
        (
            step,
            [
                str(START + step * HOUR),
                *("" if np.isnan(cell) else repr(float(cell)) for cell in values[:, step]),
            ],
        )
        for step in there
    ]
    task = forecaster.manifest["task"]
    stream = forecaster.stream(policy)
    for step in there:
        stream.push(dict(zip(VARIATES, values[:, step], strict=True)), START + step * HOUR)
    try:
        history = read_window(
            Table("t", ["date", *VARIATES], rows[-2 * SHAPE.lookback :]), task, Reading(policy)
        )
    except InputError as error:
        if "most rows are" not in str(error):  # a table that is mostly gaps has another step
            with pytest.raises(InputError, match="no value in the last"):
                stream.forecast()
        return
    assert np.array_equal(stream.forecast(), forecaster.forecast(history.values))


def test_a_restart_loses_nothing(forecaster, tmp_path):
    values = series(90)
    values[1, 70:75] = np.nan
    whole = filled(forecaster.stream("ffill"), values)
    first = filled(forecaster.stream("ffill"), values[:, :72])
    first.save(tmp_path / "state.json")
    second = forecaster.stream("ffill")
    second.restore(tmp_path / "state.json")
    filled(second, values[:, 72:], start=72)
    assert np.array_equal(second.forecast(), whole.forecast())
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_months_are_stepped_by_the_calendar(tmp_path):
    make_artifact(
        tmp_path / "a",
        task={"lookback": 32, "horizon": 8, "variates": list(VARIATES), "frequency": "MS"},
    )
    stream = api.load(tmp_path / "a").stream("ffill")
    stream.push([1, 2, 3], datetime(2024, 1, 1))
    assert stream.push([1, 2, 3], datetime(2024, 4, 1)) == 2
    with pytest.raises(InputError, match="not a whole step"):
        stream.push([1, 2, 3], datetime(2024, 5, 2))


@pytest.mark.parametrize(
    ("row", "time", "message"),
    [
        ([1.0, 2.0], START + HOUR, "expected 3 finite numbers"),
        ([1.0, float("inf"), 2.0], START + HOUR, "expected 3 finite numbers"),
        ([1.0, float("nan"), 2.0], START + HOUR, "variate 'oil' is empty"),
        (["a", 1.0, 2.0], START + HOUR, "expected numbers"),
        ({"load": 1.0, "oil": 2.0, "sun": 3.0}, START + HOUR, "'sun', 'wind'"),
        ([1.0, 2.0, 3.0], START, "not after the last row's"),
        ([1.0, 2.0, 3.0], START + 1.5 * HOUR, "not a whole step"),
        ([1.0, 2.0, 3.0], START + 3 * HOUR, "2 rows are missing"),
        ([1.0, 2.0, 3.0], None, "either every row has a time or none"),
    ],
)
def test_a_row_that_is_refused_changes_nothing(forecaster, row, time, message):
    values = series(33)
    stream = filled(forecaster.stream(), values[:, :32], start=-31)
    before = stream.forecast()
    with pytest.raises(InputError, match=message):
        stream.push(row, time)
    assert np.array_equal(stream.forecast(), before)
    assert stream.last == START


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: "[]",
        lambda state: "{",
        lambda state: json.dumps({**state, "task": {}}),
        lambda state: json.dumps({**state, "values": state["values"][:2]}),
        lambda state: json.dumps({**state, "values": [["x"]] * 3}),
        lambda state: json.dumps({**state, "values": [[0.0] * 99] * 3}),
        lambda state: json.dumps({**state, "values": [[float("inf")]] * 3}),
        lambda state: json.dumps({**state, "last": 5}),
        lambda state: json.dumps({name: state[name] for name in state if name != "last"}),
    ],
)
def test_a_state_that_is_none_is_refused(forecaster, tmp_path, edit):
    stream = filled(forecaster.stream(), series(40))
    stream.save(tmp_path / "state")
    (tmp_path / "state").write_text(edit(json.loads((tmp_path / "state").read_text())))
    before = stream.forecast()
    with pytest.raises(InputError, match="no state of this stream"):
        stream.restore(tmp_path / "state")
    assert np.array_equal(stream.forecast(), before)
