"""What each pass cost and bought, written into its record.

Stored parameters, non-zero parameters and bytes are three numbers (paper A); zeros are never called
removed.  ``CostInstrument`` writes all of it before and after every pass that changes the model, so that
the record says which pass bought what.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from ..base.progress import Progress, Silent
from ..ir.forecaster import Forecaster
from ..ir.passes import Step
from ..ir.unit import CompileUnit, PassRecord
from ..learning.cost import cost_of, validation_mse
from .instruments import Instrument


class CostInstrument(Instrument):
    """Adds ``metrics["cost"] = {"before": ..., "after": ..., "speedup": ...}`` to the record of a pass.

    Before and after are timed interleaved in one run (the latency rule), so that their ratio does not
    depend on the state of the machine.  A pass that leaves the model as it is gets no entry.

    Args:
        threads: of the latency runs.
        latency_s: seconds per latency run; 0 leaves latency out.
        validation_windows: validation windows per loss, evenly spread; 0 for all.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        latency_s: float = 2.0,
        validation_windows: int = 512,
        progress: Progress | None = None,
    ) -> None:
        self.threads, self.latency_s = threads, latency_s
        self.validation_windows = validation_windows
        self.progress = progress or Silent()
        self.earlier: CompileUnit | None = None
        self.known: tuple[Forecaster, dict[str, Any]] | None = None

    def before(self, number: int, step: Step, unit: CompileUnit) -> None:
        self.earlier = unit

    def after(self, number: int, step: Step, unit: CompileUnit, record: PassRecord) -> None:
        earlier = self.earlier
        if earlier is None or _model(earlier) is None or unit.model is _model(earlier):
            return
        before, after = self._row(earlier), self._row(unit)
        entry: dict[str, Any] = {"before": before, "after": after}
        if self.latency_s > 0:
            entry |= self._latency(earlier, unit)
        # The manager makes the metrics of a record a plain dict; instruments may add to it.
        cast(dict[str, Any], record.metrics)["cost"] = entry
        self.progress.line(
            f"    {before['parameters']} -> {after['parameters']} parameters, "
            f"{before['macs'] / 1e6:.1f} -> {after['macs'] / 1e6:.1f} M multiply-accumulates, "
            f"validation {before['validation_mse']:.4f} -> {after['validation_mse']:.4f}"
            + (f", {entry['speedup']:.2f}x" if "speedup" in entry else "")
        )

    def _row(self, unit: CompileUnit) -> dict[str, Any]:
        model = unit.model
        if self.known is None or self.known[0] is not model:
            loss = validation_mse(model, unit, windows=self.validation_windows)
            row = {**asdict(cost_of(model, len(unit.task.variates))), "validation_mse": loss}
            self.known = (model, row)
        return self.known[1]

    def _latency(self, before: CompileUnit, after: CompileUnit) -> dict[str, Any]:
        from ...targets.measure.latency import MIN_WINDOWS, measure, torch_candidate

        task = after.task
        past = after.data.windows("val", task.lookback, task.horizon).spread(MIN_WINDOWS)
        report = measure(
            {"before": torch_candidate(before.model), "after": torch_candidate(after.model)},
            past,
            threads=self.threads,
            duration_s=self.latency_s,
            forms={"before": "eager", "after": "eager"},
        )
        ratio = report.ratio("before", "after")
        return {
            "latency_us": {name: row.to_dict() for name, row in report.rows.items()},
            "speedup": ratio.value,
            "speedup_interval": [ratio.low, ratio.high],
            "method": report.method,
        }


def _model(unit: CompileUnit) -> Forecaster | None:
    return unit.student if unit.student is not None else unit.teacher
