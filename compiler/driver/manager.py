"""The manager: runs steps (import, passes, stages) in order and holds them to what they declare.

A step maps a unit to a new unit.  Everything around it (progress, time, dumps, verification, cache) is an
instrument of the manager and never code inside a step.  Enforced after every step: nothing differs but what
it declares to write, nothing that it was given was changed in place, ``modified`` is true exactly when the
unit is another one, and ``preserves_function`` holds on real windows.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..base.errors import PassError, TsfmcError
from ..ir.effects import changed_parts
from ..ir.passes import PassContext, PassResult, Step
from ..ir.unit import CompileUnit, PassRecord, fingerprint
from ..ir.verify import VERIFIED, verify_function, verify_unit
from .cache import PassCache, pass_key
from .instruments import Instrument


def random_stream(seed: int, name: str, occurrence: int) -> int:
    """Seed of the stream that the n-th pass of this name draws from.

    Every pass has its own, so that adding a pass changes no other, and no two passes draw equal numbers.
    """
    digest = hashlib.sha256(f"{seed}/{name}/{occurrence}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass
class PassManager:
    """Runs steps in order.

    Attributes:
        steps: in order.
        instruments: watchers, called in order.
        cache: where cacheable steps are looked up and kept; None switches it off.
        stop_after: name of the last step to run.
        check_purity: compare the weights of what a step was given by their hash before and after; without
            it the version counters of the tensors are compared, which costs nothing and misses only
            writes through ``.data`` or numpy.
    """

    steps: Sequence[Step]
    instruments: Sequence[Instrument] = ()
    cache: PassCache | None = None
    stop_after: str | None = None
    check_purity: bool = False

    def run(self, unit: CompileUnit, context: PassContext) -> CompileUnit:
        """The unit after all steps.

        Raises:
            TsfmcError: from a step, with the step (and the passes before a pass) added to the hint.
        """
        occurrences: Counter[str] = Counter()
        for number, step in enumerate(self.steps, start=1):
            stream = random_stream(context.seed, step.name, occurrences[step.name])
            occurrences[step.name] += 1
            for instrument in self.instruments:
                instrument.before(number, step, unit)
            try:
                unit, record = self._run_one(step, unit, replace(context, seed=stream))
            except TsfmcError as error:
                where = step.place(self.steps[: number - 1])
                error.hint = f"{error.hint}; {where}" if error.hint else where
                raise
            for instrument in self.instruments:
                instrument.after(number, step, unit, record)
            if step.name == self.stop_after:
                break
        return unit

    def _run_one(self, step: Step, unit: CompileUnit, context: PassContext) -> tuple[CompileUnit, PassRecord]:
        """One step; ``context.seed`` is that of its own stream."""
        started = time.perf_counter()
        step.requires(unit)
        key = pass_key(step, unit, context.seed) if self.cache is not None and step.cacheable else None
        cached = self.cache.load(key, step, unit) if self.cache is not None and key is not None else None
        if cached is not None:
            result = PassResult(cached.unit, cached.modified, cached.metrics)
        else:
            workspace = context.workspace / f"{step.name}-{context.seed}"
            if self.cache is not None and key is not None:
                workspace = self.cache.workspace(key)
            result = self._execute(step, unit, replace(context, workspace=workspace))
            if self.cache is not None and key is not None:
                self.cache.save(key, step, result.unit, result.modified, result.metrics)
        if step.writes & VERIFIED:
            verify_unit(result.unit)
        metrics = dict(result.metrics)
        if step.preserves_function and result.modified:
            metrics["function_change"] = verify_function(unit, result.unit, step.name)
        record = PassRecord(
            step.name,
            step.config(),
            result.modified,
            time.perf_counter() - started,
            metrics,
            cached is not None,
        )
        after = result.unit.with_(record=(*unit.record, record)) if step.recorded else result.unit
        return after, record

    def _execute(self, step: Step, unit: CompileUnit, context: PassContext) -> PassResult:
        before = _weights(unit, thorough=self.check_purity)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            result = step.run(unit, context)
        if _weights(unit, thorough=self.check_purity) != before:
            raise PassError(
                f"{step.name} changed weights of the unit that it was given",
                hint="a step works on a copy and returns a new unit",
            )
        changed = changed_parts(unit, result.unit)
        if undeclared := changed - step.writes:
            raise PassError(
                f"{step.name} changed {', '.join(sorted(undeclared))}, "
                f"and declares to write {', '.join(sorted(step.writes)) or 'nothing'}",
                hint="add the part to its writes",
            )
        if result.modified != bool(changed):
            says = "changed something" if result.modified else "changed nothing"
            came = "another" if changed else "the same"
            raise PassError(f"{step.name} says that it {says}, but returned {came} unit")
        return result


def _weights(unit: CompileUnit, *, thorough: bool) -> list[object]:
    """What changes when a module of the unit is written into."""
    own = (unit.teacher, unit.student, *(companion.teacher for companion in unit.companions))
    modules: list[nn.Module] = [module for module in own if module is not None]
    modules += [term for _, term in unit.objective]
    if thorough:
        return [fingerprint(module) for module in modules]
    tensors = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]
