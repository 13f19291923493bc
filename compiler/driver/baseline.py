"""The supervised baseline: the same pipeline without the teacher, what a gain is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir.passes import Pass, PassContext, PassResult, Step
from ..ir.unit import CompileUnit
from .cache import PassCache
from .instruments import ReportInstrument
from .manager import PassManager


class TrainBaseline(Step):
    """Runs every pass that does not need the teacher on the data alone.

    Args:
        passes: the pipeline.
        seed: of the recipe: the baseline's passes draw what the pipeline's own draw.
    """

    name = "train_baseline"
    summary = "the supervised baseline: the same pipeline without the passes that need the teacher"
    reads = frozenset({"data"})
    writes = frozenset({"supervised"})

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        seed: int,
        cache: PassCache | None = None,
        check_purity: bool = False,
    ) -> None:
        # A row is judged and never shipped, so nothing is solved again for it.
        self.passes = [step for step in passes if not step.needs_teacher and "judged" not in step.writes]
        self.seed, self.cache, self.check_purity = seed, cache, check_purity

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        alone = CompileUnit(unit.task, unit.data, teacher_info=unit.teacher_info)
        report = ReportInstrument(context.progress)
        manager = PassManager(self.passes, [report], cache=self.cache, check_purity=self.check_purity)
        supervised = manager.run(alone, replace(context, seed=self.seed))
        return PassResult(unit.with_(supervised=supervised), True)
