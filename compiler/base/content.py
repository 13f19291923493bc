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


@cache
def code_key(*folders: str) -> str:
    """Hex sha256 of the source in some folders of this package: other code never reads an older result."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for folder in folders:
        for source in sorted((root / folder).rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()
