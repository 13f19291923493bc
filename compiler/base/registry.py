"""Named things that plugins can add: teachers, students, passes and targets.

A registry maps a name to ``"module:attribute"`` and imports it on first use, so that listing what
exists costs nothing.  Entry points of the group ``tsfmc.<kind>`` join the built-in table:

1. A plugin that cannot be imported, or that raises while it is described, is left out, with one warning line
   that names it and its package; to use it by name is an error.  Nobody else's use of the registry fails.
2. A name that is taken, by this package or by another plugin, is not given away: the plugin that came
   second is left out in the same way.  Names that differ by their case alone count as one, and so that
   nobody believes to use the plugin, using the built-in of that name says it, too.
3. A name is one word of lower-case letters, digits, ``-`` and ``_``, and none that means something else where
   a name is given: so it can be typed, be a key of a recipe, and be the name of a folder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from .errors import PluginError, TsfmcError, unknown_name

_LOG = logging.getLogger("tsfmc.plugins")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED = frozenset({"none", "all", "host", "sample", "synthetic", "supervised", "model"})
"""What a name on the command line or in a result means besides what is registered."""
T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """One entry point of another package, for ``tsfmc doctor``; ``problem`` is empty for one that works."""

    kind: str
    name: str
    package: str
    where: str
    problem: str


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
            _ = self.plugins  # says so when a plugin wants this name
            return self._builtin[name].load()
        if name in self.plugins:
            return self._load(self.plugins[name])
        raise unknown_name(self.kind, name, self)

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self.plugins

    def __iter__(self) -> Iterator[str]:
        for name, _ in self.each(lambda found: found):
            yield name

    def each(self, describe: Callable[[Any], T]) -> Iterator[tuple[str, T]]:
        """``(name, describe(object))`` of everything that can be imported and described.

        ``describe`` calls code of the plugin; whatever that raises costs the plugin its place in the list.
        """
        for name, own in self._builtin.items():
            yield name, describe(own.load())
        for name, point in self.plugins.items():
            try:
                described = _guarded(partial(self._described, point, describe), self._who(point))
            except PluginError as error:
                self.warn(f"{error}; left out")
            else:
                yield name, described

    def _described(self, point: EntryPoint, describe: Callable[[Any], T]) -> T:
        return describe(self._load(point))

    def report(self) -> list[Plugin]:
        """Every entry point of the group, those that are left out included."""
        found = []
        for point in _points(self.group):
            problem = ""
            if point.name not in self.plugins or self.plugins[point.name] is not point:
                problem = self._refusal(point, self.plugins)
            else:
                try:
                    self._load(point)
                except PluginError as error:
                    problem = str(error)
            found.append(Plugin(self.kind, point.name, _package(point), point.value, problem))
        return found

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
            for point in _points(self.group):
                if refusal := self._refusal(point, self._plugins):
                    self.warn(refusal)
                else:
                    self._plugins[point.name] = point
        return self._plugins

    def _refusal(self, point: EntryPoint, plugins: Mapping[str, EntryPoint]) -> str:
        """Why a plugin cannot have its name; empty where it can."""
        rename = f"(rename its entry point in {self.group})"
        holders = {name.lower(): "tsfmc" for name in self._builtin} | {
            name.lower(): f"package {_package(other)}"
            for name, other in plugins.items()
            if other is not point
        }
        if holder := holders.get(point.name.lower()):
            return f"{self._who(point)} is left out: the name belongs to {holder} {rename}"
        if not _NAME.fullmatch(point.name) or point.name in RESERVED:
            return f"{self._who(point)} is left out: the name cannot be used {rename}"
        return ""

    def _who(self, point: EntryPoint) -> str:
        return f"{self.kind} {point.name!r} of package {_package(point)}"

    def _load(self, point: EntryPoint) -> Any:
        who = self._who(point)
        found = _guarded(point.load, who, f"repair or uninstall {_package(point)}", "cannot be imported")
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

    def warn(self, line: str) -> None:
        """One warning, however often it is given."""
        if line not in self._warned:
            self._warned.add(line)
            _LOG.warning("warning: %s", line)


def _guarded(call: Callable[[], T], who: str, hint: str = "", what: str = "is broken") -> T:
    """What ``call`` returns, which runs code of another package: it may raise anything, or end the process.

    Raises:
        PluginError: it did.
    """
    try:
        return call()
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, TsfmcError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{who} {what}: {(text.splitlines() or [''])[0]}", hint=hint) from error


def _points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (_package(point), point.name, point.value))


def _package(point: EntryPoint) -> str:
    """The name of its distribution; of one whose metadata are broken, the module."""
    try:
        name = point.dist.name if point.dist is not None else None
    except Exception:
        name = None
    return str(name or point.value)
