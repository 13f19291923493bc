"""Check: every file of the artifact against ``SHA256SUMS`` and the manifest."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import ArtifactError
from .files import MAX_FILE_BYTES, MAX_FILES, MAX_LISTING_BYTES, is_safe_name, read_text, sha256_file
from .manifest import MANIFEST, read_manifest

SUMS = "SHA256SUMS"
USER_SUFFIXES = (".csv", ".csv.gz")
"""Data that a user may keep beside run.py: nothing in an artifact ever loads it."""


def check_files(directory: Path) -> None:
    """Raises ArtifactError for the first problem."""
    for problem in find_problems(directory):
        raise ArtifactError(f"{directory}: {problem}")


def read_sums(directory: Path) -> dict[str, str]:
    """``SHA256SUMS`` as name -> hex digest.

    Raises:
        ArtifactError: missing, too large, malformed, or a name that leaves the directory.
    """
    text = read_text(directory, SUMS, MAX_LISTING_BYTES)
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ArtifactError(f"{SUMS} line {number}: expected '<sha256>  <file>', got {line[:80]!r}")
        if not is_safe_name(name) or name == SUMS or name in sums:
            raise ArtifactError(f"{SUMS} line {number}: the file name {name[:80]!r} is not allowed here")
        sums[name] = digest
    if len(sums) > MAX_FILES:
        raise ArtifactError(f"{SUMS} lists {len(sums)} files, expected at most {MAX_FILES}")
    if MANIFEST not in sums:
        raise ArtifactError(f"{SUMS} does not list {MANIFEST}")
    return sums


def find_problems(directory: Path) -> Iterator[str]:
    """Everything that is wrong with the files of an artifact, one line each; nothing when it is intact."""
    try:
        sums = read_sums(directory)
    except ArtifactError as error:
        yield str(error)
        return
    made_here = _device_files(directory)
    for name in _present(directory):
        if name not in sums and name != SUMS and name not in made_here and not _may_be_unlisted(name, sums):
            yield f"{name} is not listed in {SUMS}: move it out of the artifact"
    broken = set()
    for name in sorted(sums):
        problem = _file_problem(directory, name, sums[name])
        if problem:
            broken.add(name)
            yield problem
    if MANIFEST not in broken:
        yield from _manifest_problems(directory, sums, broken)


def _present(directory: Path) -> Iterator[str]:
    """Names of all files and links below ``directory``; links are never followed."""
    for folder, folders, files in os.walk(directory, followlinks=False):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted(files + links):
            yield (Path(folder) / name).relative_to(directory).as_posix()


def _may_be_unlisted(name: str, sums: dict[str, str]) -> bool:
    """A user's own data, or what Python itself writes when a script of the artifact is imported."""
    compiled = re.fullmatch(r"__pycache__/(\w+)\.[\w-]+\.pyc", name)
    return name.endswith(USER_SUFFIXES) or (compiled is not None and f"{compiled[1]}.py" in sums)


def _device_files(directory: Path) -> list[str]:
    """Files that a device makes beside the payload, such as an engine built there: no hash is known."""
    try:
        names = read_manifest(directory)["target"].get("device_files", [])
    except ArtifactError:
        return []  # reported with the manifest itself
    return names if isinstance(names, list) else []


def _file_problem(directory: Path, name: str, expected: str) -> str | None:
    path = directory
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return f"{name} is a symbolic link, expected a plain file"
    try:
        found = path.lstat()
    except OSError:
        return f"{name} is listed in {SUMS} but missing"
    if not stat.S_ISREG(found.st_mode):
        return f"{name} is not a plain file"
    if found.st_size > MAX_FILE_BYTES:
        return f"{name} has {found.st_size} bytes, expected at most {MAX_FILE_BYTES}"
    got = sha256_file(path)
    return (
        None if got == expected else f"{name} was changed: sha256 {got[:16]}..., expected {expected[:16]}..."
    )


def _manifest_problems(directory: Path, sums: dict[str, str], broken: set[str]) -> Iterator[str]:
    """Where the manifest does not agree with the files; ``broken`` ones are known already."""
    try:
        manifest = read_manifest(directory)
    except ArtifactError as error:
        yield str(error)
        return
    declared = manifest["files"]
    for name in sorted(set(sums) - {MANIFEST} | set(declared)):
        entry = declared.get(name)
        if not isinstance(entry, dict) or entry.get("sha256") != sums.get(name):
            yield f"{MANIFEST} field files: {name} does not agree with {SUMS}"
        elif name not in broken and (directory / name).stat().st_size != entry.get("bytes"):
            yield f"{name} has {(directory / name).stat().st_size} bytes, expected {entry.get('bytes')}"
    if manifest["target"]["entry"] not in sums:
        yield f"{MANIFEST} field target.entry: {manifest['target']['entry']!r} is not a file of the artifact"
