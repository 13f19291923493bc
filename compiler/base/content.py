"""Content keys: what a result depends on, as one hash; and where such results are kept."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any


def cache_root() -> Path:
    """``$TSFMC_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("TSFMC_CACHE") or user_cache_dir("tsfmc"))


def content_key(*parts: Any) -> str:
    """Hex sha256 of JSON-able parts, independent of dictionary order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_key(*folders: str) -> str:
    """Hex sha256 of the source in some folders of this package: other code never reads an older result."""
    root = Path(__file__).resolve().parents[2]
    return content_key([folder_key(root / folder) for folder in folders])


@cache
def folder_key(path: Path) -> str:
    """Hex sha256 of the Python source below a folder, or of one file."""
    digest = hashlib.sha256()
    sources = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for source in sources:
        digest.update(source.relative_to(path.parent).as_posix().encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
