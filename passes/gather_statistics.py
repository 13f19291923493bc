"""Gathers what an affine student is solved from: sums over windows, per variate and block of time.

    G = sum (x - m)(x - m)^T     R = sum (x - m)(y - m)^T     T = sum (x - m)(teacher - m)^T

Where these sums would take more than ``MOST_BYTES`` those of the average variate alone are kept: they are
all that one map for all variates needs.

Without a teacher's outputs there is no T, and what is solved is plain least squares; every teacher has a T
of its own.  A teacher that was tuned on the training windows is not judged by blocks of them, for it has
seen what each block would ask, unless its labels are those of teachers that had not (``finetune`` with
``cross_fit``).  Where the objective aims at the first teacher's states, those have sums as well.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..compiler.base.content import content_key
from ..compiler.base.errors import PassError
from ..compiler.data import SyntheticData
from ..compiler.ir.effects import content_of
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.labels import teacher_stores, training_labels
from ..compiler.learning.state_targets import reduced_states
from ..compiler.learning.statistics import MOST_BYTES, STATES, WindowStatistics, bytes_of_each


class GatherStatistics(Pass):
    """Adds ``statistics`` to the unit."""

    name = "gather_statistics"
    reads = frozenset({"data", "teacher_store", "companions", "tuned", "held_out", "objective"})
    writes = frozenset({"statistics"})
    summary = "sum what an affine student needs of the windows and of the teachers' forecasts"

    class Options(PassOptions):
        """``blocks`` of time that training is cut into, so that settings are judged by rolling origins.

        ``variates``: the sums of ``each``, of the ``average`` one, or of each as long as memory allows it.
        """

        blocks: int = Field(default=8, ge=3)
        variates: Literal["auto", "each", "average"] = "auto"

    def requires(self, unit: CompileUnit) -> None:
        windows = len(unit.data.windows("train", unit.task.lookback, unit.task.horizon))
        stores = teacher_stores(unit)
        for name, store in stores.items():
            if store.counts["train"] != windows:
                whose = "the teacher's labels" if len(stores) == 1 else f"the labels of {name}"
                raise PassError(
                    f"{whose} cover {store.counts['train']} of {windows} training windows",
                    hint="label all of them (train_windows = 0), or train with distill",
                )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        task = unit.task
        labels = list(training_labels(unit).items())
        tuned = unit.tuned and unit.held_out is None
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
            tuned,
            content_of(unit, "companions"),
            content_of(unit, "held_out"),
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
            tuned=bool(labels) and tuned,
            average=average,
            executor=context.executor,
        )
        metrics = {"windows": statistics.windows, "targets": ", ".join(statistics.targets)}
        return PassResult(unit.with_(statistics=statistics), True, metrics)

    def _average(self, unit: CompileUnit) -> bool:
        """Synthetic windows are of one variate, and so are their sums."""
        if self.options.variates != "auto":
            return self.options.variates == "average" and not isinstance(unit.data, SyntheticData)
        task = unit.task
        return bytes_of_each(len(task.variates), task.lookback, task.horizon) > MOST_BYTES
