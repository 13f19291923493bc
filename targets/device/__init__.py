"""The device side: ``run.py``, how it is packed, and how this package runs the same code.

``run.py`` is the only implementation of checking and running an artifact.  The packer pastes the target's
``Engine`` into it, so that a device gets one file; ``open_artifact`` takes the same module and the same
engine class from this package and never executes code out of an artifact.
"""

from __future__ import annotations

import ast
import importlib.util
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.base.errors import DataError, MissingError, VerificationError
from . import run

MARKER = "Engine: Any = None  # <engine>"


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turns the errors of ``run.py`` into those of the compiler, exit codes unchanged."""
    try:
        yield
    except run.ArtifactError as error:
        raise VerificationError(str(error)) from error
    except run.InputError as error:
        raise DataError(str(error)) from error
    except run.EngineError as error:
        raise MissingError(str(error)) from error


class Forecaster(run.Forecaster):
    """``run.Forecaster``, which see, with the compiler's errors."""

    unpacked: ExitStack

    def forecast(self, past: np.ndarray) -> np.ndarray:
        with compiler_errors():
            return super().forecast(past)

    def selftest(self) -> dict[str, Any]:
        with compiler_errors():
            return super().selftest()

    def example_windows(self, count: int) -> np.ndarray:
        with compiler_errors():
            return super().example_windows(count)


def open_artifact(path: Path | str, threads: int = 1) -> Forecaster:
    """Checks and loads an artifact, a directory or a ``.tsfmc`` file.

    Raises:
        VerificationError: a file is missing, truncated, edited or not listed, or the target is unknown.
        MissingError: there is no such path, or the target's runtime is not installed.
    """
    from ...compiler.artifact import opened
    from .. import TARGETS

    with ExitStack() as stack:
        directory = stack.enter_context(opened(Path(path)))
        with compiler_errors():
            run.check_files(directory)
            kind = run.read_manifest(directory)["target"].get("kind")
            if kind not in TARGETS:
                raise VerificationError(
                    f"{run.MANIFEST} field target.kind: got {kind!r}, known are {', '.join(sorted(TARGETS))}"
                )
            forecaster = Forecaster(directory, threads, engine_class(TARGETS[kind].engine_source()))
        forecaster.unpacked = stack.pop_all()  # an unpacked file stays as long as the forecaster
    weakref.finalize(forecaster, forecaster.unpacked.close)
    return forecaster


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
