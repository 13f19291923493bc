"""Opening an artifact: the same checks and the same code that run on the device.

``device/`` is the only implementation of checking and running an artifact.  ``open_artifact`` takes those
parts and the engine class of the installed target, and never executes code out of an artifact.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.base.errors import DataError, MissingError, VerificationError
from .archive import opened
from .device import forecaster
from .device.check import SUMS, check_files, find_problems, read_sums
from .device.errors import ArtifactError, EngineError, InputError
from .device.manifest import MANIFEST
from .device.manifest import read_manifest as read_fields
from .manifest import validate
from .runner import engine_class


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turns the errors of the device into those of the compiler, exit codes unchanged."""
    try:
        yield
    except ArtifactError as error:
        raise VerificationError(str(error)) from error
    except InputError as error:
        raise DataError(str(error)) from error
    except EngineError as error:
        raise MissingError(str(error)) from error


class Forecaster(forecaster.Forecaster):
    """The device's ``Forecaster``, which see, with the compiler's errors."""

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
    from .. import TARGETS

    with ExitStack() as stack:
        directory = stack.enter_context(opened(Path(path)))
        with compiler_errors():
            check_files(directory)
            kind = read_fields(directory)["target"].get("kind")
            if kind not in TARGETS:
                raise VerificationError(
                    f"{MANIFEST} field target.kind: got {kind!r}, known are {', '.join(sorted(TARGETS))}"
                )
            opened_here = Forecaster(directory, threads, engine_class(TARGETS[kind].engine_source()))
        opened_here.unpacked = stack.pop_all()  # an unpacked file stays as long as the forecaster
    weakref.finalize(opened_here, opened_here.unpacked.close)
    return opened_here


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest of an artifact, a directory or a ``.tsfmc`` file; hashes are not looked at.

    Raises:
        VerificationError: names the field.
        MissingError: there is no such path.
    """
    with opened(path) as directory, compiler_errors():
        return validate(read_fields(directory))


def verify_artifact(path: Path, threads: int = 1) -> list[str]:
    """Checks every file, every hash and the self-test; returns what was checked, one line each.

    Raises:
        VerificationError: names every file that is wrong, or by how much the self-test differs.
        MissingError: the target's runtime is not installed.
    """
    with opened(path) as directory:
        problems = list(find_problems(directory))
        if problems:
            raise VerificationError(
                f"{path}: {'; '.join(problems)}", hint="get an intact copy of the artifact"
            )
        count = len(read_sums(directory))
        try:
            result = open_artifact(directory, threads).selftest()
        except MissingError as error:
            error.hint = f"its {count} files are intact; on its device: python3 run.py selftest"
            raise
    if not result["passed"]:
        raise VerificationError(
            f"{path}: the self-test differs by {result['max_rel']:.3g} of the window's scale, "
            f"expected at most {result['tolerance']:.3g}",
            hint="another version of the runtime may compute something else here",
        )
    return [
        f"{count} files match {SUMS}",
        f"self-test: {result['windows']} windows within {result['max_rel']:.1e} of the original model, "
        f"tolerance {result['tolerance']:.0e}",
    ]
