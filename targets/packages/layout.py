"""What a layout is, and the one way to write a package: checked first, complete or not there at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from ...compiler.base.errors import UsageError
from ..artifact.archive import opened
from ..artifact.device.check import SIGNATURE, SUMS
from ..artifact.device.files import ArtifactFiles
from ..artifact.device.manifest import MANIFEST, parse_manifest
from ..artifact.manifest import validate
from ..artifact.open import compiler_errors, intact_files

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Packed:
    """An artifact that was found intact.

    Attributes:
        files: its files; what is read from them is what was hashed.
        manifest: checked, as JSON has it.
        name: what the platform is to call the model.
    """

    files: ArtifactFiles
    manifest: Mapping[str, Any]
    name: str

    @property
    def kind(self) -> str:
        """The target it was lowered for."""
        return str(self.manifest["target"]["kind"])

    @property
    def program(self) -> bytes:
        """The file that the engine loads."""
        return self.files.read(self.manifest["target"]["entry"])

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """``[D, L]`` of the past and ``[D, H]`` of the forecast; with quantiles ``[D, H, Q]``."""
        task = self.manifest["task"]
        variates, levels = len(task["variates"]), task.get("quantile_levels") or ()
        forecast = (variates, task["horizon"])
        return (variates, task["lookback"]), (*forecast, len(levels)) if levels else forecast

    def copy_to(self, directory: Path) -> None:
        """The whole artifact, listing and signature too, so that it still verifies there."""
        loose = [name for name in (SUMS, SIGNATURE) if self.files.has(name)]
        for name in sorted(self.files.sums or ()):
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.files.read(name))
        for name in loose:
            shutil.copyfile(self.files.directory / name, directory / name)
        with compiler_errors():
            intact_files(directory)


class Layout:
    """A way to lay an artifact out for a platform.  One instance per name lives in the registry."""

    name: ClassVar[str]
    summary: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of target that it takes; none named means all."""
    suffix: ClassVar[str] = ""
    """Of the one file that it writes; empty where it writes a directory."""
    usual: ClassVar[Mapping[str, object]] = {}
    """Field of a task, or ``fleet`` -> the value that it goes by; an artifact with another is refused."""
    options: ClassVar[tuple[str, ...]] = ()
    """Names of what its constructor takes."""

    @classmethod
    def made(cls, **options: object) -> Layout:
        """A layout with its options; None is none.

        Raises:
            UsageError: it has no such option.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if name not in cls.options:
                raise UsageError(f"layout {cls.name} takes no {name}")
        return cls(**given)

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the package at ``path``: into the empty directory, or as that file."""
        raise NotImplementedError


def write_package(artifact: Path, layout: Layout, out: Path, name: str = "forecaster") -> Path:
    """Checks an artifact and writes it in another layout; equal artifacts give equal bytes.

    Args:
        artifact: a directory or a ``.tsfmc`` file.
        out: where the package goes; it must not exist.
        name: what the platform calls the model.

    Raises:
        VerificationError: the artifact is not intact.
        UsageError: the layout does not take this target or task, ``out`` exists, or the name is not allowed.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"model name {name[:80]!r}: expected up to 64 letters, digits, - and _, a letter or digit first"
        )
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists", hint="choose another output path, or remove it")
    with opened(artifact) as directory, compiler_errors():
        files = intact_files(directory)
        packed = Packed(files, validate(parse_manifest(files.read(MANIFEST))), name)
        if layout.kinds and packed.kind not in layout.kinds:
            raise UsageError(
                f"layout {layout.name} takes artifacts for {' or '.join(layout.kinds)}, "
                f"{artifact} is for {packed.kind}",
                hint=f"compile with --target {layout.kinds[0]}",
            )
        _check_usual(packed, layout)
        with _complete_or_absent(out, layout) as draft:
            layout.write(packed, draft)
    return out


def _check_usual(artifact: Packed, layout: Layout) -> None:
    stated = {"fleet": artifact.manifest.get("fleet"), **artifact.manifest["task"]}
    for name, usual in layout.usual.items():
        if stated.get(name, usual) not in (usual, None):
            raise UsageError(
                f"layout {layout.name} does not know {name}, which this artifact was compiled with",
                hint=f"take layout hf, oci or tsfmc, where run.py does, or compile without {name}",
            )


@contextmanager
def _complete_or_absent(out: Path, layout: Layout) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".{out.name}.{os.getpid()}.{uuid4().hex[:8]}.new"
    if not layout.suffix:
        draft.mkdir()
    try:
        yield draft
        draft.rename(out)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
