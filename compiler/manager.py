"""The pass manager: what a pass is, and what happens around one.

A pass maps a unit to a new unit.  Everything around it (progress, time, dumps, verification, cache)
is an instrument of the manager and never code inside a pass.  What a pass declares is enforced:
``preserves_function`` is checked on real windows, ``requires`` runs before, ``verify`` after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict

from .errors import PassError, TsfmcError
from .progress import Progress, Silent
from .store import PassCache, content_key
from .unit import CompileUnit, PassRecord
from .verify import verify_function, verify_unit


class PassOptions(BaseModel):
    """Options of ``[passes.<name>]`` in a recipe; a pass subclasses it.  Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class PassContext:
    """What a pass may use besides the unit.

    Attributes:
        seed: every random choice derives from it.
        workspace: folder for checkpoints of long work; a rerun of the same pass finds them again.
        progress: where to report.
    """

    seed: int = 0
    workspace: Path = Path()
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True)
class PassResult:
    """The new unit, whether it differs from the old one, and what was measured."""

    unit: CompileUnit
    modified: bool
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Pass:
    """One transformation.  Subclasses set the class variables and implement ``run``."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[PassOptions]] = PassOptions
    cacheable: ClassVar[bool] = False
    """Long work: its resulting modules are kept in the store and found again by content."""
    preserves_function: ClassVar[bool] = False
    """The model forecasts the same before and after (1e-5 relative); the manager checks it."""

    def __init__(self, **options: Any) -> None:
        self.options: Any = self.Options(**options)

    def requires(self, unit: CompileUnit) -> None:
        """Raises ``PassError`` when this pass cannot run on ``unit``."""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        """Returns the new unit; never changes ``unit`` or its modules in place."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The options as they stand in recipes and records."""
        fields: dict[str, Any] = json.loads(self.options.model_dump_json())
        return fields


class TeacherPass(Pass):
    """A pass that replaces the teacher: before its outputs are recorded, and not without its weights."""

    verb: ClassVar[str]
    """What it does to the teacher, for the error."""

    def requires(self, unit: CompileUnit) -> None:
        if unit.teacher is None:
            raise PassError(
                f"there is no teacher to {self.verb}",
                hint="a teacher store holds outputs only; give the teacher",
            )
        if unit.teacher_store is not None:
            raise PassError(
                "the teacher's outputs are already recorded", hint=f"put {self.name} before record_teacher"
            )


class Instrument:
    """Something that watches passes.  Both hooks are optional."""

    def before(self, number: int, step: Pass, unit: CompileUnit) -> None:
        """Called before pass ``number``."""

    def after(self, number: int, step: Pass, unit: CompileUnit, record: PassRecord) -> None:
        """Called after pass ``number`` with the new unit."""


class ReportInstrument(Instrument):
    """A line of progress before and after each pass."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def before(self, number: int, step: Pass, unit: CompileUnit) -> None:
        self.progress.line(f"{number:03d} {step.name}")

    def after(self, number: int, step: Pass, unit: CompileUnit, record: PassRecord) -> None:
        how = "from the cache" if record.cached else f"{record.seconds:.1f} s"
        numbers = "  ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in record.metrics.items()
            if isinstance(value, (int, float, str))
        )
        self.progress.line(f"    {how}  {numbers}".rstrip())


class DumpInstrument(Instrument):
    """Writes the unit's text after a pass to ``<folder>/<number>_<name>.txt``.

    Args:
        which: names of passes, or ``("all",)``.
    """

    def __init__(self, folder: Path, which: Sequence[str]) -> None:
        self.folder, self.which = folder, set(which)

    def after(self, number: int, step: Pass, unit: CompileUnit, record: PassRecord) -> None:
        if self.which & {"all", step.name}:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{number:03d}_{step.name}.txt").write_text(str(unit))


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
