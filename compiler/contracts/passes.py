"""The contract of a pass: it does what it declares, reads what it declares, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ...passes import PASSES
from ..base.content import content_key
from ..base.errors import PassError
from ..driver.cache import PassCache
from ..driver.manager import PassManager
from ..driver.recipe import resolve
from ..ir.effects import content_of
from ..ir.passes import Pass, PassContext, RecipeView
from ..ir.unit import PARTS, CompileUnit, PartName
from .rule import Breach, Contract, expect
from .samples import unit as sample_unit


@dataclass(frozen=True)
class Subject:
    """A pass and the unit that it is tried on.

    Attributes:
        name: in the registry.
        options: of the pass.
        before: passes to run first; by default as many of the default pipeline as the pass asks for.
        student: the recipe's ``[student]``, for the passes before it.
        make_unit: a unit as it enters the pipeline, made in an empty folder.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[str] | None = None
    student: Mapping[str, Any] = field(default_factory=lambda: {"kind": "dlinear"})
    make_unit: Callable[[Path], CompileUnit] = sample_unit

    @property
    def kind(self) -> type[Pass]:
        """What the registry has under the name."""
        kind: type[Pass] = PASSES[self.name]
        return kind

    def step(self, name: str | None = None) -> Pass:
        """The pass, or another, with the options that follow from the recipe."""
        kind = PASSES[name or self.name]
        given = self.options if name in (None, self.name) else {}
        # None: the recipe does not ask for this pass; it is tried all the same.
        follows = kind.follow(RecipeView(self.student, frozenset(PARTS))) or {}
        step: Pass = kind(**{**follows, **given})
        return step

    @contextmanager
    def ready(self) -> Iterator[tuple[Pass, CompileUnit, PassContext]]:
        """The pass, a unit that it accepts, and a context; in a folder that goes afterwards."""
        with tempfile.TemporaryDirectory(prefix="tsfmc-") as name:
            context = PassContext(seed=0, workspace=Path(name) / "work")
            step = self.step()
            yield step, self._prepared(self.make_unit(Path(name)), context), context

    def _prepared(self, unit: CompileUnit, context: PassContext) -> CompileUnit:
        if self.before is not None:
            return PassManager([self.step(name) for name in self.before]).run(unit, context)
        step, refusal = self.step(), ""
        for name in (*resolve().pipeline, None):
            try:
                step.requires(unit)
                return unit
            except PassError as error:
                refusal = str(error)
            if name is not None:
                unit = PassManager([self.step(name)]).run(unit, context)
        raise Breach(f"it refuses the unit after every pass of the default pipeline: {refusal}")


PASS: Contract[Subject] = Contract("pass")


@PASS.rule
def is_described(subject: Subject) -> None:
    """Its name is the registered one, and its summary one line."""
    kind = subject.kind
    expect(kind.name == subject.name, f"name is {kind.name!r}, expected {subject.name!r}")
    expect(kind.summary and "\n" not in kind.summary, "summary is not one line")


@PASS.rule
def options_are_typed(subject: Subject) -> None:
    """Every option has a default, an unknown one is refused, and config gives equal options back."""
    subject.kind()
    try:
        subject.kind.Options.model_validate({"no_such_option": 1})
    except ValidationError:
        pass
    else:
        raise Breach("Options accepts an option that does not exist; derive it from PassOptions")
    step = subject.step()
    again = subject.kind(**json.loads(json.dumps(step.config())))
    expect(again.config() == step.config(), "config() does not build an equal pass")


@PASS.rule
def parts_exist(subject: Subject) -> None:
    """What it reads and writes are parts of a unit."""
    unknown = (subject.kind.reads | subject.kind.writes) - set(PARTS)
    expect(not unknown, f"it declares {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")


@PASS.rule
def writes_what_it_declares(subject: Subject) -> None:
    """Under the manager: no other part differs, weights are not changed in place, modified is true."""
    with subject.ready() as (step, unit, context):
        PassManager([step], check_purity=True).run(unit, context)


@PASS.rule
def reads_what_it_declares(subject: Subject) -> None:
    """While it runs it looks at no part that it does not declare; the task is always declared."""
    with subject.ready() as (step, unit, context), torch.random.fork_rng(devices=[]):
        watched = _Watched.of(unit)
        step.run(watched, context)
        undeclared = watched.seen - subject.kind.reads - {"task"}
        expect(
            not undeclared,
            f"it reads {', '.join(sorted(undeclared))} without declaring it: a cached result would be stale",
        )


@PASS.rule
def deterministic(subject: Subject) -> None:
    """Run twice on one unit with one seed it writes the same content."""
    with subject.ready() as (step, unit, context):
        first, second = (PassManager([step]).run(unit, context) for _ in range(2))
        for part in sorted(subject.kind.writes):
            expect(
                content_key(content_of(first, part)) == content_key(content_of(second, part)),
                f"two runs write another {part}",
            )


@PASS.rule
def cached_result_is_the_result(subject: Subject) -> None:
    """A cacheable pass found in the cache gives the content that it gave when it ran."""
    if not subject.kind.cacheable:
        return
    with subject.ready() as (step, unit, context):
        manager = PassManager([step], cache=PassCache(context.workspace / "cache"))
        ran, found = manager.run(unit, context), manager.run(unit, context)
        expect(not ran.record[-1].cached, "the first run was found in an empty cache")
        expect(found.record[-1].cached, "the second run was not found in the cache")
        for part in sorted(subject.kind.writes):
            expect(
                content_key(content_of(ran, part)) == content_key(content_of(found, part)),
                f"the cache gives another {part}",
            )


@PASS.rule
def refuses_in_words(subject: Subject) -> None:
    """On a unit without teacher and student it runs, or raises PassError; nothing else."""
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as name:
        bare = subject.make_unit(Path(name)).with_(teacher=None, original_teacher=None)
        step = subject.step()
        try:
            step.requires(bare)
            step.run(bare, PassContext(workspace=Path(name) / "work"))
        except PassError:
            pass


class _Watched(CompileUnit):
    """A unit that notes which parts are looked at."""

    seen: set[PartName]

    @classmethod
    def of(cls, unit: CompileUnit, seen: set[PartName] | None = None) -> _Watched:
        watched = cls(**{entry.name: getattr(unit, entry.name) for entry in fields(unit)})
        object.__setattr__(watched, "_plain", unit)
        object.__setattr__(watched, "seen", set() if seen is None else seen)
        return watched

    def __getattribute__(self, name: str) -> Any:
        get = object.__getattribute__
        if name not in PARTS or "seen" not in get(self, "__dict__"):
            return get(self, name)
        get(self, "seen").add(name)
        return getattr(get(self, "_plain"), name)  # a part that is a view of another counts alone

    def with_(self, **changes: Any) -> _Watched:
        return _Watched.of(object.__getattribute__(self, "_plain").with_(**changes), self.seen)
