"""Gathers what an affine student is solved from: sums over windows, per variate and block of time.

    G = sum (x - m)(x - m)^T     R = sum (x - m)(y - m)^T     T = sum (x - m)(teacher - m)^T

Where these sums would take more than ``MOST_BYTES`` those of the average variate alone are kept: they are
all that one map for all variates needs.

Without a teacher's outputs there is no T, and what is solved is plain least squares.  A teacher that was
tuned on the training windows is not judged by blocks of them: it has seen what each block would ask.  Where
the objective aims at the teacher's states, those have sums as well.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ..compiler.base.content import content_key
from ..compiler.base.errors import PassError
from ..compiler.data import SyntheticData
from ..compiler.ir.effects import content_of
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.teacher_store import TeacherStore
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.state_targets import reduced_states
from ..compiler.learning.statistics import MOST_BYTES, STATES, Labels, WindowStatistics, bytes_of_each


class GatherStatistics(Pass):
    """Adds ``statistics`` to the unit."""

    name = "gather_statistics"
    reads = frozenset({"data", "teacher_store", "tuned", "objective"})
    writes = frozenset({"statistics"})
    summary = "sum what an affine student needs of the windows and of the teacher's forecasts"

    class Options(PassOptions):
        """``blocks`` of time that training is cut into, so that settings are judged by rolling origins.

        ``variates``: the sums of ``each``, of the ``average`` one, or of each as long as memory allows it.
        """

        blocks: int = Field(default=8, ge=3)
        variates: Literal["auto", "each", "average"] = "auto"

    def requires(self, unit: CompileUnit) -> None:
        store = unit.teacher_store
        if store is None:
            return
        windows = len(unit.data.windows("train", unit.task.lookback, unit.task.horizon))
        if store.counts["train"] != windows:
            raise PassError(
                f"the teacher's labels cover {store.counts['train']} of {windows} training windows",
                hint="label all of them (train_windows = 0), or train with distill",
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        task = unit.task
        labels = [] if unit.teacher_store is None else [("teacher", _labels(unit.teacher_store))]
        aims = {term.target for _, term in unit.objective.active()}
        if unit.teacher_store is not None and STATES in aims:
            labels.append((STATES, reduced_states(unit.teacher_store)))
        average = self._average(unit)
        key = content_key(
            content_of(unit, "data"),
            content_of(unit, "teacher_store"),
            task.lookback,
            task.horizon,
            self.options.blocks,
            content_of(unit, "tuned"),
            [name for name, _ in labels],
            *(["average"] if average else []),
        )
        statistics = WindowStatistics(
            unit.data,
            task.lookback,
            task.horizon,
            labels,
            blocks=self.options.blocks,
            key=key,
            tuned=bool(labels) and unit.tuned,
            average=average,
        )
        metrics = {"windows": statistics.windows, "targets": ", ".join(statistics.targets)}
        return PassResult(unit.with_(statistics=statistics), True, metrics)

    def _average(self, unit: CompileUnit) -> bool:
        """Synthetic windows are of one variate, and so are their sums."""
        if self.options.variates != "auto":
            return self.options.variates == "average" and not isinstance(unit.data, SyntheticData)
        task = unit.task
        return bytes_of_each(len(task.variates), task.lookback, task.horizon) > MOST_BYTES


def _labels(store: TeacherStore) -> Labels:
    forecasts = store.array("train", "forecast")

    def labels(first: int, last: int) -> np.ndarray:
        return np.asarray(forecasts[first:last])

    return labels
