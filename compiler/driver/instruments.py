"""Instruments: what watches steps (progress, dumps) and is never code inside a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base.progress import Progress
from ..ir.passes import Step
from ..ir.unit import CompileUnit, PassRecord


class Instrument:
    """Something that watches steps.  Both hooks are optional."""

    def before(self, number: int, step: Step, unit: CompileUnit) -> None:
        """Called before step ``number``."""

    def after(self, number: int, step: Step, unit: CompileUnit, record: PassRecord) -> None:
        """Called after step ``number`` with the new unit."""


class ReportInstrument(Instrument):
    """A line of progress before and after each step."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def before(self, number: int, step: Step, unit: CompileUnit) -> None:
        self.progress.line(f"{number:03d} {step.name}")

    def after(self, number: int, step: Step, unit: CompileUnit, record: PassRecord) -> None:
        how = "from the cache" if record.cached else f"{record.seconds:.1f} s"
        numbers = "  ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in record.metrics.items()
            if isinstance(value, (int, float, str))
        )
        self.progress.line(f"    {how}  {numbers}".rstrip())


class DumpInstrument(Instrument):
    """Writes the unit's text after a step to ``<folder>/<number>_<name>.txt``.

    Args:
        which: names of steps, or ``("all",)``.
    """

    def __init__(self, folder: Path, which: Sequence[str]) -> None:
        self.folder, self.which = folder, set(which)

    def after(self, number: int, step: Step, unit: CompileUnit, record: PassRecord) -> None:
        if self.which & {"all", step.name}:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{number:03d}_{step.name}.txt").write_text(str(unit))
