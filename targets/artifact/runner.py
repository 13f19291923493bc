"""``run.py`` of an artifact: the parts in ``device/`` and the target's engine, pasted into one file.

The first part is taken as it is.  Then come the imports of all parts, once each, and the parts in their fixed
order without imports, each under its docstring as a comment.  Imports of one part by another fall away.
Annotations become strings: Python 3.8 cannot evaluate them, and ``from __future__ import annotations`` would
load ``__future__`` from the folder of the script, before its first statement could prevent that.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...compiler.base.errors import MissingError

DEVICE = Path(__file__).parent / "device"
SHARED = Path(__file__).parents[2] / "compiler" / "data"
BASE = Path(__file__).parents[2] / "compiler" / "base"
ENGINE = DEVICE / "engine.py"
RULER = "# " + 98 * "-"
PARTS = (
    DEVICE / "start.py",
    DEVICE / "errors.py",
    BASE / "text.py",
    SHARED / "dialect.py",
    SHARED / "cells.py",
    SHARED / "encoding.py",
    SHARED / "filling.py",
    SHARED / "levels.py",
    SHARED / "reading.py",
    SHARED / "scaling.py",
    SHARED / "packed.py",
    DEVICE / "files.py",
    DEVICE / "strict.py",
    DEVICE / "inputs.py",
    DEVICE / "arrays.py",
    DEVICE / "manifest.py",
    DEVICE / "check.py",
    DEVICE / "signature.py",
    DEVICE / "steps.py",
    DEVICE / "rows.py",
    DEVICE / "output.py",
    DEVICE / "stream.py",
    DEVICE / "fleet.py",
    ENGINE,
    DEVICE / "forecaster.py",
    DEVICE / "ahead.py",
    DEVICE / "host.py",
    DEVICE / "portable.py",
    DEVICE / "modes.py",
    DEVICE / "rounds.py",
    DEVICE / "timings.py",
    DEVICE / "scenarios.py",
    DEVICE / "bench.py",
    DEVICE / "cli.py",
)


@cache
def engine_class(source: Path) -> Any:
    """``class Engine`` of a target's ``engine_source()``, which is a file of the installed target."""
    spec = importlib.util.spec_from_file_location(f"tsfmc_engine_{source.parent.name}", source)
    if spec is None or spec.loader is None:
        raise MissingError(f"the engine source {source.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine


def render_runner(engine_source: Path) -> str:
    """The text of the artifact's ``run.py``, the same for equal parts.

    Raises:
        ValueError: a part defines or imports a name that another part has for something else, or imports
            another part in a way that pasting cannot follow.
    """
    first, *parts = (_Part(engine_source if path == ENGINE else path) for path in PARTS)
    owners: dict[str, str] = {}
    for part in (first, *parts):
        for name, meaning in part.names():
            if owners.setdefault(name, meaning) != meaning:
                raise ValueError(f"{part.path.name} redefines {name} of {owners[name]}")
    imports = _merged({line for part in parts for line in part.imports} - first.imports)
    bodies = (f"{part.title}\n\n{part.body}\n" for part in parts)
    return "\n\n".join((first.text.rstrip(), imports, *bodies)).rstrip() + "\n"


class _Part:
    """One source file: its docstring as a comment, imports one a line, and the rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self._tree = ast.parse(self.text)
        about = (ast.get_docstring(self._tree) or path.stem).splitlines()
        self.title = "\n".join((RULER, *(f"# {line}".rstrip() for line in about)))
        self.imports = {line for node in self._tree.body for line in self._import_lines(node)}
        self.body = self._body()

    def names(self) -> Iterator[tuple[str, str]]:
        """Each name that the part's own statements bind, and what it stands for."""
        for node in self._tree.body:
            for line in self._import_lines(node):
                yield line.split()[-1].split(".")[0], line
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield node.name, self.path.name
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for part in ast.walk(node):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part.id, self.path.name

    def _import_lines(self, node: ast.stmt) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (f"import {_alias(alias)}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level and (not node.module or _renames(node.names)):
            raise ValueError(f"{self.path.name} line {node.lineno}: import the names of a part as they are")
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            yield from (f"from {node.module} import {_alias(alias)}" for alias in node.names)

    def _body(self) -> str:
        lines = self._quoted().splitlines(keepends=True)
        for node in self._tree.body:
            docstring = node is self._tree.body[0] and isinstance(node, ast.Expr)
            if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
                for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                    lines[number] = ""
        return "".join(lines).strip()

    def _quoted(self) -> str:
        """The text with its annotations as strings, on the lines where they were."""
        lines = self.text.encode().splitlines(keepends=True)  # the tree counts columns in bytes
        for note in sorted(
            self._annotations(), key=lambda note: (note.lineno, note.col_offset), reverse=True
        ):
            if isinstance(note, ast.Constant):
                continue
            if note.end_lineno != note.lineno:
                raise ValueError(f"{self.path.name} line {note.lineno}: write an annotation on one line")
            line = lines[note.lineno - 1]
            words = line[note.col_offset : note.end_col_offset].decode().replace('"', "'")
            lines[note.lineno - 1] = (
                line[: note.col_offset] + f'"{words}"'.encode() + line[note.end_col_offset :]
            )
        return b"".join(lines).decode()

    def _annotations(self) -> Iterator[ast.expr]:
        """The annotations that Python evaluates: of functions, and of names outside of them."""
        for node in ast.walk(self._tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = node.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                for argument in (*every, arguments.vararg, arguments.kwarg):
                    if argument is not None and argument.annotation is not None:
                        yield argument.annotation
                if node.returns is not None:
                    yield node.returns
            elif isinstance(node, (ast.Module, ast.ClassDef)):
                yield from (each.annotation for each in node.body if isinstance(each, ast.AnnAssign))


def _merged(lines: set[str]) -> str:
    """Import statements, one for each module."""
    names: dict[str, list[str]] = {}
    for line in sorted(lines):
        head, _, name = line.rpartition(" import ")
        names.setdefault(head, []).append(name if head else line)
    plain = names.pop("", [])
    return "\n".join([*plain, *(f"{head} import {', '.join(names[head])}" for head in names)]) + "\n"


def _alias(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _renames(names: Sequence[ast.alias]) -> bool:
    return any(alias.asname for alias in names)
