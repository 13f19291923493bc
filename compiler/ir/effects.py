"""Effects as data: the parts of a unit that a step reads and writes, and the content of each part.

A step names parts; the manager derives everything else from these names: what may differ afterwards,
what a cached result depends on and holds, which passes a compile without a teacher keeps.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..base.content import code_key, content_key, folder_key
from ..base.errors import PassError
from .quantiles import QuantileHead
from .unit import PARTS, CompileUnit, PartName, fingerprint


def content_of(unit: CompileUnit, part: PartName) -> Any:
    """JSON-able content of a part: equal contents give equal results, whatever path led to them."""
    return _CONTENT[part](unit)


def code_of(kind: type) -> str:
    """Hash of the code that ``kind`` belongs to: this package's, and for a plugin its own as well.

    Raises:
        PassError: the class has no source (typed at a prompt, say), so its results cannot be kept.
    """
    own, plugin = code_key("compiler", "passes"), plugin_code(kind)
    return content_key(own, plugin) if plugin else own


def plugin_code(kind: type) -> list[str]:
    """Hashes of the source of the package that ``kind`` comes from; none where it is this package.

    Raises:
        PassError: the class has no source.
    """
    root = kind.__module__.partition(".")[0]
    if root == __name__.partition(".")[0]:
        return []
    module = sys.modules.get(root)
    paths = [Path(path) for path in getattr(module, "__path__", ())]
    if not paths:
        try:
            paths = [Path(inspect.getfile(kind))]
        except (TypeError, OSError):
            raise PassError(f"{kind.__qualname__} has no source file to make a cache key of") from None
    return [folder_key(path) for path in paths]


def changed_parts(before: CompileUnit, after: CompileUnit) -> set[PartName]:
    """The parts that are not the same object in both units."""
    return {part for part in PARTS if getattr(before, part) is not getattr(after, part)}


def _module(module: nn.Module | None) -> Any:
    if module is None:
        return None
    kind = type(module)
    config = getattr(module, "config", None)
    name = f"{kind.__module__}:{kind.__qualname__}"
    return [name, code_of(kind), dict(config or {}), fingerprint(module)]


def _objective(unit: CompileUnit) -> Any:
    return [[weight, term.describe(), _module(term)] for weight, term in unit.objective]


def _task(unit: CompileUnit) -> Any:
    task = asdict(unit.task)
    del task["quantile_levels"]  # the head alone depends on them: teacher and student are found again
    return task


def _head(head: QuantileHead | None) -> Any:
    return head and [*head.levels, asdict(head.spread), fingerprint(head)]


def _data(unit: CompileUnit) -> Any:
    columns = [list(unit.data.known), list(unit.data.past)]
    return [str(unit.data), unit.data.sha256, list(unit.data.variates), *(columns if any(columns) else ())]


def _companions(unit: CompileUnit) -> Any:
    return [[each.name, each.store.key if each.store else _module(each.teacher)] for each in unit.companions]


_CONTENT: Mapping[PartName, Callable[[CompileUnit], Any]] = {
    "task": _task,
    "data": _data,
    "teacher": lambda unit: _module(unit.teacher),
    "tuned": lambda unit: unit.tuned,
    "held_out": lambda unit: unit.held_out and unit.held_out.key,
    "companions": _companions,
    "teacher_store": lambda unit: unit.teacher_store and unit.teacher_store.key,
    "teacher_states": lambda unit: unit.teacher_states and unit.teacher_states.key,
    "student": lambda unit: _module(unit.student),
    "effect": lambda unit: _module(unit.effect),
    "head": lambda unit: _head(unit.head),
    "plain_head": lambda unit: _head(unit.plain_head),
    "judged": lambda unit: _module(unit.judged),
    "objective": _objective,
    "statistics": lambda unit: unit.statistics and unit.statistics.key,
    "supervised": lambda unit: unit.supervised and content_of(unit.supervised, "student"),
    "accuracy": lambda unit: {name: str(row) for name, row in unit.accuracy.items()},
    "quantile_accuracy": lambda unit: {name: str(row) for name, row in unit.quantile_accuracy.items()},
    "program": lambda unit: unit.program and unit.program.key,
    "build": lambda unit: unit.build and unit.build.lines(),
    "facts": lambda unit: dict(unit.facts),
    "artifacts": lambda unit: sorted(unit.artifacts),
    "fleet": lambda unit: unit.fleet and [list(unit.fleet.slots), unit.fleet.slot_of.tolist()],
    "setting": lambda unit: unit.setting and dict(unit.setting),
}
