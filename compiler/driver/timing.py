"""A clock for passes: models that could be shipped, lowered for the recipe's target and timed side by side.

A pass that chooses between students by their latency knows no target; it asks the context's clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...targets import TARGETS
from ...targets.measure.latency import measure
from ..base.errors import MissingError
from ..base.executors import Executor, Local
from ..ir.forecaster import Forecaster
from ..ir.passes import Timing
from ..ir.program import Shape
from ..ir.unit import CompileUnit
from .jobs import target_job
from .latency import rotation
from .recipe import Recipe

DURATION_S = 1.0


class TargetClock:
    """Times models as artifacts of the first target of a recipe that runs on this machine.

    Args:
        executor: sent to rest before the clock starts; by default nothing runs beside this process.
    """

    def __init__(self, recipe: Recipe, executor: Executor | None = None) -> None:
        self.recipe, self.executor = recipe, executor or Local()

    def __call__(self, models: Mapping[str, Forecaster], unit: CompileUnit) -> Timing:
        """The median latency of each model, from one short interleaved run on validation windows.

        Raises:
            MissingError: none of the recipe's targets runs here.
        """
        kind = next((kind for kind in self.recipe.targets if TARGETS[kind].probe().can_run), None)
        if kind is None:
            raise MissingError(
                f"target {', '.join(self.recipe.targets)} does not run here, so no student can be timed",
                hint="bound multiply-adds or bytes instead (student.max_macs, student.max_bytes)",
            )
        job, task = target_job(self.recipe, kind, Path()), unit.task
        windows = rotation(unit, "val")
        shape = Shape(len(task.variates), task.lookback, task.horizon)
        with tempfile.TemporaryDirectory(prefix="tsfmc-clock-") as folder:
            engines = {}
            for name, model in models.items():
                place = Path(folder) / name
                place.mkdir()
                payload = job.target.lower_model(
                    model.eval(), shape, place, options=job.options, calibration=windows
                )
                engines[name] = job.target.load(place, payload, self.recipe.threads)
            self.executor.rest()
            report = measure(engines, windows, threads=self.recipe.threads, duration_s=DURATION_S)
        return Timing(
            {name: row.median_us for name, row in report.rows.items()},
            f"target {kind}, {report.method}",
            report.noisy,
        )
