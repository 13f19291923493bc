"""Folds what is affine in the student, exactly, by algebra.

A student declares what it folds into (``Student.fold``): a DLinear its affine map, an iTransformer its
q/k/v and its last norm.  The algebra stands with each student; the manager checks that the function is
the same.
"""

from __future__ import annotations

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Student, parameter_count
from ..compiler.ir.passes import Pass, PassContext, PassResult
from ..compiler.ir.unit import CompileUnit


class FoldAffine(Pass):
    """Replaces the trained student by its folded form."""

    name = "fold_affine"
    reads = frozenset({"student"})
    writes = frozenset({"student"})
    summary = "fold the student's affine parts: DLinear to one matrix, iTransformer's q/k/v and last norm"
    preserves_function = True

    def requires(self, unit: CompileUnit) -> None:
        if unit.student is not None and unit.objective.active():
            raise PassError("the student is not trained yet", hint="put distill before fold_affine")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        # A student that was folded before is a plain Forecaster: nothing is left to fold.
        folded = unit.student.fold() if isinstance(unit.student, Student) else None
        if folded is None or unit.student is None:
            return PassResult(unit, False, {"folded": "nothing"})
        before, after = parameter_count(unit.student), parameter_count(folded)
        return PassResult(
            unit.with_(student=folded.eval()), True, {"parameters_before": before, "parameters": after}
        )
