"""What an evaluation showed, kept in a small file beside the artifact: ``report`` draws from it alone.

    out/onnx/                    the artifact
    out/onnx.evaluation.json     this file: not shipped, since it holds a few windows of the data

Data and teacher may be gone when a report is written, so a compile leaves what its test windows gave:

rows       for each forecaster its error with an interval, by step ahead, over time, and by variate
examples   for each of a few variates the windows at three quantiles of the artifact's error, in the units of
           the data: past, truth, and the forecasts of artifact and teacher
matrix     the artifact's map where it is affine: which lags it looks at
residuals  quantiles of the artifact's errors on the validation windows, by variate and step ahead

At most ``MAX_NUMBERS`` numbers of the user's data and forecasts are kept, and the file says so.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from ...targets.artifact.open import read_manifest
from ..base.content import file_hash
from ..base.errors import VerificationError
from ..base.reading import read_model
from ..base.sealed import write_text
from ..base.spread import spread
from ..ir.unit import CompileUnit
from ..learning.compare import block_windows, mean_interval
from ..learning.evaluate import Accuracy, Predict
from ..learning.impulse import impulse_response
from .accuracy import FURTHER, reference_predictors
from .fleets import predictor, program_variates
from .residuals import Residuals, residual_quantiles

Array = npt.NDArray[np.float64]
SCHEMA = 1
QUANTILES = {"best": 0.05, "typical": 0.5, "worst": 0.95}
"""Of the windows, by the artifact's error: the best and the worst of all are accidents."""
MAX_VARIATES, MAX_NUMBERS, MAX_BYTES = 12, 60_000, 4 << 20
POINTS, LAGS = 240, 1024
"""Longest curve over time, and longest profile of lags."""
MATRIX = (48, 128)
"""Largest picture of a map: steps ahead and lags."""
DIGITS = 5


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Curve(_Part):
    """A forecaster's errors on the test split, scaled data.

    Attributes:
        mse, interval: of all windows; the interval from a block bootstrap, None for too few blocks.
        steps: ``[H]`` by step ahead.
        times: by stretches of neighbouring windows, see ``Evaluation.times``.
        variates: by variate, those of the examples.
    """

    mse: float
    interval: tuple[float, float] | None
    steps: tuple[float, ...]
    times: tuple[float, ...]
    variates: dict[str, float]


class Example(_Part):
    """One variate of one window, in the units of the data.

    Attributes:
        kind: of ``QUANTILES``.
        mse: the artifact's, scaled data.
        starts: time stamp of the first forecast step, or the number of the window.
        past: the end of the window; ``truth`` and each forecast ``[H]``.
    """

    variate: str
    kind: str
    mse: float
    starts: str
    past: tuple[float, ...]
    truth: tuple[float, ...]
    forecasts: dict[str, tuple[float, ...]]


class Matrix(_Part):
    """An affine map as a picture.

    Attributes:
        shape: steps ahead and lags of the picture, oldest lag first.
        lookback, horizon: of the map, of which the largest entries of each cell were taken.
        largest: the size of the largest entry.
        pictures: variate, or ``all variates``, -> base64 of int8, the entry over ``largest`` times 127.
        profile: mean size of the weights by lag, the oldest first; of all pictures together.
    """

    shape: tuple[int, int]
    lookback: int
    horizon: int
    largest: float
    pictures: dict[str, str]
    profile: tuple[float, ...]


class Evaluation(_Part):
    """What a report needs of an evaluation.

    Attributes:
        contents: what of the user's data is in here, in words.
        windows: how many were evaluated.
        times: where each stretch of ``Curve.times`` starts: a time stamp, or the number of a window.
        rows: by name of the forecaster; ``student`` or ``model`` is the artifact.
        matrix: None where the artifact is not one affine map.
        residuals: quantiles of the artifact's errors; None where there are none.
    """

    schema_number: int = SCHEMA
    contents: str
    windows: int
    times: tuple[str, ...]
    rows: dict[str, Curve]
    examples: tuple[Example, ...]
    matrix: Matrix | None
    residuals: Residuals | None = None


def evaluation_path(artifact: Path) -> Path:
    """Where the evaluation of an artifact lies: beside it, never inside."""
    return artifact.parent / f"{artifact.name}.evaluation.json"


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Writes it, complete or not at all."""
    write_text(path, evaluation.model_dump_json() + "\n")


def load_evaluation(path: Path) -> Evaluation:
    """Reads it.

    Raises:
        VerificationError: the file is too large, or not what ``save_evaluation`` writes.
    """
    return read_model(
        path,
        Evaluation,
        what="evaluation",
        error=VerificationError,
        max_bytes=MAX_BYTES,
        hint="compile again, or remove it",
    )


def kept_residuals(artifact: Path) -> dict[str, Any] | None:
    """The quantiles of its errors that an artifact's evaluation left beside it, as JSON has them.

    None where there are none, and where the file is not the one that the artifact names.
    """
    path, named = evaluation_path(artifact.resolve()), read_manifest(artifact).get("evaluation") or {}
    if not path.is_file() or file_hash(path) != named.get("sha256"):
        return None
    residuals = load_evaluation(path).residuals
    return None if residuals is None else residuals.model_dump(mode="json")


def observed(unit: CompileUnit, rows: Mapping[str, Accuracy]) -> Evaluation | None:
    """What the evaluation of one artifact showed; None on data that nothing is measured on.

    Args:
        rows: the artifact's own; the others are ``unit.accuracy``.
    """
    mine = rows.get("student", rows.get("model"))
    if unit.data.unmeasured or mine is None:
        return None
    everyone = {name: row for name, row in {**rows, **unit.accuracy}.items() if not name.startswith(FURTHER)}
    variates = _shown_variates(mine, unit)
    bins = _starts(mine.windows, POINTS)
    examples = tuple(_examples(unit, mine, variates))
    shown = len({(example.starts, example.variate) for example in examples})
    steps = unit.task.horizon + (len(examples[0].past) if examples else 0)
    return Evaluation(
        contents=f"{shown} windows of the data, {steps} steps of one variate each, in its own units",
        windows=mine.windows,
        times=tuple(_stamp(unit, int(index)) for index in bins),
        rows={name: _curve(row, unit, variates, bins) for name, row in everyone.items()},
        examples=examples,
        matrix=_matrix(unit, variates),
        residuals=residual_quantiles(unit),
    )


def _shown_variates(mine: Accuracy, unit: CompileUnit) -> list[int]:
    """Which variates have examples: all where they are few, else spread from the easiest to the hardest."""
    numbers = len(QUANTILES) * (_past_steps(unit) + 3 * unit.task.horizon)
    count = min(len(unit.data.variates), MAX_VARIATES, max(1, MAX_NUMBERS // numbers))
    if count == len(unit.data.variates):
        return list(range(count))
    order = np.argsort(mine.variate_mse.mean(axis=0), kind="stable")
    return sorted(int(index) for index in order[spread(len(order), count)])


def _past_steps(unit: CompileUnit) -> int:
    """How much of the past an example shows."""
    return min(unit.task.lookback, max(unit.task.horizon, 24))


def _curve(row: Accuracy, unit: CompileUnit, variates: Sequence[int], bins: npt.NDArray[np.int64]) -> Curve:
    block = block_windows(unit.data, unit.task.lookback, unit.task.horizon)
    interval = mean_interval(row.window_mse, block)
    counts = np.diff(np.append(bins, row.windows))
    of_variates = row.variate_mse.mean(axis=0)
    return Curve(
        mse=row.mse,
        interval=interval,
        steps=_short(row.step_mse),
        times=_short(np.add.reduceat(row.window_mse, bins) / counts),
        variates={unit.data.variates[index]: float(of_variates[index]) for index in variates},
    )


def _examples(unit: CompileUnit, mine: Accuracy, variates: Sequence[int]) -> Iterator[Example]:
    """For each variate the windows at ``QUANTILES`` of its error."""
    places = [
        (variate, kind, int(order[round(quantile * (len(order) - 1))]))
        for variate in variates
        for order in [np.argsort(mine.variate_mse[:, variate], kind="stable")]
        for kind, quantile in QUANTILES.items()
    ]
    chosen = sorted({index for _, _, index in places})
    past, future = unit.data.windows("test", unit.task.lookback, unit.task.horizon).batch(chosen)
    predictors: dict[str, Predict] = {"student": predictor(unit, unit.judged_point)}
    predictors |= {name: row for name, row in reference_predictors(unit).items() if name == "teacher"}
    with torch.inference_mode():
        found = {name: _raw(unit, predict(chosen, past).numpy()) for name, predict in predictors.items()}
    raw_past = _raw(unit, past.numpy())[..., -_past_steps(unit) :]
    raw_future = _raw(unit, future.numpy())
    for variate, kind, index in places:
        at = chosen.index(index)
        yield Example(
            variate=unit.data.variates[variate],
            kind=kind,
            mse=float(mine.variate_mse[index, variate]),
            starts=_stamp(unit, index),
            past=_short(raw_past[at, variate]),
            truth=_short(raw_future[at, variate]),
            forecasts={name: _short(values[at, variate]) for name, values in found.items()},
        )


def _raw(unit: CompileUnit, scaled: npt.NDArray[Any]) -> Array:
    """In the units of the data."""
    values: Array = np.asarray(unit.data.scaling.unscale(scaled), dtype=np.float64)
    return values


def _stamp(unit: CompileUnit, index: int) -> str:
    """When the forecast of test window ``index`` starts."""
    windows = unit.data.windows("test", unit.task.lookback, unit.task.horizon)
    if unit.data.timestamps is None:
        return str(index)
    stamp = unit.data.timestamps[windows.first + index + unit.task.lookback]
    return str(np.datetime_as_string(stamp, unit="s"))


def _matrix(unit: CompileUnit, variates: Sequence[int]) -> Matrix | None:
    if unit.judged_model.inputs:
        return None  # what lags matter is no matrix of the window alone
    maps = impulse_response(unit.judged_model, len(program_variates(unit)), unit.task.lookback, variates)
    if maps is None:
        return None
    names = [unit.data.variates[index] for index in variates]
    largest = float(np.abs(maps).max()) or 1.0
    if all(np.allclose(each, maps[0], rtol=0, atol=1e-5 * largest) for each in maps):
        maps, names = maps[:1], ["all variates"]
    horizon, lookback = maps.shape[1:]
    pictures = [_largest_of_cells(each) for each in maps]
    return Matrix(
        shape=(pictures[0].shape[0], pictures[0].shape[1]),
        lookback=lookback,
        horizon=horizon,
        largest=largest,
        pictures={
            name: base64.b64encode(np.round(picture / largest * 127).astype(np.int8).tobytes()).decode()
            for name, picture in zip(names, pictures, strict=True)
        },
        profile=_short(np.abs(maps).mean(axis=(0, 1))[-LAGS:]),
    )


def _largest_of_cells(values: Array) -> Array:
    """``[H, L]`` to at most ``MATRIX`` cells, the largest entry in each: none is averaged away."""
    rows, columns = _starts(values.shape[0], MATRIX[0]), _starts(values.shape[1], MATRIX[1])
    high = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
    low = np.minimum.reduceat(np.minimum.reduceat(values, rows, axis=0), columns, axis=1)
    cells: Array = np.where(high >= -low, high, low)
    return cells


def _starts(total: int, most: int) -> npt.NDArray[np.int64]:
    """Where at most ``most`` equal stretches of ``total`` begin."""
    count = min(total, most)
    return np.arange(count) * total // count


def _short(values: npt.NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
