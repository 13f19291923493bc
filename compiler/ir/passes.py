"""What a step is: a named map from a unit to a unit.  A pass is a step with typed options.

Import, passes and stages are steps of one manager over one unit; see ``driver/pipeline.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from ..base.errors import PassError
from ..base.executors import Executor, Local
from ..base.progress import Progress, Silent
from .forecaster import Forecaster
from .unit import CompileUnit, PartName


class PassOptions(BaseModel):
    """Options of ``[passes.<name>]`` in a recipe; a pass subclasses it.  Unknown fields are refused."""

    # An option is a finite number unless its field says otherwise (``allow_inf_nan``).  An infinite one
    # stands as text in records and cache keys: JSON has no number for it.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", allow_inf_nan=False)


@dataclass(frozen=True)
class Timing:
    """What models take here.

    Attributes:
        median_us: of each, from one interleaved run.
        method: in words.
        noisy: whether the machine was.
    """

    median_us: Mapping[str, float]
    method: str
    noisy: bool


class Clock(Protocol):
    """Times models as they would be shipped."""

    def __call__(self, models: Mapping[str, Forecaster], unit: CompileUnit) -> Timing:
        """The latency of each of ``models`` on windows of the unit's data."""


@dataclass(frozen=True)
class PassContext:
    """What a pass may use besides the unit.

    Attributes:
        seed: every random choice derives from it.
        workspace: folder for checkpoints of long work; a rerun of the same pass finds them again.
        progress: where to report.
        cleanup: what has to be undone when the run ends, however it ends, such as unfinished folders.
        clock: times students, for a pass that chooses by latency; None where there is no recipe.
        executor: where tasks run.
    """

    seed: int = 0
    workspace: Path = Path()
    progress: Progress = field(default_factory=Silent)
    cleanup: ExitStack = field(default_factory=ExitStack)
    clock: Clock | None = None
    executor: Executor = field(default_factory=Local)


@dataclass(frozen=True)
class PassResult:
    """The new unit, whether it differs from the old one, and what was measured."""

    unit: CompileUnit
    modified: bool
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecipeView:
    """What a pass may take from the rest of the recipe for options that are not given.

    Attributes:
        student: ``kind`` and the options of the student.
        read_later: parts of the unit that the passes of the pipeline read, all of them together.
        written: parts that they write.
        refit: up to which split the student is solved again before it is shipped: ``none``, ``train+val``
            or ``all``.
        quantile_levels: of the task; none for a point forecast.
        calendar: whether the calendar is tried as an input.
        columns: columns that are read and not forecast.
    """

    student: Mapping[str, Any]
    read_later: frozenset[PartName]
    refit: str = "none"
    written: frozenset[PartName] = frozenset()
    quantile_levels: tuple[float, ...] = ()
    calendar: bool = False
    columns: tuple[str, ...] = ()


class Step:
    """One step from a unit to the next.  Subclasses set the attributes and implement ``run``.

    The declared effects are enforced and used: only what is in ``writes`` may differ afterwards, and a cached
    result is keyed by the content of ``reads`` and holds ``writes``.
    """

    name: str
    summary: str
    reads: ClassVar[frozenset[PartName]] = frozenset()
    """Parts of the unit that the result depends on; the task always is."""
    writes: ClassVar[frozenset[PartName]] = frozenset()
    """Parts that may differ afterwards."""
    cacheable: ClassVar[bool] = False
    """Long work: what it writes is kept and found again by the content of what it reads."""
    preserves_function: ClassVar[bool] = False
    """The model forecasts the same before and after (1e-5 relative); the manager checks it."""
    recorded: ClassVar[bool] = False
    """What it did stands in the unit's record, and so in the manifest."""

    def requires(self, unit: CompileUnit) -> None:
        """Raises ``PassError`` when this step cannot run on ``unit``."""

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        """Returns the new unit; never changes ``unit`` or its modules in place."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The options as they stand in recipes and records."""
        return {}

    def place(self, before: Sequence[Step]) -> str:
        """Where this is, for an error: it follows the steps ``before``."""
        return f"in {self.name}"


class Pass(Step):
    """One transformation of teacher, student or objective; a compile without a teacher keeps every pass that
    does not set ``needs_teacher``."""

    recorded = True
    needs_teacher: ClassVar[bool] = False
    """It means nothing without a teacher, or what one has left behind."""
    Options: ClassVar[type[PassOptions]] = PassOptions

    def __init__(self, **options: Any) -> None:
        self.options: Any = self.Options(**options)

    @classmethod
    def follow(cls, recipe: RecipeView) -> dict[str, Any] | None:
        """Options that follow from the rest of the recipe; what the recipe gives by name wins.

        None where the recipe asks for nothing that this pass does: it is left out of the pipeline.
        """
        return {}

    def place(self, before: Sequence[Step]) -> str:
        done = ", ".join(step.name for step in before if isinstance(step, Pass)) or "nothing"
        return f"in pass {self.name}, after {done}"

    def config(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.options.model_dump_json())
        return fields


class TeacherPass(Pass):
    """A pass that replaces the teacher: before its outputs are recorded, and not without its weights."""

    reads = frozenset({"data", "teacher"})
    writes = frozenset({"teacher"})
    needs_teacher = True
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
        if unit.held_out is not None:
            raise PassError(
                "training windows are labelled already by teachers that were tuned on earlier ones",
                hint=f"put {self.name} before what tunes the teacher, or tune without cross_fit",
            )
