"""Rows in and out: one table of cases, which the pasted ``run.py`` and ``tsfmc forecast`` answer alike."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from row_cases import BAD, GOOD, HOURS, PLAIN, Bad, Good, rows

from tsfmc.compiler.cli import main as tsfmc_main
from tsfmc.compiler.cli.reading import reading_options
from tsfmc.compiler.data import cells, filling
from tsfmc.compiler.data.formats import fingerprint
from tsfmc.compiler.data.reading import Reading
from tsfmc.compiler.data.sources import file_source
from tsfmc.compiler.data.table import ingest, open_ingested
from tsfmc.compiler.data.timeline import step_seconds
from tsfmc.targets.artifact.device.errors import InputError
from tsfmc.targets.artifact.device.output import Forecast
from tsfmc.targets.artifact.device.rows import read_csv
from tsfmc.targets.artifact.device.steps import BusinessStep, find_step
from tsfmc.targets.artifact.write import write_artifact
from tsfmc.targets.onnx import TARGET

Run = Callable[..., tuple[int, str, str]]


def make_echo(directory: Path, step: str) -> None:
    """An artifact whose forecast is its window: lookback and horizon 4, two variates."""
    import onnx
    from onnx import TensorProto, helper

    shape = ["batch", 2, 4]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["past"], ["forecast"])],
        "echo",
        [helper.make_tensor_value_info("past", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    frequency = {"": None, "formula": "h"}.get(step, step)

    def build(folder: Path) -> dict[str, Any]:
        onnx.save(model, folder / "model.onnx")
        return {
            "target": {"kind": "onnx", "entry": "model.onnx"},
            "task": {
                "lookback": 4,
                "horizon": 4,
                "variates": ["a", "=b" if step == "formula" else "b"],
                "frequency": frequency,
                "step_seconds": step_seconds(frequency),
                "missing": "error",
            },
            "input": {"mean": [0.0, 0.0], "std": [1.0, 1.0]},
            "level": "executed",
        }

    window = np.arange(8.0).reshape(1, 2, 4)
    write_artifact(directory, build, engine_source=TARGET.engine_source(), selftest=(window, window))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("echo")
    steps = sorted({case.step for case in (*GOOD.values(), *BAD.values())})
    for number, step in enumerate(steps):
        make_echo(folder / str(number), step)
    return {step: folder / str(number) for number, step in enumerate(steps)}


@pytest.fixture(scope="module")
def pasted(artifacts: dict[str, Path]) -> ModuleType:
    """``run.py`` of an artifact, imported as its users do."""
    spec = importlib.util.spec_from_file_location("pasted_run", artifacts["h"] / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_both(
    pasted: ModuleType,
    artifacts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs both commands on a case, holds them equal, and returns exit code, stdout and stderr."""

    def run(case: Good | Bad, *options: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        content = case.content if isinstance(case.content, bytes) else case.content.encode()
        Path(case.file).write_bytes(content)
        art = str(artifacts[case.step])
        more = [*options, *case.options, *(["--missing", case.missing] if case.missing else [])]
        device = pasted.main(["--artifact", art, "forecast", case.file, *more])
        device_out, device_err = capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tsfmc", "forecast", art, "--input", case.file, *more])
        with pytest.raises(SystemExit) as stopped:
            tsfmc_main()
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0, err) == (device, device_err)
        if "--json" in options:
            assert json.loads(out) == json.loads(device_out)
        else:  # where the forecast went is said by ``tsfmc`` alone
            assert out == device_out + (f"{options[1]}\n" if "--output" in options else "")
        return device, device_out, device_err

    return run


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD.keys())
def test_good_rows(case: Good, run_both: Run) -> None:
    code, out, err = run_both(case)
    assert code == 0, err
    header, *lines = csv.reader(io.StringIO(out))
    assert header == [case.index, "a", "'=b" if case.step == "formula" else "b"]
    assert [line[0] for line in lines[:2]] == [case.first, case.second]
    np.testing.assert_allclose([float(line[1]) for line in lines], case.a, rtol=1e-6)
    np.testing.assert_allclose([float(line[2]) for line in lines], case.b, rtol=1e-6)
    filled = f"{case.cells} empty cells and {case.rows} missing rows, of 4 rows with 2 cells; up to "
    said = f"warning: filled with --missing {case.missing}: {filled}" if case.cells or case.rows else ""
    if case.merged:
        said = f"merged {case.merged} rows into others of their time"
    assert err.startswith(said) and err.count("\n") == bool(said)


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_bad_rows(case: Bad, run_both: Run, pasted: ModuleType) -> None:
    code, out, err = run_both(case)
    assert (code, out) == (2, ""), out
    assert case.says in err and err.startswith("error: ") and err.count("\n") == 1
    named = set(re.findall(r"(?<![\w'])--[a-z][a-z-]*", err))
    assert named <= options_of_both(pasted), "a hint names an option that does not exist"


def options_of_both(pasted: ModuleType) -> set[str]:
    """What ``run.py forecast`` and ``tsfmc forecast`` both take."""
    from tsfmc.compiler.cli.forecast import command

    subcommands = next(action for action in pasted._parser()._actions if action.dest == "command")
    device = {word for action in subcommands.choices["forecast"]._actions for word in action.option_strings}
    return device & {word for option in command.params for word in option.opts}


@pytest.mark.parametrize(
    "case", [case for case in GOOD.values() if case.compiles], ids=[k for k, v in GOOD.items() if v.compiles]
)
def test_a_compile_reads_the_same_rows(case: Good, pasted: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / case.file
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    missing: Any = case.missing or "error"
    ingest(file_source(path), fingerprint(path), ["a", "b"], Reading(missing), tmp_path)
    table = open_ingested(tmp_path)
    np.testing.assert_allclose(table.values[-4:], np.array([case.a, case.b]).T, rtol=1e-12)
    task = {"lookback": 4, "variates": ["a", "b"], "frequency": case.step, "missing": missing}
    last = pasted.read_csv(path, {"task": task}).last
    if table.timestamps is None:
        assert last is None
    else:
        assert table.frequency == case.step
        stamp = pd.Timestamp(last)
        assert table.timestamps[-1] == (stamp if stamp.tz is None else stamp.tz_convert(None)).to_datetime64()


def test_json_tells_what_was_filled(run_both: Run) -> None:
    _, out, err = run_both(GOOD["interpolate empty cells"], "--json")
    result = json.loads(out)
    assert result["filled"] == {"cells": 2, "rows": 0, "merged": 0} and result["missing"] == "interpolate"
    assert result["forecast"] == {"a": [1, 2, 3, 4], "b": [10, 20, 30, 40]}
    assert (result["index_name"], result["index"][0]) == ("date", "2024-02-01 00:00:00")
    assert err.startswith("warning: filled with")


@pytest.mark.parametrize("file", ["out.csv", "out.csv.gz"])
def test_an_output_is_read_back_as_rows(run_both: Run, tmp_path: Path, file: str) -> None:
    case = GOOD["a name that a spreadsheet would run"]
    assert run_both(case, "--output", file)[:2] == (0, "")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(["past.csv", file])
    again = Good((tmp_path / file).read_bytes(), file="again" + file.removeprefix("out"), step="formula")
    _, out, _ = run_both(again)
    assert out.splitlines()[0] == "'@date,a,'=b"
    assert out.splitlines()[1] == "2024-02-01 04:00:00,1.0,10.0"


def test_the_policy_of_the_compile_is_the_default(pasted: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "past.csv").write_text(rows(*HOURS, a=["1", "", "3", "4"]))
    task = {"lookback": 4, "variates": ["a", "b"], "frequency": "h", "missing": "ffill"}
    assert pasted.read_csv(tmp_path / "past.csv", {"task": task}).filled_cells == 1
    with pytest.raises(pasted.InputError, match="expected a number, got ''"):
        pasted.read_csv(tmp_path / "past.csv", {"task": task}, "error")
    with pytest.raises(pasted.InputError, match="expected one of error, ffill, interpolate, got 'mean'"):
        pasted.read_csv(tmp_path / "past.csv", {"task": task}, "mean")


def test_the_commands_offer_the_policies_that_there_are() -> None:
    options = {option.name: option for option in reading_options(lambda: None).__click_params__}
    assert options["missing"].type.choices == filling.POLICIES


def test_empty_cells_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert cells.EMPTY == STR_NA_VALUES


@pytest.mark.parametrize("frequency", ["s", "100ms", "15min", "h", "6h", "D", "7D", "W-SUN", "B"])
@pytest.mark.parametrize("start", ["2019-11-29", "2020-01-01 00:30"])
def test_fixed_steps_and_business_days_are_those_of_pandas(frequency: str, start: str) -> None:
    check_step(frequency, pd.date_range(start, periods=40, freq=frequency))


@pytest.mark.parametrize("frequency", ["MS", "ME", "2MS", "QS-OCT", "QE-DEC", "YS-JAN", "YE-DEC"])
def test_months_are_those_of_pandas(frequency: str) -> None:
    check_step(frequency, pd.date_range("2019-11-30 06:30", periods=40, freq=frequency))


def check_step(frequency: str, index: pd.DatetimeIndex) -> None:
    times = [stamp.to_pydatetime() for stamp in index]
    step = find_step({"frequency": frequency})
    assert step is not None
    assert [step.between(times[0], time) for time in times] == list(range(40))
    assert [step.after(times[7], ahead) for ahead in range(33)] == times[7:]


@pytest.mark.parametrize("frequency", [None, "", "LBM", "WOM-3FRI", "0h", "x", "h" * 99, "2B"])
def test_a_frequency_that_is_no_step(frequency: str | None) -> None:
    assert find_step({"frequency": frequency}) is None


CELLS = st.sampled_from(
    [
        "1",
        "-2.5",
        "1e3",
        "",
        "nan",
        "inf",
        "1e999",
        "x",
        '"',
        '"3"',
        "\0",
        "=1",
        "1_0",
        " 4 ",
        "1e300",
        "\uff11",
    ]
)
TIMES = st.sampled_from(
    [
        *HOURS,
        "2024-01-31 20:30",
        "2024-02-01",
        "31.01.2024 20:00",
        "1706731200",
        "9999-12-31 23:00",
        "soon",
        "",
    ]
)
LINES = st.lists(
    st.tuples(TIMES, CELLS, CELLS).map(",".join) | st.sampled_from([*PLAIN.splitlines(), "", ",", "1,2,3,4"]),
    max_size=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.sampled_from(["date,a,b", "b,a", "\ufeffts,a,b", "x,a,b", ""]),
    lines=st.just(PLAIN.splitlines()[1:]) | LINES,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    missing=st.sampled_from(["error", "ffill", "interpolate"]),
    frequency=st.sampled_from(["h", "D", "ME", "B", None]),
)
def test_any_rows_end_in_a_window_or_in_one_line(
    header: str, lines: list[str], end: str, missing: str, frequency: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(end.join([header, *lines]).encode())
    task = {"lookback": 2, "variates": ["a", "b"], "frequency": frequency}
    try:
        history = read_csv(path, {"task": task}, missing)
        Forecast(history, history.values, task).write(io.StringIO())
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert history.values.shape == (2, 2) and np.isfinite(history.values).all()


def test_business_days_end_with_the_calendar() -> None:
    with pytest.raises(OverflowError):
        BusinessStep().after(datetime(9999, 12, 30), 5)
