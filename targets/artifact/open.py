"""Opening an artifact: the same checks and the same code that run on the device.

``device/`` is the only implementation of checking and running an artifact.  ``open_artifact`` takes those
parts and the engine class of the installed target; it never executes the ``run.py`` of an artifact.
``check_artifact`` executes nothing at all.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.base.errors import DataError, MissingError, VerificationError
from .archive import opened
from .device import forecaster
from .device.check import SIGNATURE, SUMS, find_problems, open_files
from .device.errors import ArtifactError, EngineError, InputError
from .device.files import ArtifactFiles
from .device.manifest import MANIFEST
from .device.manifest import read_manifest as read_fields
from .device.signature import check_signature
from .manifest import validate
from .runner import engine_class

MOST_PROBLEMS = 20
"""How many are named in one message."""


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

    def forecast(
        self,
        past: np.ndarray,
        id: str | Sequence[str] | None = None,
        first_step: datetime | None = None,
        columns: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> np.ndarray:
        with compiler_errors():
            return super().forecast(past, id, first_step, columns)

    def selftest(self) -> dict[str, Any]:
        with compiler_errors():
            return super().selftest()

    def example_windows(self, count: int) -> np.ndarray:
        with compiler_errors():
            return super().example_windows(count)


def open_artifact(path: Path | str, threads: int = 1, trust: Path | None = None) -> Forecaster:
    """Checks and loads an artifact, a directory or a ``.tsfmc`` file.

    Args:
        trust: a public key (PEM); what its owner has not signed is refused before anything of it is loaded.

    Raises:
        VerificationError: a file is missing, truncated, edited or not listed, the signature that is asked
            for is not there or does not hold, or the target is unknown.
        MissingError: there is no such path, or the target's runtime is not installed.
        UsageError: ``trust`` is no public key.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(opened(Path(path)))
        with compiler_errors():
            engine = _engine_for(directory)
            opened_here = Forecaster(directory, threads, engine, trust)
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


@dataclass(frozen=True)
class Standing:
    """How far an artifact can be believed; nothing of it was executed to find out.

    Attributes:
        files: how many are listed.
        problems: what is wrong with them, one line each; empty when it is intact.
        signed_by: fingerprint of the key that was asked for, once its signature holds.
        has_signature: whether there is one, checked or not.
    """

    files: int
    problems: tuple[str, ...]
    signed_by: str | None
    has_signature: bool

    @property
    def sentence(self) -> str:
        """``5 files match SHA256SUMS; signed by the key d892...``."""
        files = f"{self.files} files match {SUMS}"
        if self.problems:
            count = len(self.problems)
            files = f"NOT INTACT, {count} problem{'s' if count > 1 else ''}: {joined(self.problems)}"
        signature = "not signed"
        if self.signed_by is not None:
            signature = f"signed by the key {self.signed_by[:16]}..."
        elif self.has_signature:
            signature = f"{SIGNATURE} not checked (give --trust KEY)"
        return f"{files}; {signature}"


def check_artifact(path: Path, trust: Path | None = None) -> Standing:
    """Compares every file with its hash, and the signature with a key; executes nothing of the artifact.

    Problems of the files are found and not raised.

    Raises:
        VerificationError: the files are intact, and not signed by the owner of ``trust``.
        MissingError: there is no such path, or no package to check a signature with.
        UsageError: ``trust`` is no public key.
    """
    with opened(path) as directory:
        has_signature = (directory / SIGNATURE).is_file()
        try:
            files = intact_files(directory)
        except VerificationError as error:
            with compiler_errors():
                problems = tuple(find_problems(directory, _device_files(directory)))
            return Standing(0, problems or (error.what,), None, has_signature)
        with compiler_errors():
            signed_by = None if trust is None else check_signature(files, trust)
        return Standing(len(files.sums or {}), (), signed_by, has_signature)


def intact_files(directory: Path) -> ArtifactFiles:
    """The files of an artifact, every one of them checked; nothing is executed.

    Raises:
        VerificationError: for the first problem.
    """
    with compiler_errors():
        return open_files(directory, getattr(_engine_for(directory), "device_files", ()))


def verify_artifact(
    path: Path, threads: int = 1, *, trust: Path | None = None, execute: bool = True
) -> list[str]:
    """Checks every file, every hash, the signature that is asked for, and then the self-test.

    Args:
        trust: a public key (PEM) whose owner must have signed the artifact.
        execute: whether to run the self-test, which loads the program in the artifact, native code for some
            targets; without it nothing of the artifact is executed.

    Returns:
        What was checked, one line each.

    Raises:
        VerificationError: names every file that is wrong, what is wrong with the signature, or by how much
            the self-test differs.
        MissingError: the target's runtime is not installed.
        UsageError: ``trust`` is no public key.
    """
    with opened(path) as directory:
        standing = check_artifact(directory, trust)
        if standing.problems:
            raise VerificationError(
                f"{path}: {joined(standing.problems)}", hint="get an intact copy of the artifact"
            )
        findings = [standing.sentence]
        if execute:
            findings.append(_self_test(path, directory, threads, trust, standing.files))
    return findings


def joined(problems: Sequence[str]) -> str:
    """The first problems, and how many more there are."""
    more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return "; ".join(problems[:MOST_PROBLEMS]) + more


def _self_test(path: Path, directory: Path, threads: int, trust: Path | None, count: int) -> str:
    try:
        result = open_artifact(directory, threads, trust).selftest()
    except MissingError as error:
        error.hint = f"its {count} files are intact; on its device: python3 run.py selftest"
        raise
    if not result["passed"]:
        raise VerificationError(
            f"{path}: the self-test differs by {result['max_rel']:.3g} of the window's scale, "
            f"expected at most {result['tolerance']:.3g}",
            hint="another version of the runtime may compute something else here",
        )
    return (
        f"self-test: {result['windows']} windows within {result['max_rel']:.1e} of the original model, "
        f"tolerance {result['tolerance']:.0e}"
    )


def _device_files(directory: Path) -> Sequence[str]:
    """What the installed target makes on a device; nothing where there is no such target."""
    try:
        return tuple(getattr(_engine_for(directory), "device_files", ()))
    except (ArtifactError, VerificationError):
        return ()


def _engine_for(directory: Path) -> Any:
    """The engine class of the installed target that the manifest names; never code of the artifact.

    Raises:
        ArtifactError: the files are broken.
        VerificationError: there is no target of this kind.
    """
    from .. import TARGETS

    try:
        kind = read_fields(directory)["target"].get("kind")
    except ArtifactError:
        kind = None
    if not isinstance(kind, str) or kind not in TARGETS:
        open_files(directory)  # what is wrong with the files comes first
        raise VerificationError(
            f"{MANIFEST} field target.kind: got {str(kind)[:80]!r}, known are {', '.join(sorted(TARGETS))}"
        )
    return engine_class(TARGETS[kind].engine_source())
