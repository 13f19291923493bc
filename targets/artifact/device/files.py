"""Files: safe names, hashes, and caps that are checked before anything is read.

The caps are there so that a made-up artifact cannot exhaust a small device.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .errors import ArtifactError

MAX_LISTING_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILES = 1000
MAX_FILE_BYTES = 4 << 30
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


def is_safe_name(name: str) -> bool:
    """Whether ``name`` is a plain relative path: no ``..``, no absolute path, no hidden or odd character."""
    return len(name) <= 200 and SAFE_NAME.fullmatch(name) is not None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def read_text(directory: Path, name: str, cap: int) -> str:
    """A text file of the artifact of at most ``cap`` bytes.

    Raises:
        ArtifactError: missing, a link, too large, or not UTF-8.
    """
    path = directory / name
    try:
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{name} is missing or not a plain file: {directory} is not an artifact")
        if path.stat().st_size > cap:
            raise ArtifactError(f"{name} has {path.stat().st_size} bytes, expected at most {cap}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{name} cannot be read: {error}") from None
