"""Named things that plugins can add: teachers, students, passes and targets.

A registry maps a name to ``"module:attribute"`` and imports it on first use, so that listing what
exists costs nothing.  Entry points of the group ``tsfmc.<kind>`` join the built-in table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from .errors import unknown_name


class Registry(Mapping[str, Any]):
    """Lazy, read-only mapping from a name to the object that implements it.

    Args:
        kind: singular noun for messages.
        builtin: name -> ``"package.module:attribute"``, relative to ``tsfmc``.
        plural: the entry-point group is ``tsfmc.<plural>``; by default the kind with an ``s``.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], plural: str | None = None) -> None:
        self.kind, self.group = kind, f"tsfmc.{plural or kind + 's'}"
        self._where = {name: f"tsfmc.{where}" for name, where in builtin.items()}
        self._plugins_read = False

    def _table(self) -> dict[str, str]:
        if not self._plugins_read:
            self._plugins_read = True
            for point in entry_points(group=self.group):
                self._where.setdefault(point.name, point.value)
        return self._where

    def __getitem__(self, name: str) -> Any:
        table = self._table()
        if name not in table:
            raise unknown_name(self.kind, name, table)
        module, _, attribute = table[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._table()

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())
