"""Test accuracy of quantile forecasts: every row of ``accuracy.quantiles`` of a manifest is computed here.

student               the payload where it runs here, else the model before lowering
empirical_residuals   its point forecast with the quantiles of its residuals, as wide for every window
supervised            the baseline, with quantiles of its own
teacher               its own quantiles, where it has any
seasonal_naive        the last season with the quantiles of its residuals in training
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...targets.base import Engine
from ..base.progress import Progress
from ..base.spread import spread
from ..ir.forecaster import Forecaster
from ..ir.quantiles import QuantileForecaster
from ..ir.unit import CompileUnit
from ..learning.compare import block_windows, compare, mean_interval
from ..learning.evaluate import seasonal_naive
from ..learning.quantiles import PredictQuantiles, QuantileAccuracy, evaluate_quantiles
from ..learning.residuals import interpolated
from .fleets import with_inputs

Rows = Mapping[str, QuantileAccuracy]
NAIVE_WINDOWS = 2048
"""Training windows, evenly spread, whose residuals the seasonal naive forecast has its quantiles from."""
SHOWN_STEPS = 24
RIVALS = ("empirical_residuals", "supervised", "teacher", "seasonal_naive")


def reference_quantiles(unit: CompileUnit, progress: Progress) -> dict[str, QuantileAccuracy]:
    """The rows that no target changes; none for a point forecast."""
    if unit.head is None:
        return {}
    rows: dict[str, PredictQuantiles] = {"seasonal_naive": naive_quantiles(unit)}
    if unit.plain_head is not None:
        rows["empirical_residuals"] = of_model(unit, QuantileForecaster(unit.judged_model, unit.plain_head))
    if unit.supervised is not None and unit.supervised.head is not None:
        supervised = unit.supervised
        rows["supervised"] = of_model(
            supervised, QuantileForecaster(supervised.judged_model, unit.supervised.head)
        )
    if (teacher := teacher_quantiles(unit)) is not None:
        rows["teacher"] = teacher
    return evaluated(unit, rows, progress)


def artifact_quantiles(
    unit: CompileUnit, engine: Engine | None, precision: str, progress: Progress
) -> dict[str, QuantileAccuracy]:
    """The artifact's row: its payload's where that may be judged and runs here, else its model's."""
    if unit.head is None:
        return {}
    if engine is not None and unit.judged is None:
        return evaluated(unit, {"student": of_engine(engine, unit)}, progress)
    model = QuantileForecaster(unit.judged_model, unit.head)
    name = "model" if engine is None or precision != "fp32" else "student"
    return evaluated(unit, {name: of_model(unit, model)}, progress)


def evaluated(
    unit: CompileUnit, rows: Mapping[str, PredictQuantiles], progress: Progress
) -> dict[str, QuantileAccuracy]:
    """Every row on every test window; none on data that nothing is measured on."""
    if unit.data.unmeasured:
        return {}
    task = unit.task
    test = unit.data.windows("test", task.lookback, task.horizon)
    return {
        name: evaluate_quantiles(
            predict, test, task.quantile_levels, progress=progress, title=f"quantiles {name}"
        )
        for name, predict in rows.items()
    }


def of_model(unit: CompileUnit, model: Forecaster) -> PredictQuantiles:
    """A module ``[B, D, L] -> [B, D, H, Q]``, or one of rows, on windows of the unit's data."""
    model = model.eval()

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        quantiles: Tensor = model(past)
        return quantiles

    return with_inputs(unit, model, predict)


def of_engine(engine: Engine, unit: CompileUnit) -> PredictQuantiles:
    """A loaded payload, whose rows have ``H Q`` numbers."""
    sizes = (unit.task.horizon, len(unit.task.quantile_levels))

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        rows = np.array(engine(past.numpy()))
        return torch.from_numpy(rows.reshape(*rows.shape[:2], *sizes))

    return with_inputs(unit, unit.shipped, predict)


def naive_quantiles(unit: CompileUnit) -> PredictQuantiles:
    """The seasonal naive forecast and the quantiles of its residuals, by variate and step."""
    task = unit.task
    point = seasonal_naive(unit.data.seasonality, task.horizon)
    windows = unit.data.windows("train", task.lookback, task.horizon)
    most = max(64, min(NAIVE_WINDOWS, (1 << 25) // (task.horizon * len(task.variates))))
    past, future = windows.batch(np.unique(spread(len(windows), most)))
    residuals, levels = future - point((), past), torch.tensor(task.quantile_levels)
    each = [torch.quantile(residuals[:, d], levels, dim=0).T for d in range(len(task.variates))]
    offsets = torch.stack(each)

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        return point(indices, past).unsqueeze(-1) + offsets

    return predict


def teacher_quantiles(unit: CompileUnit) -> PredictQuantiles | None:
    """The teacher's own quantiles at the task's levels, None where it has none or they are not at hand."""
    levels, store = unit.task.quantile_levels, unit.teacher_store
    original = unit.original_teacher or unit.teacher
    if store is not None and unit.original_teacher is None:
        if not store.quantile_levels:
            return None
        return lambda indices, past: interpolated(
            store.array("test", "quantiles")[np.asarray(indices)], store.quantile_levels, levels
        )
    if original is None or not original.quantile_levels:
        return None
    return lambda indices, past: interpolated(
        original.quantiles(past).numpy(), original.quantile_levels, levels
    )


def by_horizon(row: QuantileAccuracy) -> dict[str, Any]:
    """Coverage and width of the outermost interval at up to ``SHOWN_STEPS`` steps ahead, evenly spread."""
    steps = np.unique(spread(len(row.step_coverage), SHOWN_STEPS))
    return {
        "steps": [int(step) + 1 for step in steps],
        "coverage": [round(float(row.step_coverage[step]), 4) for step in steps],
        "width": [float(f"{row.step_width[step]:.4g}") for step in steps],
    }


def quantile_part(rows: Rows, unit: CompileUnit) -> dict[str, Any]:
    """``accuracy.quantiles`` of a manifest; empty for a point forecast."""
    mine = rows.get("student", rows.get("model"))
    if mine is None:
        return {}
    block = block_windows(unit.data, unit.task.lookback, unit.task.horizon)
    interval = mean_interval(mine.window_coverage, block)
    return {
        "levels": list(mine.levels),
        "horizon": by_horizon(mine),
        "test": {name: row.to_dict() for name, row in rows.items()},
        "coverage_interval": interval and [interval[0], min(interval[1], 1.0)],
        "comparisons": {
            name: compare(mine.window_pinball, rows[name].window_pinball, block).to_dict()
            for name in RIVALS
            if name in rows
        },
    }
