"""Check: every file of the artifact against ``SHA256SUMS`` and the manifest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import ArtifactError
from .files import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_LISTING_BYTES,
    MAX_MANIFEST_BYTES,
    ArtifactFiles,
    decode,
    is_safe_name,
    open_plain,
    read_bytes,
    sha256_of,
)
from .manifest import MANIFEST, parse_manifest

SUMS, SIGNATURE = "SHA256SUMS", "model.sig"
USER_SUFFIXES = (".csv", ".csv.gz")
"""Data that a user may keep beside run.py: nothing in an artifact ever loads it."""
CODE_SUFFIXES = (
    ".py",
    ".pyc",
    ".pyd",
    ".pyo",
    ".pth",
    ".so",
    ".dll",
    ".dylib",
    ".zip",
    ".whl",
    ".egg",
    ".sh",
)
"""What is never there without a hash, whoever declares it."""


def open_files(directory: Path, device_files: Sequence[str] = ()) -> ArtifactFiles:
    """The files of an artifact, all of them checked.

    Args:
        device_files: what the *installed* target makes on a device, beside the payload.

    Raises:
        ArtifactError: for the first problem.
    """
    try:
        files = _listed(directory, device_files)
    except ArtifactError as error:
        raise ArtifactError(f"{directory}: {error}") from None
    for problem in _problems_of(files):
        raise ArtifactError(f"{directory}: {problem}")
    return files


def read_sums(directory: Path) -> dict[str, str]:
    """``SHA256SUMS`` as name -> hex digest.

    Raises:
        ArtifactError: missing, too large, malformed, or a name that leaves the directory.
    """
    sums = _listed(directory).sums
    assert sums is not None
    return sums


def find_problems(directory: Path, device_files: Sequence[str] = ()) -> Iterator[str]:
    """Everything that is wrong with the files of an artifact, one line each; nothing when it is intact.

    Only a user's data, the signature, and ``device_files`` may be there without a hash; code never.
    """
    try:
        files = _listed(directory, device_files)
    except ArtifactError as error:
        yield str(error)
        return
    yield from _problems_of(files)


def _listed(directory: Path, device_files: Sequence[str] = ()) -> ArtifactFiles:
    """The listing, read once; no other file is looked at."""
    content = read_bytes(directory, SUMS, MAX_LISTING_BYTES)
    sums: dict[str, str] = {}
    for number, line in enumerate(decode(content, SUMS).splitlines(), 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ArtifactError(f"{SUMS} line {number}: expected '<sha256>  <file>', got {line[:80]!r}")
        if not is_safe_name(name) or name in (SUMS, SIGNATURE) or name in sums:
            raise ArtifactError(f"{SUMS} line {number}: the file name {name[:80]!r} is not allowed here")
        sums[name] = digest
    if len(sums) > MAX_FILES:
        raise ArtifactError(f"{SUMS} lists {len(sums)} files, expected at most {MAX_FILES}")
    if MANIFEST not in sums:
        raise ArtifactError(f"{SUMS} does not list {MANIFEST}")
    return ArtifactFiles(directory, sums, hashlib.sha256(content).hexdigest(), device_files)


def _problems_of(files: ArtifactFiles) -> Iterator[str]:
    sums = files.sums or {}
    for name in _present(files.directory):
        if name not in sums and not _may_be_unlisted(name, files.device_files):
            yield f"{name} is not listed in {SUMS}: move it out of the artifact"
    broken, sizes = set(), {}
    for name in sorted(sums):
        try:
            sizes[name] = _checked_size(files.directory, name, sums[name])
        except ArtifactError as error:
            broken.add(name)
            yield str(error)
    if MANIFEST not in broken:
        yield from _manifest_problems(files, sizes, broken)


def _present(directory: Path) -> Iterator[str]:
    """Names of all files and links below ``directory``; links are never followed."""
    for folder, folders, names in os.walk(directory, followlinks=False):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted(names + links):
            yield (Path(folder) / name).relative_to(directory).as_posix()


def _may_be_unlisted(name: str, device_files: Sequence[str]) -> bool:
    if name in (SUMS, SIGNATURE):
        return True
    if name.lower().endswith(CODE_SUFFIXES):
        return False
    return name in device_files or name.endswith(USER_SUFFIXES)


def _checked_size(directory: Path, name: str, expected: str) -> int:
    """Bytes of one file, which is what its hash says.

    Raises:
        ArtifactError: missing, no plain file, too large, or changed.
    """
    path = directory
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise ArtifactError(f"{name} is a symbolic link, expected a plain file")
    try:
        with open_plain(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ArtifactError(f"{name} has {size} bytes, expected at most {MAX_FILE_BYTES}")
            got = sha256_of(stream)
    except FileNotFoundError:
        raise ArtifactError(f"{name} is listed in {SUMS} but missing") from None
    except OSError as error:
        raise ArtifactError(f"{name} is not a plain file that can be read: {error}") from None
    if got != expected:
        raise ArtifactError(f"{name} was changed: sha256 {got[:16]}..., expected {expected[:16]}...")
    return size


def _manifest_problems(files: ArtifactFiles, sizes: dict[str, int], broken: set[str]) -> Iterator[str]:
    """Where the manifest does not agree with the files; ``broken`` ones are known already."""
    try:
        manifest = parse_manifest(files.read(MANIFEST, MAX_MANIFEST_BYTES))
    except ArtifactError as error:
        yield str(error)
        return
    sums, declared, entry_file = files.sums or {}, manifest["files"], manifest["target"]["entry"]
    for name in sorted(set(sums) - {MANIFEST} | set(declared)):
        entry = declared.get(name)
        if name not in sums or not isinstance(entry, dict) or entry.get("sha256") != sums[name]:
            yield f"{MANIFEST} field files: {name} does not agree with {SUMS}"
        elif name not in broken and sizes[name] != entry.get("bytes"):
            yield f"{name} has {sizes[name]} bytes, expected {entry.get('bytes')}"
    if entry_file not in sums:
        yield f"{MANIFEST} field target.entry: {entry_file!r} is not a file of the artifact"
