"""The pass manager: what a pass is, and what happens around one.

A pass maps a unit to a new unit.  Everything around it (progress, time, dumps, verification, cache)
is an instrument of the manager and never code inside a pass.  What a pass declares is enforced:
``preserves_function`` is checked on real windows, ``requires`` runs before, ``verify`` after.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..base.content import content_key
from ..base.errors import PassError, TsfmcError
from ..ir.passes import Pass, PassContext, PassResult
from ..ir.unit import CompileUnit, PassRecord
from ..ir.verify import verify_function, verify_unit
from .cache import PassCache
from .instruments import Instrument


@dataclass
class PassManager:
    """Runs passes in order.

    Attributes:
        passes: the pipeline.
        instruments: watchers, called in order.
        cache: where cacheable passes are looked up and kept; None switches it off.
        root_key: content key of everything that entered the unit (data, teacher, task, code).
        stop_after: name of the last pass to run.
    """

    passes: Sequence[Pass]
    instruments: Sequence[Instrument] = ()
    cache: PassCache | None = None
    root_key: str = ""
    stop_after: str | None = None

    def run(self, unit: CompileUnit, context: PassContext) -> CompileUnit:
        """The unit after all passes.

        Raises:
            TsfmcError: from a pass, with the pass and those before it added to the hint.
        """
        key = self.root_key
        for number, step in enumerate(self.passes, start=1):
            key = content_key(key, step.name, step.config(), context.seed)
            for instrument in self.instruments:
                instrument.before(number, step, unit)
            try:
                unit = self._run_one(step, unit, context, key)
            except TsfmcError as error:
                done = ", ".join(earlier.name for earlier in self.passes[: number - 1]) or "nothing"
                where = f"in pass {step.name}, after {done}"
                error.hint = f"{error.hint}; {where}" if error.hint else where
                raise
            for instrument in self.instruments:
                instrument.after(number, step, unit, unit.record[-1])
            if step.name == self.stop_after:
                break
        return unit

    def _run_one(self, step: Pass, unit: CompileUnit, context: PassContext, key: str) -> CompileUnit:
        started = time.perf_counter()
        step.requires(unit)
        cached = self.cache.load(key, unit) if self.cache is not None and step.cacheable else None
        if cached is not None:
            result = PassResult(cached.unit, modified=True, metrics=cached.metrics)
        else:
            workspace = self.cache.workspace(key) if self.cache is not None else context.workspace
            # A pass draws from its own stream, so that adding a pass does not change the others.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(context.seed)
                result = step.run(unit, PassContext(context.seed, workspace, context.progress))
            if self.cache is not None and step.cacheable:
                self.cache.save(key, unit, result.unit, result.metrics)
        verify_unit(result.unit)
        metrics = dict(result.metrics)
        if step.preserves_function and result.modified:
            metrics["function_change"] = verify_function(unit, result.unit, step.name)
        if not result.modified and result.unit is not unit:
            raise PassError(f"{step.name} says that it changed nothing, but returned another unit")
        record = PassRecord(
            step.name,
            step.config(),
            result.modified,
            time.perf_counter() - started,
            metrics,
            cached is not None,
        )
        return result.unit.with_(record=(*unit.record, record))
