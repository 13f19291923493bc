"""Everything in a folder that a report is made of: artifacts, and what was kept of their evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...targets.artifact.device.manifest import MANIFEST
from ...targets.artifact.open import read_manifest
from ..base.content import file_hash
from ..base.errors import MissingError
from ..driver.evaluation import Evaluation, evaluation_path, load_evaluation

DEPTH = 3
"""How far below the folder artifacts are looked for: ``out/<target>``, and a folder of several ``out``."""
ARCHIVE = ".tsfmc"


@dataclass(frozen=True)
class Entry:
    """One artifact.

    Attributes:
        name: its path below the folder.
        manifest: checked.
        evaluation: what was kept of its evaluation, or None.
        missing: why there is no evaluation, in words.
    """

    name: str
    manifest: Mapping[str, Any]
    evaluation: Evaluation | None
    missing: str = ""


def collect(folder: Path) -> list[Entry]:
    """Every artifact in ``folder``, which may be one itself; in the order of their names.

    Raises:
        MissingError: there is no such folder, or no artifact in it.
        VerificationError: a manifest or an evaluation is broken.
    """
    if not folder.exists():
        raise MissingError(f"{folder}: no such folder", hint="give the folder that a compile wrote to")
    if folder.is_file() or (folder / MANIFEST).is_file():
        return [_entry(folder, folder.resolve().name)]
    found = [_entry(path, path.relative_to(folder).as_posix()) for path in _artifacts(folder, DEPTH)]
    if not found:
        raise MissingError(
            f"{folder} holds no artifact", hint=f"expected folders with a {MANIFEST}, as compile writes them"
        )
    return found


def _artifacts(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # unfinished work of a compile
            continue
        if path.is_file() and path.suffix == ARCHIVE:
            yield path
        elif path.is_dir() and not path.is_symlink():
            if (path / MANIFEST).is_file():
                yield path
            elif depth > 1:
                yield from _artifacts(path, depth - 1)


def _entry(path: Path, name: str) -> Entry:
    manifest = read_manifest(path)
    named = manifest.get("evaluation")
    beside = evaluation_path(path.resolve())
    if unmeasured := (manifest.get("accuracy") or {}).get("unmeasured"):
        return Entry(name, manifest, None, str(unmeasured))
    if not named:
        return Entry(name, manifest, None, "its compile kept none")
    if not beside.is_file():
        return Entry(name, manifest, None, f"{beside.name} is not beside the artifact")
    if file_hash(beside) != named.get("sha256"):
        return Entry(name, manifest, None, f"{beside.name} is not the one that the artifact names")
    return Entry(name, manifest, load_evaluation(beside))
