"""The page's JavaScript without a browser: it reads every table, and forecasts, as ``run.py`` does."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import make_artifact, make_model, make_windows, raw, reference

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "artifact"))
from node_tools import page_modules, run_node
from row_cases import BAD, GOOD, Bad, Good

from tsfmc.compiler.data.filling import FILL_HINT
from tsfmc.compiler.data.timeline import step_seconds
from tsfmc.targets.artifact.device.errors import InputError
from tsfmc.targets.artifact.device.output import Forecast
from tsfmc.targets.artifact.device.rows import UNSORTED, read_csv

CASES: dict[str, Good | Bad] = {
    name: case
    for name, case in {**GOOD, **BAD}.items()
    if not case.options  # the page has no options
}
PAGE_WORDS = {
    re.escape(FILL_HINT): "repair the file, or fill it: choose ffill or interpolate",
    re.escape(UNSORTED): "expected a later one: sort the rows, no time twice",
    "; (for decimal commas )?add --csv .*": "",
}
"""Where a message names an option of the command line, and what the page says instead."""
OWN_WORDS = ("cannot be read as CSV",)
"""After these each says what its own decoder says."""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_modules(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def answers(modules: Path) -> dict[str, Any]:
    """What the page makes of every case, in one process."""
    asked = [
        {
            "file": case.file,
            "content": base64.b64encode(as_bytes(case)).decode(),
            "task": task_of(case),
            "missing": case.missing,
        }
        for case in CASES.values()
    ]
    return dict(zip(CASES, run_node("rows.mjs", modules, given=asked), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_table_reads_as_run_py_reads_it(name: str, answers: dict[str, Any], tmp_path: Path) -> None:
    case, got = CASES[name], answers[name]
    (tmp_path / case.file).write_bytes(as_bytes(case))
    try:
        expected = by_run_py(tmp_path / case.file, case)
    except InputError as error:
        says = str(error).replace(f"{tmp_path}/", "")
        for pattern, instead in PAGE_WORDS.items():
            says = re.sub(pattern, instead, says)
        for words in OWN_WORDS:
            says, got = says.partition(words)[0], {"error": got["error"].partition(words)[0]}
        assert got == {"error": says}
        return
    # Numbers are the same; Python and JavaScript may write them differently (1e-30, 1.0 and 1).
    assert table(got.pop("csv")) == table(expected.pop("csv"))
    assert got == expected


def test_onnxruntime_for_node_forecasts_what_run_py_forecasts(modules: Path, tmp_path: Path) -> None:
    make_artifact(tmp_path / "onnx")
    past = make_windows(5)
    answer = run_node("forecast.mjs", modules, tmp_path / "onnx", given=raw(past).tolist())
    expected = raw(reference(make_model(), past))
    scale = np.abs(raw(past)).max(axis=(1, 2)) + np.abs(expected).max(axis=(1, 2))
    errors = np.abs(np.array(answer["forecasts"]) - expected).max(axis=(1, 2))
    assert (errors <= 1e-5 * scale).all()
    assert answer["selftest"]["passed"] is True
    assert answer["selftest"]["windows"] == 3


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "selftest/past.npy"])
def test_a_changed_file_is_not_used(name: str, modules: Path, tmp_path: Path) -> None:
    make_artifact(tmp_path / "onnx")
    with (tmp_path / "onnx" / name).open("ab") as file:
        file.write(b"\n")
    answer = run_node("forecast.mjs", modules, tmp_path / "onnx", given=[])
    assert answer["error"].startswith(f"{name} was changed: sha256 ")


def test_other_forecasts_than_the_original_models_fail_the_self_test(modules: Path, tmp_path: Path) -> None:
    """Every hash is right: its maker packed vectors of another model."""
    artifact = tmp_path / "onnx"
    make_artifact(artifact)
    vectors, listing = artifact / "selftest" / "forecast.npy", artifact / "SHA256SUMS"
    before = hashlib.sha256(vectors.read_bytes()).hexdigest()
    np.save(vectors, np.load(vectors) + 1.0)
    after = hashlib.sha256(vectors.read_bytes()).hexdigest()
    listing.write_text(listing.read_text().replace(before, after))
    answer = run_node("forecast.mjs", modules, artifact, given=[])
    assert answer["selftest"]["passed"] is False


def task_of(case: Good | Bad) -> dict[str, Any]:
    frequency = {"": None, "formula": "h"}.get(case.step, case.step)
    variates = ["a", "=b" if case.step == "formula" else "b"]
    return {
        "lookback": 4,
        "horizon": 4,
        "variates": variates,
        "frequency": frequency,
        "step_seconds": step_seconds(frequency),
        "missing": "error",
    }


def as_bytes(case: Good | Bad) -> bytes:
    return case.content if isinstance(case.content, bytes) else case.content.encode()


def by_run_py(path: Path, case: Good | Bad) -> dict[str, Any]:
    task = task_of(case)
    history = read_csv(path, {"task": task}, case.missing)
    text = io.StringIO()
    Forecast(history, history.values, task).write(text)
    return {
        "values": history.values.tolist(),
        "cells": history.filled_cells,
        "rows": history.filled_rows,
        "csv": text.getvalue(),
    }


def table(text: str) -> list[list[Any]]:
    header, *lines = text.splitlines()
    cells = [line.split(",") for line in lines]
    return [header.split(","), *([stamp, *map(float, values)] for stamp, *values in cells)]
