"""Named things that plugins can add: teachers, students, passes and targets.

A registry maps a name to ``"module:attribute"`` and imports it on first use, so that listing what
exists costs nothing.  Entry points of the group ``tsfmc.<kind>`` join the built-in table:

1. A plugin that cannot be imported is left out, with one warning line that names it and its package; to
   use it by name is an error.
2. A name that is taken, by this package or by another plugin, is not given away: the plugin that came
   second is left out in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import PluginError, unknown_name

_LOG = logging.getLogger("tsfmc.plugins")


class Registry(Mapping[str, Any]):
    """Lazy, read-only mapping from a name to the object that implements it.

    Iterating gives the built-in names and those of the plugins that can be imported.

    Args:
        kind: singular noun for messages.
        builtin: name -> ``"package.module:attribute"``, relative to ``tsfmc``.
        plural: the entry-point group is ``tsfmc.<plural>``; by default the kind with an ``s``.
        contract: class, written like ``builtin``, that a plugin is an instance or a subclass of.
    """

    def __init__(
        self, kind: str, builtin: Mapping[str, str], plural: str | None = None, contract: str | None = None
    ) -> None:
        self.kind, self.group = kind, f"tsfmc.{plural or kind + 's'}"
        self._contract = None if contract is None else self._own("contract", contract)
        self._builtin = {name: self._own(name, where) for name, where in builtin.items()}
        self._plugins: dict[str, EntryPoint] | None = None
        self._warned: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name in self._builtin:
            return self._builtin[name].load()
        if name in self.plugins:
            return self._load(self.plugins[name])
        raise unknown_name(self.kind, name, self)

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self.plugins

    def __iter__(self) -> Iterator[str]:
        yield from self._builtin
        for name, point in self.plugins.items():
            try:
                self._load(point)
            except PluginError as error:
                self._warn(f"{error}; left out")
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def builtin(self) -> Mapping[str, EntryPoint]:
        """Where the built-in ones are, by name."""
        return self._builtin

    @property
    def plugins(self) -> Mapping[str, EntryPoint]:
        """The entry points of other packages, by name, whether they can be imported or not."""
        if self._plugins is None:
            self._plugins = {}
            for point in sorted(entry_points(group=self.group), key=lambda point: _package(point)):
                self._add(point, self._plugins)
        return self._plugins

    def _add(self, point: EntryPoint, plugins: dict[str, EntryPoint]) -> None:
        holder = "tsfmc" if point.name in self._builtin else None
        if holder is None and point.name in plugins:
            holder = f"package {_package(plugins[point.name])}"
        if holder is None:
            plugins[point.name] = point
        else:
            self._warn(
                f"{self.kind} {point.name!r} of package {_package(point)} is left out: the name belongs to "
                f"{holder} (rename its entry point in {self.group})"
            )

    def _load(self, point: EntryPoint) -> Any:
        who = f"{self.kind} {point.name!r} of package {_package(point)}"
        try:
            found = point.load()
        except Exception as error:  # another package's code may raise anything while it is imported
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PluginError(
                f"{who} cannot be imported: {reason}", hint=f"repair or uninstall {_package(point)}"
            ) from error
        if self._contract is not None:
            expected = self._contract.load()
            if not issubclass(found if isinstance(found, type) else type(found), expected):
                raise PluginError(
                    f"{who} is {point.value}, which is no {expected.__name__}",
                    hint=f"its entry point names a {expected.__module__}.{expected.__name__}",
                )
        return found

    def _own(self, name: str, where: str) -> EntryPoint:
        return EntryPoint(name, f"tsfmc.{where}", self.group)

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            _LOG.warning("warning: %s", line)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
