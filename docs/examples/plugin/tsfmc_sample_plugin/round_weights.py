"""The pass ``round_weights``: every weight of the student on a grid.

    w -> round(w * 2^b) / 2^b

Rounded weights compress better.  Forecasts move, so the pass does not declare that it preserves the function.
"""

from __future__ import annotations

import copy

import torch

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from tsfmc.compiler.ir.unit import CompileUnit

BITS = 10
"""Binary digits behind the point, unless the recipe says otherwise."""


class RoundOptions(PassOptions):
    """``bits``: binary digits behind the point."""

    bits: int | None = None


class RoundWeights(Pass):
    """Rounds the student.  It needs no teacher, so the supervised baseline has it too."""

    name = "round_weights"
    summary = "put every weight of the student on a grid of 2^-bits"
    reads = frozenset({"student"})
    writes = frozenset({"student"})
    cacheable = True
    Options = RoundOptions

    def requires(self, unit: CompileUnit) -> None:
        if unit.student is None:
            raise PassError("there is no student to round", hint="put build_student before round_weights")

    @torch.no_grad()
    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        student = copy.deepcopy(unit.student)
        assert student is not None  # requires() ran
        bits = BITS if self.options.bits is None else self.options.bits
        moved = 0.0
        for parameter in student.parameters():
            rounded = (parameter * 2**bits).round() / 2**bits
            moved = max(moved, float((rounded - parameter).abs().max()))
            parameter.copy_(rounded)
        return PassResult(unit.with_(student=student), True, {"bits": bits, "largest_change": moved})
