"""Adds what the teacher says about synthetic windows to the statistics, where training is short.

    G + v G0,   R + v T0,   T + v T0          G0 = sum (x - m)(x - m)^T,  T0 = sum (x - m)(teacher - m)^T

over windows x that know the step of the series and nothing else.  The weight v is one more candidate of the
rolling origins (``solve_affine``), 0 among its values.  As a prior it stands for a fixed number of windows,
so it fades as data grow; with many windows the pass does nothing and costs nothing.
"""

from __future__ import annotations

from pydantic import Field

from ..compiler.base.errors import PassError
from ..compiler.data import SYNTHETIC
from ..compiler.data.synthetic_data import WINDOWS
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit
from ..compiler.learning.statistics import WindowStatistics
from ..compiler.learning.synthetic import prior_key, synthetic_prior

FEWEST = 1000


class AddPrior(Pass):
    """Adds a prior to ``statistics``; idle for many windows, and without the teacher itself."""

    name = "add_prior"
    reads = frozenset({"data", "teacher", "statistics"})
    writes = frozenset({"statistics"})
    needs_teacher = True
    summary = "let the teacher label synthetic windows, for training of few windows"

    class Options(PassOptions):
        """``windows`` that the teacher labels; ``most_windows`` of training for which it is asked.

        0 windows are as many as training has, all variates counted, so that a slow teacher is asked for no
        more than twice its labels; at least 1,000 and at most 16,000.
        """

        windows: int = Field(default=0, ge=0)
        most_windows: int = Field(default=5000, ge=0)

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.statistics, WindowStatistics):
            raise PassError("there are no statistics", hint="put gather_statistics before add_prior")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        statistics = unit.statistics
        assert isinstance(statistics, WindowStatistics)
        if idle := _idle(unit, statistics, self.options.most_windows):
            return PassResult(unit, False, {"windows": 0, "idle": idle})
        assert unit.teacher is not None
        labelled = statistics.windows * len(unit.task.variates)
        windows = self.options.windows or min(WINDOWS, max(FEWEST, labelled))
        # The windows have a seed of their own (0), so that students of all seeds share their labels.
        prior = synthetic_prior(unit.teacher, unit.task, windows=windows, progress=context.progress)
        key = prior_key(unit.teacher, unit.task, windows)
        after = unit.with_(statistics=statistics.with_prior(prior, key))
        return PassResult(after, True, {"windows": prior.count, "step": unit.task.frequency or "unknown"})


def _idle(unit: CompileUnit, statistics: WindowStatistics, most: int) -> str:
    """Why there is nothing to do; empty where there is."""
    if unit.data.name == SYNTHETIC:
        return "the data are synthetic already"
    if statistics.windows > most:
        return f"{statistics.windows} training windows are enough"
    if unit.teacher is None:
        return "a teacher store cannot label synthetic windows"
    return ""
