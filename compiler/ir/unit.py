"""The intermediate representation: everything a pass may read, in one frozen value.

A unit prints as stable text, so that two equal runs print the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
from torch import nn

from ..data import Dataset, Part, Windows
from ..data.dataset import NO_DATA
from .companions import Companion
from .fleet import Fleet
from .forecaster import Forecaster, Teacher, parameter_count
from .inputs import InputEffect, InputForecaster, WindowRows, rows_for
from .objective import Objective
from .program import Program
from .provenance import TeacherInfo
from .quantiles import MedianForecaster, QuantileForecaster, QuantileHead
from .teacher_store import TeacherStore

PartName = Literal[
    "task",
    "data",
    "teacher",
    "tuned",
    "held_out",
    "companions",
    "teacher_store",
    "teacher_states",
    "student",
    "effect",
    "head",
    "plain_head",
    "objective",
    "statistics",
    "setting",
    "fleet",
    "judged",
    "supervised",
    "accuracy",
    "quantile_accuracy",
    "program",
    "build",
    "facts",
    "artifacts",
]
"""The parts of a unit that steps declare to read or write: attributes of ``CompileUnit``."""
PARTS: tuple[PartName, ...] = get_args(PartName)


@dataclass(frozen=True)
class Task:
    """What is forecast: ``lookback`` steps in, ``horizon`` steps out, for these ``variates``.

    ``frequency`` is a pandas offset alias such as ``"h"`` or ``"15min"``, or None when unknown.
    ``quantile_levels`` ascend and have 0.5 among them, the point forecast; without any, a forecast is one
    number a step, the mean.
    """

    lookback: int
    horizon: int
    variates: tuple[str, ...]
    frequency: str | None = None
    quantile_levels: tuple[float, ...] = ()

    @property
    def outputs(self) -> int:
        """Numbers of a variate's forecast: a step has one, or one a quantile level."""
        return self.horizon * max(1, len(self.quantile_levels))


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: its configuration, whether it changed the unit, seconds and metrics."""

    name: str
    config: Mapping[str, Any]
    modified: bool
    seconds: float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False


class Statistics(Protocol):
    """Sums over windows that an affine student is solved from; ``learning/statistics.py`` has the maths."""

    @property
    def key(self) -> str:
        """Hash of everything that the sums depend on."""


class HeldOut(Protocol):
    """Forecasts of training windows by teachers that have not seen them, see ``learning/held_out.py``."""

    @property
    def key(self) -> str:
        """Hash of the forecasts."""

    def __call__(self, first: int, last: int, /) -> npt.NDArray[np.float32]:
        """``[last - first, D, H]`` of the training windows ``first .. last - 1``, scaled."""


class Build(Protocol):
    """The artifact of one target while it is being made; ``driver/build.py`` has what it holds."""

    def lines(self) -> list[str]:
        """Stable text: the target, the graph, and the payload's files with their hashes."""


@dataclass(frozen=True)
class CompileUnit:
    """The unit of compilation.  Passes and stages map a unit to a new unit and never change one in place.

    Attributes:
        task: what is forecast.
        data: handle on the series, its splits and its scaling.
        teacher: the teacher module, or None when only its stored outputs are at hand.
        original_teacher: the teacher as it was loaded, once a pass has replaced it: what is compared with.
        tuned: whether a pass has fitted the teacher to the training windows, which it then knows.
        held_out: what teachers tuned on earlier windows alone say of the training windows, else None.
        companions: further teachers.
        teacher_info: provenance of the teacher.
        teacher_store: its stored outputs, once they exist.
        student: the student; after ``student = none`` the teacher itself is what is lowered.
        effect: what inputs beside the window add to the student's forecast, where any earned their place.
        head: what makes quantiles of the point forecast of whatever is lowered, where the task has levels.
        plain_head: the quantiles of its residuals, as wide for every window: what ``head`` is compared with.
        judged: the student as it was before it was fitted to rows that it is judged on, else None.
        statistics: the sums that an affine student is solved from, once a pass has gathered them.
        setting: what an affine student was solved for, the fields of ``learning.affine.Setting``.
        fleet: which slot of the student forecasts which item of a panel, once that is known.
        objective: the weighted loss terms collected so far; ``distill`` trains and clears them.
        supervised: the unit of the supervised baseline, trained without the teacher, once it exists.
        accuracy: the rows of test accuracy that no target changes, by name.
        quantile_accuracy: the same of quantile forecasts.
        program: the model as every target takes it, once it is exported.
        build: the artifact that is being made, between a target's first stage and its last.
        facts: fields for every manifest that no other part holds, such as the statistics that are kept.
        artifacts: target -> manifest of what is in place.
        record: what each pass did.
        warnings: remarks for the user, one line each.
    """

    task: Task
    data: Dataset = NO_DATA
    teacher: Teacher | None = None
    teacher_info: TeacherInfo | None = None
    teacher_store: TeacherStore | None = None
    student: Forecaster | None = None
    effect: InputEffect | None = None
    head: QuantileHead | None = None
    plain_head: QuantileHead | None = None
    objective: Objective = field(default_factory=Objective)
    statistics: Statistics | None = None
    setting: Mapping[str, Any] | None = None
    record: tuple[PassRecord, ...] = ()
    original_teacher: Teacher | None = None
    tuned: bool = False
    fleet: Fleet | None = None
    held_out: HeldOut | None = None
    companions: tuple[Companion, ...] = ()
    judged: Forecaster | None = None
    supervised: CompileUnit | None = None
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    quantile_accuracy: Mapping[str, Any] = field(default_factory=dict)
    program: Program | None = None
    build: Build | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_(self, **changes: Any) -> CompileUnit:
        """A copy with some parts replaced; the first teacher to be replaced stays as the original."""
        if changes.get("teacher", self.teacher) is not self.teacher and self.original_teacher is None:
            changes.setdefault("original_teacher", self.teacher)
        return replace(self, **changes)

    @property
    def teacher_states(self) -> TeacherStore | None:
        """The teacher store where it holds states, else None."""
        store = self.teacher_store
        return store if store is not None and store.state_shape[0] else None

    @property
    def model(self) -> Forecaster:
        """What will be lowered: the student, or the teacher where there is no student."""
        model = self.student if self.student is not None else self.teacher
        if model is None:
            raise ValueError("a unit has neither student nor teacher")
        return model

    @property
    def point(self) -> Forecaster:
        """``model``, with its inputs where it has any: rows in."""
        return self.model if self.effect is None else InputForecaster(self.model, self.effect)

    @property
    def judged_model(self) -> Forecaster:
        """Whose accuracy may be told: ``point``, or what it was before it saw the rows that judge it."""
        return self.judged if self.judged is not None else self.point

    @property
    def shipped(self) -> Forecaster:
        """What targets lower: ``point``, with its quantiles where there is a head."""
        return self.point if self.head is None else QuantileForecaster(self.point, self.head)

    def rows(self, part: Part) -> Windows | WindowRows:
        """What ``shipped`` reads: the windows of a part, with their inputs where it has any."""
        return rows_for(self.shipped, self.data.windows(part, self.task.lookback, self.task.horizon))

    @property
    def judged_point(self) -> Forecaster:
        """The point forecast of what is shipped, as it may be judged: its median where there is a head."""
        if self.head is None:
            return self.judged_model
        return MedianForecaster(QuantileForecaster(self.judged_model, self.head))

    def __str__(self) -> str:
        task = self.task
        lines = [
            f"unit L={task.lookback} H={task.horizon} D={len(task.variates)} freq={task.frequency or '?'}"
            + (f" quantiles={','.join(map(str, task.quantile_levels))}" if task.quantile_levels else ""),
            f"  variates  {', '.join(task.variates)}",
            f"  data      {self.data}",
            f"  teacher   {_teacher_line(self)}",
            *(f"  beside    {_companion_line(companion)}" for companion in self.companions),
            f"  student   {describe_module(self.student)}",
        ]
        lines += _parameters(self.student)
        lines += [f"  effect    {describe_module(self.effect)}"] if self.effect is not None else []
        lines += [f"  head      {describe_module(self.head)}"] if self.head is not None else []
        lines += [f"  judged    {describe_module(self.judged)}"] if self.judged is not None else []
        lines += ["  objective"] + [f"    {line}" for line in self.objective.lines()]
        lines += ["  record"] + [
            f"    {n:03d} {entry.name} {_mapping(entry.config)}" for n, entry in enumerate(self.record)
        ]
        if self.program is not None:
            lines.append(f"  program   {self.program}")
        if self.build is not None:
            lines += ["  build"] + [f"    {line}" for line in self.build.lines()]
        if self.artifacts:
            lines.append(f"  artifacts {', '.join(self.artifacts)}")
        return "\n".join(lines) + "\n"


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, shapes and bytes of a module's parameters and buffers (first 16 hex digits)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_module(module: nn.Module | None) -> str:
    """One line: class, parameter count, fingerprint of the weights."""
    if module is None:
        return "none"
    return f"{type(module).__name__} parameters={parameter_count(module)} weights={fingerprint(module)}"


def _teacher_line(unit: CompileUnit) -> str:
    name = unit.teacher_info.name if unit.teacher_info else "-"
    body = describe_module(unit.teacher) if unit.teacher else f"stored outputs {unit.teacher_store}"
    return f"{name}: {body}"


def _companion_line(companion: Companion) -> str:
    known = describe_module(companion.teacher) if companion.teacher else f"stored outputs {companion.store}"
    return f"{companion.name}: {known}"


def _parameters(module: nn.Module | None) -> list[str]:
    if module is None:
        return []
    return [f"    {name} {list(tensor.shape)}" for name, tensor in module.named_parameters()]


def _mapping(config: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(config.items()))
