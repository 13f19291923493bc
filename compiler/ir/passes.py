"""What a pass is: a named map from a unit to a unit, with typed options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ..base.errors import PassError
from ..base.progress import Progress, Silent
from .unit import CompileUnit


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
