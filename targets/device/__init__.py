"""The device side: ``run.py``, how it is packed, and how this package runs the same code.

``run.py`` is the only implementation of checking and running an artifact.  The packer pastes the target's
``Engine`` into it, so that a device gets one file; ``open_artifact`` takes the same module and the same
engine class from this package and never executes code out of an artifact.
"""

from __future__ import annotations

import ast
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.errors import DataError, MissingError, VerificationError
from . import run

if TYPE_CHECKING:
    from ..base import Target

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
    except run.RuntimeMissingError as error:
        raise MissingError(str(error), hint="pip install it on this machine") from error


class Forecaster(run.Forecaster):
    """``run.Forecaster``, which see, with the compiler's errors."""

    _unpacked: tempfile.TemporaryDirectory[str] | None = None

    def forecast(self, past: np.ndarray) -> np.ndarray:
        with compiler_errors():
            return super().forecast(past)

    def selftest(self) -> dict[str, Any]:
        with compiler_errors():
            return super().selftest()


def open_artifact(path: Path | str, threads: int = 1) -> Forecaster:
    """Checks and loads an artifact, a directory or a ``.tsfmc`` file.

    Raises:
        VerificationError: a file is missing, truncated, edited or not listed, or the target is unknown.
        MissingError: there is no such path, or the target's runtime is not installed.
    """
    from ...compiler.artifact import unpack_zip
    from .. import TARGETS

    path = Path(path)
    if not path.exists():
        raise MissingError(f"there is no artifact at {path}", hint="give a directory or a .tsfmc file")
    unpacked = None
    if path.is_file():
        unpacked = tempfile.TemporaryDirectory(prefix="tsfmc-")
        unpack_zip(path, Path(unpacked.name))
        path = Path(unpacked.name)
    with compiler_errors():
        run.check_files(path)
        kind = run.read_manifest(path)["target"].get("kind")
        if kind not in TARGETS:
            raise VerificationError(f"{run.MANIFEST} field target.kind: unknown target {kind!r}")
        forecaster = Forecaster(path, threads, engine_class(TARGETS[kind]))
    forecaster._unpacked = unpacked  # lives as long as the forecaster
    return forecaster


def engine_class(target: Target) -> Any:
    """``class Engine`` of a target, from this package's own source."""
    return _engine_module(target.engine_source()).Engine


@cache
def _engine_module(source: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tsfmc_engine_{source.parent.name}", source)
    if spec is None or spec.loader is None:
        raise MissingError(f"the engine source {source.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def render_runner(target: Target) -> str:
    """The text of the artifact's ``run.py``: the module ``run`` with the target's engine pasted in."""
    runner = Path(run.__file__).read_text(encoding="utf-8")
    line = next(line for line in runner.splitlines(keepends=True) if line.startswith(MARKER))
    text = runner.replace(line, _body(target.engine_source(), runner))
    ast.parse(text)
    return text


def _body(source: Path, runner: str) -> str:
    """The engine's source without its docstring and without imports that the runner already has."""
    text = source.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    there = {
        ast.dump(node) for node in ast.parse(runner).body if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    for node in ast.parse(text).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or ast.dump(node) in there:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "".join(lines).strip() + "\n"
