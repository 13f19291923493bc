"""What is kept of an evaluation is what the evaluation showed, and no more of the data than it says."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import make_artifact

from tsfmc.compiler.base.content import file_hash
from tsfmc.compiler.base.errors import VerificationError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.driver import evaluation as kept
from tsfmc.compiler.driver import residuals
from tsfmc.compiler.driver.accuracy import evaluate_rows, reference_predictors
from tsfmc.compiler.driver.evaluation import Evaluation, load_evaluation, observed, save_evaluation
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.evaluate import Accuracy, model_predictor
from tsfmc.compiler.students.dlinear import DLinear


@pytest.fixture
def judged(unit: CompileUnit) -> CompileUnit:
    """A unit with a student of random weights and the rows that no target changes."""
    torch.manual_seed(3)
    student = DLinear(48, 12, kernel=5).eval()
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    unit = unit.with_(student=student)
    return unit.with_(accuracy=evaluate_rows(unit, reference_predictors(unit), Silent()))


@pytest.fixture
def mine(judged: CompileUnit) -> Accuracy:
    return evaluate_rows(judged, {"student": model_predictor(judged.model)}, Silent())["student"]


@pytest.fixture
def found(judged: CompileUnit, mine: Accuracy) -> Evaluation:
    found = observed(judged, {"student": mine})
    assert found is not None
    return found


def test_curves_average_to_the_error(found: Evaluation, mine: Accuracy, judged: CompileUnit) -> None:
    assert set(found.rows) == {"student", "teacher", "seasonal_naive"}
    for name, row in {"student": mine, **judged.accuracy}.items():
        curve = found.rows[name]
        assert curve.mse == row.mse
        assert np.mean(curve.steps) == pytest.approx(row.mse, rel=1e-4)
        assert np.mean(curve.times) == pytest.approx(row.mse, rel=1e-4)  # a window each, there are so few
        assert np.mean(list(curve.variates.values())) == pytest.approx(row.mse)
    assert len(found.rows["student"].steps) == 12


def test_the_interval_holds_what_its_quantiles_say(judged: CompileUnit, found: Evaluation) -> None:
    """Each variate and step by numpy, in the units of the data, over every validation window."""
    assert found.residuals is not None
    task = judged.task
    windows = judged.data.windows("val", task.lookback, task.horizon)
    past, future = windows.batch(range(len(windows)))
    with torch.inference_mode():
        errors = (future - judged.model(past)).numpy() * np.asarray(judged.data.std)[:, None]
    assert found.residuals.windows == len(windows)
    for at, name in enumerate(task.variates):
        low, high = np.quantile(errors[:, at], (0.1, 0.9), axis=0)
        np.testing.assert_allclose(found.residuals.variates[name].low, low, rtol=1e-4)
        np.testing.assert_allclose(found.residuals.variates[name].high, high, rtol=1e-4)


def test_what_the_interval_held_is_counted_on_the_test_split(judged: CompileUnit, found: Evaluation) -> None:
    assert found.residuals is not None
    task, std = judged.task, np.asarray(judged.data.std)[:, None]
    windows = judged.data.windows("test", task.lookback, task.horizon)
    past, future = windows.batch(range(len(windows)))
    with torch.inference_mode():
        errors = (future - judged.model(past)).numpy() * std
    bounds = [found.residuals.variates[name] for name in task.variates]
    low, high = np.array([each.low for each in bounds]), np.array([each.high for each in bounds])
    assert found.residuals.covered == pytest.approx(((low <= errors) & (errors <= high)).mean(), abs=2e-3)


def test_too_few_windows_and_too_many_variates_give_no_interval(
    judged: CompileUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in (("MIN_WINDOWS", 10_000), ("MAX_OFFSETS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(residuals, limit, value)
            assert residuals.residual_quantiles(judged) is None


def test_an_artifact_is_given_the_interval_of_its_own_evaluation(found: Evaluation, tmp_path: Path) -> None:
    beside = tmp_path / "onnx.evaluation.json"
    save_evaluation(found, beside)
    make_artifact(tmp_path / "onnx", evaluation={"file": beside.name, "sha256": file_hash(beside)})
    assert found.residuals is not None
    assert kept.kept_residuals(tmp_path / "onnx") == found.residuals.model_dump(mode="json")
    save_evaluation(found.model_copy(update={"windows": 1}), beside)  # of another compile
    assert kept.kept_residuals(tmp_path / "onnx") is None
    beside.unlink()
    assert kept.kept_residuals(tmp_path / "onnx") is None


def test_steps_ahead_are_not_all_alike(found: Evaluation) -> None:
    """A step's error is that of this step: the seasonal naive one, computed here."""
    assert len(set(found.rows["seasonal_naive"].steps)) > 6


def test_long_splits_are_drawn_by_stretches_of_one_length(
    judged: CompileUnit, mine: Accuracy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "POINTS", 10)
    found = observed(judged, {"student": mine})
    assert found is not None and len(found.times) == len(found.rows["student"].times) == 10
    first = mine.window_mse[: mine.windows // 10].mean()
    assert found.rows["student"].times[0] == pytest.approx(first, rel=1e-4)


def test_an_example_is_a_stretch_of_the_file(found: Evaluation, judged: CompileUnit) -> None:
    data = judged.data
    stamps = [str(np.datetime_as_string(stamp, unit="s")) for stamp in data.timestamps]
    for example in found.examples:
        row, column = stamps.index(example.starts), data.variates.index(example.variate)
        np.testing.assert_allclose(example.truth, data.values[row : row + 12, column], rtol=1e-4)
        before = data.values[row - len(example.past) : row, column]
        np.testing.assert_allclose(example.past, before, rtol=1e-4)
        assert set(example.forecasts) == {"student", "teacher"}


def test_examples_stand_at_their_quantiles_of_each_variate(found: Evaluation, mine: Accuracy) -> None:
    assert [example.kind for example in found.examples] == ["best", "typical", "worst"] * 3
    for example in found.examples:
        errors = mine.variate_mse[:, int(example.variate[1:])]
        place = {"best": 0.05, "typical": 0.5, "worst": 0.95}[example.kind]
        assert (errors < example.mse).mean() == pytest.approx(place, abs=0.01)


def test_the_forecast_of_an_example_has_its_error(found: Evaluation, judged: CompileUnit) -> None:
    for example in found.examples:
        deviation = judged.data.std[judged.data.variates.index(example.variate)]
        error = (np.subtract(example.forecasts["student"], example.truth) / deviation) ** 2
        assert error.mean() == pytest.approx(example.mse, rel=1e-2)


def test_it_says_how_much_of_the_data_it_holds(found: Evaluation) -> None:
    windows = {(example.variate, example.starts) for example in found.examples}
    steps = len(found.examples[0].past) + 12
    assert f"{len(windows)} windows" in found.contents and f"{steps} steps" in found.contents


def test_of_many_variates_some_are_shown_from_the_easiest_to_the_hardest(
    judged: CompileUnit, mine: Accuracy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_VARIATES", 2)
    found = observed(judged, {"student": mine})
    assert found is not None
    order = np.argsort(mine.variate_mse.mean(axis=0))
    shown = {example.variate for example in found.examples}
    assert shown == {judged.task.variates[order[0]], judged.task.variates[order[-1]]}


def test_the_matrix_is_the_students_map(found: Evaluation, judged: CompileUnit) -> None:
    assert found.matrix is not None and list(found.matrix.pictures) == ["all variates"]
    cells = np.frombuffer(base64.b64decode(found.matrix.pictures["all variates"]), np.int8)
    folded = judged.student.fold().matrix.detach().numpy().T  # type: ignore[union-attr]
    np.testing.assert_allclose(
        cells.reshape(found.matrix.shape) * found.matrix.largest / 127,
        folded,
        atol=found.matrix.largest / 200,
    )
    np.testing.assert_allclose(found.matrix.profile, np.abs(folded).mean(axis=0), rtol=1e-3)


def test_the_largest_entry_of_a_cell_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MATRIX", (1, 2))
    cells = kept._largest_of_cells(np.array([[0.1, -0.9, 0.2, 0.3], [0.0, 0.5, 0.1, 0.0]]))
    np.testing.assert_array_equal(cells, [[-0.9, 0.3]])


def test_nothing_is_kept_of_data_that_nothing_is_measured_on(judged: CompileUnit, mine: Accuracy) -> None:
    from dataclasses import replace

    unmeasured = judged.with_(data=replace(judged.data, unmeasured="made up"))
    assert observed(unmeasured, {"student": mine}) is None


def test_it_is_read_as_it_was_written(found: Evaluation, tmp_path: Path) -> None:
    save_evaluation(found, tmp_path / "onnx.evaluation.json")
    assert load_evaluation(tmp_path / "onnx.evaluation.json") == found
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-20], "evaluation: not JSON"),
        (lambda text: json.dumps({**json.loads(text), "more": 1}), "more is 1"),
        (lambda text: text.replace('"windows":', '"windows":"x","w":'), "windows is 'x'"),
        (lambda text: "[" * 200_000, "nested deeper"),
        (lambda text: " " * (5 << 20), "5242880 bytes, expected at most"),
    ],
)
def test_another_file_is_refused(found: Evaluation, tmp_path: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.json"
    save_evaluation(found, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(VerificationError, match=words):
        load_evaluation(path)
