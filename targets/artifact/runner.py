"""``run.py`` of an artifact: the module ``run`` with the target's ``class Engine`` pasted in."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from ...compiler.base.errors import MissingError
from . import run

MARKER = "Engine: Any = None  # <engine>"


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
    """The text of the artifact's ``run.py``: the module ``run`` with the target's engine pasted in.

    Raises:
        ValueError: the engine's source redefines a name of the runner.
    """
    runner = Path(run.__file__).read_text(encoding="utf-8")
    engine = engine_source.read_text(encoding="utf-8")
    clash = _defined(engine) & _defined(runner) - {"Engine"}
    if clash:
        raise ValueError(
            f"{engine_source.name} redefines {', '.join(sorted(clash))} of {Path(run.__file__).name}"
        )
    marker = next(line for line in runner.splitlines(keepends=True) if line.startswith(MARKER))
    return runner.replace(marker, _body(engine, runner))


def _defined(source: str) -> set[str]:
    """Names that a module's own top-level statements define, imports aside."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name) and _is_store(part))
    return names


def _is_store(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _body(engine: str, runner: str) -> str:
    """The engine's source without its docstring and without imports that the runner already has."""
    lines = engine.splitlines(keepends=True)
    there = {
        ast.dump(node) for node in ast.parse(runner).body if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    for node in ast.parse(engine).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if docstring or future or ast.dump(node) in there:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "".join(lines).strip() + "\n"
