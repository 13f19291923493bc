"""Packed files that never end: what unpacks gzip skips zeros behind it one by one, for gigabytes if need be.

Part of an artifact's ``run.py`` too, so it needs the standard library alone and reads on Python 3.8.
"""

from __future__ import annotations

from gzip import BadGzipFile
from pathlib import Path

PADDING = 1 << 16


def refuse_padding(path: Path) -> None:
    """Looks at the end of a file; a pipe is left alone.

    Raises:
        BadGzipFile: it ends in ``PADDING`` zeros, and no gzip stream does.
    """
    if not path.is_file() or path.stat().st_size <= PADDING:
        return
    with path.open("rb") as stream:
        stream.seek(-PADDING, 2)
        if not any(stream.read(PADDING)):
            raise BadGzipFile(f"it ends in {PADDING} zeros or more")
