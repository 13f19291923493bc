"""``tsfmc``: the artifact as one deterministic file, which every command takes in place of a directory."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ..artifact.archive import pack_zip
from .layout import Layout, Packed


class SingleFile(Layout):
    """A stored, uncompressed zip with fixed dates."""

    name: ClassVar[str] = "tsfmc"
    summary: ClassVar[str] = "one .tsfmc file, a deterministic zip of the artifact"
    suffix: ClassVar[str] = ".tsfmc"

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the file."""
        pack_zip(artifact.directory, path)
