"""What an affine student was solved from is left beside its artifacts, for ``update``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..base.content import file_hash
from ..data import SyntheticData
from ..ir.passes import PassContext, PassResult, Step
from ..ir.provenance import TeacherInfo
from ..ir.unit import CompileUnit, Task
from ..learning.affine import Setting
from ..learning.rolling_origin import chosen_setting
from ..learning.statistics import WindowStatistics
from ..learning.synthetic import TEACHER
from ..learning.update import FILE, Header, State, save_state, state_of
from .recipe import Recipe


class KeepStatistics(Step):
    """Writes ``out/statistics.safetensors`` for a solved student; the manifests name it.  Idle for any other."""

    name = "keep_statistics"
    summary = "leave what an affine student was solved from beside the artifacts, for update"
    reads = frozenset({"data", "statistics"})
    writes = frozenset({"facts"})

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        chosen = next((entry.metrics for entry in unit.record if "selection" in entry.metrics), None)
        if chosen is None or not isinstance(unit.statistics, WindowStatistics):
            return PassResult(unit, False)
        save_state(_state(self.recipe, unit, unit.statistics, chosen_setting(chosen)), self.out / FILE)
        kept = unit.with_(facts={**unit.facts, "statistics": reference(self.out / FILE)})
        return PassResult(kept, True)


def reference(path: Path) -> dict[str, str]:
    """A file beside the artifacts as their manifests name it."""
    return {"file": path.name, "sha256": file_hash(path)}


def _state(recipe: Recipe, unit: CompileUnit, statistics: WindowStatistics, fitted: Setting) -> State:
    task, data, info = unit.task, unit.data, unit.teacher_info
    sums = statistics.all()
    if isinstance(data, SyntheticData):
        taught = sums.pooled()
        prior = type(taught)(
            taught.count,
            taught.gram,
            {TEACHER: taught.cross[TEACHER]},
            {TEACHER: taught.square[TEACHER]},
        )
        nothing = np.zeros((0, len(task.variates)))
        header = _header(recipe, task, info, None)
        return state_of(header, None, prior, nothing, np.zeros((0, len(task.variates))), fitted)
    first = data.splits.train - task.lookback - task.horizon + 1
    end = data.splits.span("test")[1]
    last = None if data.timestamps is None else str(data.timestamps[end - 1])
    rows = np.array(data.values[first:end], dtype=np.float64)
    header = _header(recipe, task, info, last)
    return state_of(header, sums, statistics.prior, rows, np.stack([data.mean, data.std]), fitted)


def _header(recipe: Recipe, task: Task, info: TeacherInfo | None, last: str | None) -> Header:
    return Header(
        lookback=task.lookback,
        horizon=task.horizon,
        variates=task.variates,
        step=task.frequency,
        last=last,
        setting=Setting(),
        rows_added=0,
        recipe=recipe.to_toml(),
        teacher=asdict(info) if info else {},
    )
