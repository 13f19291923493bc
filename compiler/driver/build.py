"""What the stages of one target hand on, and what they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from ...targets.artifact.hashes import describe
from ...targets.base import Engine, Payload, Target, TargetOptions
from ..base.errors import PassError
from ..ir.program import Program, program_key
from ..ir.unit import CompileUnit
from ..learning.evaluate import Accuracy
from ..learning.quantiles import QuantileAccuracy
from .latency import TeacherForms
from .recipe import Recipe


@dataclass(frozen=True)
class Job:
    """What one target is asked for.

    Attributes:
        target: it can lower here.
        options: of the recipe, checked.
        recipe: for what is not the target's: threads, measuring, the student's name.
        final: the artifact directory.
        teacher: its forms, shared by the targets of a compile.
    """

    target: Target
    options: TargetOptions
    recipe: Recipe
    final: Path
    teacher: TeacherForms = field(default_factory=TeacherForms)


@dataclass(frozen=True, eq=False)
class Build:
    """The artifact of one target while it is being made.

    Attributes:
        kind: the target.
        graph: what the target's rewrites have made of the program so far.
        directory: the temporary sibling of the artifact, from ``lower`` on.
        payload: what ``lower`` wrote there.
        engine: the payload, loaded, where it runs here.
        parity: what ``check`` found.
        accuracy: test accuracy of the payload, or of the model where it does not run here.
        quantiles: the same of its quantile forecasts.
        latency: for the manifest.
    """

    kind: str
    graph: Any
    directory: Path | None = None
    payload: Payload | None = None
    engine: Engine | None = None
    parity: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)
    quantiles: Mapping[str, QuantileAccuracy] = field(default_factory=dict)
    latency: Mapping[str, Any] | None = None

    @property
    def lowered(self) -> tuple[Path, Payload]:
        """Directory and payload.

        Raises:
            PassError: nothing is lowered yet.
        """
        if self.directory is None or self.payload is None:
            raise PassError(f"target {self.kind} is not lowered yet", hint="lower comes first")
        return self.directory, self.payload

    @property
    def precision(self) -> str:
        """Of the arithmetic: ``fp32`` unless the payload says otherwise."""
        return str(self.lowered[1].details.get("precision", "fp32"))

    def with_(self, **changes: Any) -> Build:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def lines(self) -> list[str]:
        """Stable text: the target, the graph, and the payload's files with their hashes."""
        lines = [f"target {self.kind}", f"graph {_graph_line(self.graph)}"]
        if self.directory is not None and self.payload is not None:
            for name in sorted(self.payload.files):
                facts = describe(self.directory / name)
                lines.append(f"{name} bytes={facts['bytes']} sha256={str(facts['sha256'])[:16]}")
        return lines


def build_of(unit: CompileUnit) -> Build:
    """The artifact that is being made.

    Raises:
        PassError: none is.
    """
    if not isinstance(unit.build, Build):
        raise PassError("no artifact is being made", hint="lower comes first")
    return unit.build


def program_of(unit: CompileUnit) -> Program:
    """The exported program.

    Raises:
        PassError: the unit is not exported yet.
    """
    if unit.program is None:
        raise PassError("the unit has no program", hint="export comes first")
    return unit.program


def _graph_line(graph: Any) -> str:
    """Name and hash of a form of the program."""
    if isinstance(graph, Program):
        key = graph.key
    elif isinstance(graph, ExportedProgram):
        key = program_key(graph)
    elif hasattr(graph, "SerializeToString"):
        key = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
    else:
        return type(graph).__name__
    return f"{type(graph).__name__} sha256={key[:16]}"
