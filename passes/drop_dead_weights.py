"""Drops weights that cannot act, exactly.

What is dead is a family's own knowledge (``Teacher.without_dead_weights``): the patch sizes that Moirai
does not use at this task, queries, keys and position bias of Chronos-Bolt's one-token decoder
self-attention, heads for horizons that are not forecast.  The manager checks on real windows that the
forecast stays.
"""

from __future__ import annotations

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import parameter_count
from ..compiler.ir.passes import Pass, PassContext, PassResult
from ..compiler.ir.unit import CompileUnit


class DropDeadWeights(Pass):
    """Replaces the teacher by an equal one with fewer weights."""

    name = "drop_dead_weights"
    summary = "drop the teacher's weights that cannot act, exactly"
    reads = frozenset({"teacher"})
    writes = frozenset({"teacher"})
    needs_teacher = True
    preserves_function = True

    def requires(self, unit: CompileUnit) -> None:
        if unit.teacher is None:
            raise PassError(
                "there is no teacher", hint="a teacher store holds outputs only; give the teacher"
            )

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert unit.teacher is not None  # requires() ran
        smaller = unit.teacher.without_dead_weights()
        before, after = parameter_count(unit.teacher), parameter_count(smaller)
        metrics = {"parameters_before": before, "parameters": after}
        if smaller is unit.teacher:
            return PassResult(unit, False, metrics)
        return PassResult(unit.with_(teacher=smaller.eval()), True, metrics)
