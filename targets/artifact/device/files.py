"""Files: safe names, caps that are checked before anything is read, and contents that are what was hashed.

The caps are there so that a made-up artifact cannot exhaust a small device.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from .errors import ArtifactError

MAX_LISTING_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILES = 1000
MAX_FILE_BYTES = 4 << 30
MAX_READ_BYTES = 2 << 30
"""Of a file that is read as a whole: more than protobuf allows no ONNX file has."""
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe must not keep us waiting
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class ArtifactFiles:
    """The files of an artifact as its engine gets them: ``files.read("model.onnx")``.

    What ``read`` returns is what the listing says: it is read once, through one descriptor, and hashed; so
    an engine takes contents from here and opens nothing by its name.  As a path it is the directory.

    Attributes:
        directory: the artifact.
        sums: name -> hex digest of every file that is listed; None while nothing is sealed yet.
        sums_sha256: of the listing itself.
        device_files: what a device makes beside the payload: it may be there, and has no hash.
    """

    def __init__(
        self,
        directory: Path,
        sums: dict[str, str] | None = None,
        sums_sha256: str = "",
        device_files: Sequence[str] = (),
    ) -> None:
        self.directory, self.sums, self.sums_sha256 = Path(directory), sums, sums_sha256
        self.device_files = tuple(device_files)

    def __fspath__(self) -> str:
        return str(self.directory)

    def has(self, name: str) -> bool:
        """Whether there is a plain file of this name."""
        path = self.directory / name
        return path.is_file() and not path.is_symlink()

    def folder(self, name: str) -> ArtifactFiles:
        """The files below one folder, as an engine of their own gets them."""
        start = f"{name}/"
        sums = self.sums
        if sums is not None:
            sums = {path[len(start) :]: digest for path, digest in sums.items() if path.startswith(start)}
        made = [path[len(start) :] for path in self.device_files if path.startswith(start)]
        return ArtifactFiles(self.directory / name, sums, self.sums_sha256, made)

    def read(self, name: str, cap: int = MAX_READ_BYTES) -> bytes:
        """The content of one file.

        Raises:
            ArtifactError: missing, a link, larger than ``cap``, or not what the listing says.
        """
        content = read_bytes(self.directory, name, cap)
        sealed = self.sums is not None and name not in self.device_files
        if sealed and hashlib.sha256(content).hexdigest() != (self.sums or {}).get(name):
            raise ArtifactError(f"{name} was changed while it was opened")
        return content


def is_safe_name(name: str) -> bool:
    """Whether ``name`` is a plain relative path: no ``..``, no absolute path, no hidden or odd character."""
    return len(name) <= 200 and SAFE_NAME.fullmatch(name) is not None


def open_plain(path: Path) -> BinaryIO:
    """A plain file, opened for reading; the descriptor is looked at, not the name.

    Raises:
        OSError: missing, a link, or no plain file.
    """
    number = os.open(path, OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError("not a plain file")
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def sha256_of(stream: BinaryIO) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    for piece in iter(lambda: stream.read(1 << 20), b""):
        digest.update(piece)
    return digest.hexdigest()


def read_bytes(directory: Path, name: str, cap: int) -> bytes:
    """A file of at most ``cap`` bytes.

    Raises:
        ArtifactError: missing, a link, or too large.
    """
    try:
        with open_plain(directory / name) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > cap:
                raise ArtifactError(f"{name} has {size} bytes, expected at most {cap}")
            return stream.read(cap)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(f"{name} is missing or not a plain file: {reason}, in {directory}") from None


def read_text(directory: Path, name: str, cap: int) -> str:
    """A text file of at most ``cap`` bytes.

    Raises:
        ArtifactError: missing, a link, too large, or not UTF-8.
    """
    return decode(read_bytes(directory, name, cap), name)


def decode(content: bytes, name: str) -> str:
    """``content`` as text.

    Raises:
        ArtifactError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{name} cannot be read: {error}") from None
