"""A unit whose data are a panel: between windows of one item and the slots of its program.

    window of item i  [1, L]  --placed-->  row of slot s(i) of  past [B, S, L]  --program-->  [B, S, H]

A program of a fleet has a variate for each head, not for each item.  Data sets of one series are their own
program's variates, and all of this is the identity for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...targets.artifact.device.fleet import HISTORY, nearest_slot
from ...targets.artifact.fleet import write_fleet
from ..data import Panel, PanelWindows, Part
from ..ir.fleet import FLEET, Fleet
from ..ir.forecaster import Forecaster
from ..ir.inputs import WindowRows, rows_for
from ..ir.passes import PassContext, PassResult, Step
from ..ir.unit import CompileUnit
from ..learning.evaluate import Predict, evaluate, model_predictor, naive_scale, seasonal_naive
from ..students.affine import LowRankMap
from .recipe import Recipe

MOST_NUMBERS = 1 << 25
"""Of windows that a program is tried on at once: 128 MiB of float32."""
BATCH_WINDOWS = 4096
"""Windows evaluated at once: enough that most slots of a program have something to do."""
Run = Callable[[np.ndarray], np.ndarray]


def fleet_of(unit: CompileUnit) -> Fleet | None:
    """The slots of a panel's program, a single one where no pass has made more; None for other data."""
    if not isinstance(unit.data, Panel):
        return None
    return unit.fleet or Fleet((FLEET,), np.zeros(len(unit.data.ids), dtype=np.int64))


def program_variates(unit: CompileUnit) -> tuple[str, ...]:
    """The variates of the program: those of the task, or the slots of a fleet."""
    fleet = fleet_of(unit)
    return tuple(unit.task.variates) if fleet is None else fleet.slots


def program_scale(unit: CompileUnit) -> tuple[list[float], list[float]]:
    """Mean and deviation of each variate of the program; windows of items come scaled."""
    count = len(program_variates(unit))
    mean, std = (np.broadcast_to(each, count).tolist() for each in (unit.data.mean, unit.data.std))
    return mean, std


def program_windows(unit: CompileUnit, part: Part, count: int) -> np.ndarray:
    """Windows as the program takes them, spread over a part: ``[count, S, L]``, fewer of many slots."""
    if fleet_of(unit) is None:
        return unit.rows(part).spread(count)
    windows = unit.data.windows(part, unit.task.lookback, unit.task.horizon)
    slots = len(program_variates(unit))
    count = max(2, min(count, MOST_NUMBERS // (slots * unit.task.lookback)))
    return windows.spread(count * slots).reshape(count, slots, unit.task.lookback)


def predictor(unit: CompileUnit, model: Forecaster, part: Part = "test") -> Predict:
    """Forecasts of a model of the unit's program, for windows of a part of the data."""
    if fleet_of(unit) is None:
        return with_inputs(unit, model, model_predictor(model), part)
    return routed(unit, model_run(model), part)


def with_inputs(unit: CompileUnit, model: Forecaster, predict: Predict, part: Part = "test") -> Predict:
    """``predict``, which takes the rows of ``model``, from windows of a part."""
    rows = rows_for(model, unit.data.windows(part, unit.task.lookback, unit.task.horizon))
    if not isinstance(rows, WindowRows):
        return predict
    return lambda indices, past: predict(indices, rows.rows(indices, past))


def model_run(model: nn.Module) -> Run:
    """A model as an engine."""

    def run(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = model(torch.from_numpy(past)).numpy()
        return forecast

    return run


def routed(unit: CompileUnit, run: Run, part: Part = "test") -> Predict:
    """Windows of items to their slots and back; ``run`` takes ``[B, S, L]``."""
    fleet = fleet_of(unit)
    if fleet is None:
        return with_inputs(unit, unit.shipped, _plain(run), part)
    windows = unit.data.windows(part, unit.task.lookback, unit.task.horizon)
    assert isinstance(windows, PanelWindows)
    return _through(run, windows, fleet.slot_of, len(fleet.slots))


def _plain(run: Run) -> Predict:
    return lambda indices, past: torch.from_numpy(run(past.numpy()))


def _through(run: Run, windows: PanelWindows, slot_of: np.ndarray, slots: int) -> Predict:
    """Windows of a panel, each through the slot of its item."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        own = slot_of[windows.items(indices)]
        return torch.from_numpy(in_slots(run, past.numpy()[:, 0], own, slots))[:, None]

    return predict


def in_slots(run: Run, past: np.ndarray, slots: np.ndarray, count: int) -> np.ndarray:
    """``past [N, L]`` through a program of ``count`` slots, each window in its own: ``[N, H]``."""
    order = np.argsort(slots, kind="stable")
    _, first, many = np.unique(slots[order], return_index=True, return_counts=True)
    row = np.empty(len(past), dtype=np.int64)
    row[order] = np.arange(len(past)) - np.repeat(first, many)
    at_once = max(1, MOST_NUMBERS // (2 * count * past.shape[1]))
    forecast: np.ndarray | None = None
    for start in range(0, int(many.max()), at_once):
        inside = np.flatnonzero((row >= start) & (row < start + at_once))
        placed = np.zeros((int(row[inside].max()) - start + 1, count, past.shape[1]), dtype=np.float32)
        placed[row[inside] - start, slots[inside]] = past[inside]
        found = run(placed)
        if forecast is None:
            forecast = np.empty((len(past), found.shape[2]), dtype=np.float32)
        forecast[inside] = found[row[inside] - start, slots[inside]]
    assert forecast is not None
    return forecast


class JudgeHeldOut(Step):
    """The second judgement of a fleet: items that nothing was learnt from, forecast as a device does.

    Each has the head that fits its rows before the test part best; beside it stands the fleet's head.
    """

    name = "judge_held_out"
    summary = "test accuracy on the held-out items of a panel, with the head that fits their earlier rows"
    reads = frozenset({"data", "student", "judged", "fleet"})
    writes = frozenset({"facts"})

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        facts = fleet_facts(unit)
        if not facts:
            return PassResult(unit, False)
        held = unit.data.held if isinstance(unit.data, Panel) else None
        if held is not None and held.futures("test", unit.task.lookback, unit.task.horizon)[1].sum():
            facts["held_out"] = _held_out(unit, held, context)
        return PassResult(unit.with_(facts={**unit.facts, "fleet": facts}), True)


def _held_out(unit: CompileUnit, held: Panel, context: PassContext) -> dict[str, Any]:
    """Accuracy on items that were kept out."""
    run, slots = model_run(unit.judged_model), len(program_variates(unit))
    test = PanelWindows(held, "test", unit.task.lookback, unit.task.horizon)
    nearest = np.array([_nearest(unit, held, item, run, slots) for item in range(len(held.ids))])
    rows = {
        "student": _through(run, test, nearest, slots),
        "fleet_head": _through(run, test, np.zeros_like(nearest), slots),
        "seasonal_naive": seasonal_naive(unit.data.seasonality, unit.task.horizon),
    }
    scale = naive_scale(held)
    return {"items": len(held.ids)} | {
        name: evaluate(row, test, scale, batch_windows=BATCH_WINDOWS, title=f"held out {name}").to_dict()
        for name, row in rows.items()
    }


def _nearest(unit: CompileUnit, held: Panel, item: int, run: Run, slots: int) -> int:
    """The slot that a device would find for an item with its rows before the test part."""
    lookback, horizon = unit.task.lookback, unit.task.horizon
    begin = int(held.begins[item])
    end = min(int(held.ends[item]), begin + held.splits.span("test")[0] - int(held.starts[item]))
    first = max(begin, end - HISTORY * (lookback + horizon))
    if end <= first:
        return 0

    def at_single(past: np.ndarray) -> np.ndarray:
        return run(past.astype(np.float32))

    return nearest_slot(at_single, held.scaled(item, first, end), slots, lookback, horizon)


def fleet_facts(unit: CompileUnit) -> dict[str, Any]:
    """``fleet`` of a manifest; empty for other data."""
    fleet, panel = fleet_of(unit), unit.data
    if fleet is None or not isinstance(panel, Panel):
        return {}
    return {
        "items": len(panel.ids),
        "slots": len(fleet.slots),
        "columns": {"id": panel.columns.id, "time": panel.columns.time, "values": list(panel.columns.values)},
        "unknown": "the slot that fits its earlier rows best, else the first; scaled by its own rows",
    }


def add_fleet(unit: CompileUnit, directory: Path, recipe: Recipe) -> None:
    """Writes who has which slot beside the payload of a panel, and what a part is cut out of."""
    fleet, panel = fleet_of(unit), unit.data
    if fleet is None or not isinstance(panel, Panel):
        return
    weights = {}
    if isinstance(unit.model, LowRankMap):
        state = unit.model.state_dict()
        weights = {"basis": state["basis"].numpy(), "heads": state["heads"].numpy()}
    table = np.column_stack([fleet.slot_of, panel.scales])
    write_fleet(directory, panel.ids, table, weights, recipe.to_toml())
