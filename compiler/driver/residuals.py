"""How far an artifact was off, as an interval around its forecasts: quantiles of its own errors.

    interval[d, h] = forecast[d, h] + (q_low, q_high of  truth - forecast  over the validation windows)

for each variate and each step ahead: split conformal prediction ("Distribution-Free Predictive Inference
for Regression", Section 2.2) with signed errors, whose two tails may differ. Choices are made on the
validation split and time goes on after it, so nothing is promised: the share of the test split's values
that the interval really held is measured, and stated with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from ..base.spread import spread
from ..data.splits import Part
from ..ir.unit import CompileUnit
from .fleets import predictor

LEVELS = (0.1, 0.9)
MIN_WINDOWS = 50
"""Fewer say nothing of a tenth."""
MAX_WINDOWS, MAX_VALUES = 1000, 1 << 26
"""Neighbouring windows share nearly all of their values, so some spread over the split say what all would."""
MAX_OFFSETS = 100_000
"""Numbers that are kept, ``2 D H``: beyond them the file would be larger than the artifact."""
BATCH, DIGITS = 64, 5


class Offsets(BaseModel):
    """What is added to each step of a variate's forecast, ``[H]``, in the units of the data."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: tuple[float, ...]
    high: tuple[float, ...]


class Residuals(BaseModel):
    """Quantiles of an artifact's errors on the validation split.

    Attributes:
        levels: which quantiles, the lower one first.
        windows: how many validation windows they are of.
        covered: share of the test split's values within the interval.
        variates: by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    levels: tuple[float, float]
    windows: int
    covered: float
    variates: dict[str, Offsets]


def residual_quantiles(unit: CompileUnit) -> Residuals | None:
    """Quantiles of the judged model's errors; None where there are too few windows or too many variates."""
    task = unit.task
    if 2 * len(task.variates) * task.horizon > MAX_OFFSETS:
        return None
    chosen = _chosen(unit, "val")
    if len(chosen) < MIN_WINDOWS:
        return None
    errors = np.concatenate(list(_errors(unit, "val", chosen)))
    low, high = np.quantile(errors, LEVELS, axis=0)
    held = [
        ((low <= error) & (error <= high)).mean(axis=(1, 2))
        for error in _errors(unit, "test", _chosen(unit, "test"))
    ]
    std = unit.data.scaling.unscale(np.ones_like(low)) - unit.data.scaling.unscale(np.zeros_like(low))
    return Residuals(
        levels=LEVELS,
        windows=len(chosen),
        covered=round(float(np.concatenate(held).mean()), 4),
        variates={
            name: Offsets(low=_short(low[at] * std[at]), high=_short(high[at] * std[at]))
            for at, name in enumerate(task.variates)
        },
    )


def _chosen(unit: CompileUnit, split: Part) -> Sequence[int]:
    windows = len(unit.data.windows(split, unit.task.lookback, unit.task.horizon))
    most = max(MIN_WINDOWS, MAX_VALUES // (len(unit.task.variates) * unit.task.horizon))
    return [int(index) for index in spread(windows, min(windows, MAX_WINDOWS, most))]


def _errors(unit: CompileUnit, split: Part, chosen: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
    """``truth - forecast`` of each window, ``[B, D, H]``, scaled data."""
    windows = unit.data.windows(split, unit.task.lookback, unit.task.horizon)
    predict = predictor(unit, unit.judged_point, split)
    with torch.inference_mode():
        for start in range(0, len(chosen), BATCH):
            indices = chosen[start : start + BATCH]
            past, future = windows.batch(indices)
            yield (future - predict(indices, past)).numpy()


def _short(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
