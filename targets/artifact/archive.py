"""The artifact as one ``.tsfmc`` file: a deterministic zip that stores and never compresses."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...compiler.base.errors import MissingError, VerificationError
from ...compiler.base.sealed import placed
from .device.files import MAX_FILES, is_safe_name
from .hashes import file_names

MAX_ZIP_BYTES = 8 << 30


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The directory of an artifact; a ``.tsfmc`` file is unpacked for the time of the block.

    Raises:
        VerificationError: the file cannot be unpacked.
        MissingError: there is no such path.
    """
    if not path.exists():
        raise MissingError(f"there is no artifact at {path}", hint="give a directory or a .tsfmc file")
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
        unpack_zip(path, Path(folder))
        yield Path(folder)


def pack_zip(directory: Path, path: Path) -> None:
    """Writes the artifact as one ``.tsfmc`` file; equal artifacts give equal bytes."""
    with placed(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in file_names(directory):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.create_system = 3
            entry.file_size = (directory / name).stat().st_size
            with (directory / name).open("rb") as source, archive.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink)


def unpack_zip(path: Path, directory: Path) -> None:
    """Unpacks a ``.tsfmc`` file into the empty ``directory``; every entry is checked before any is written.

    Raises:
        VerificationError: names the entry that is compressed, encrypted, a link, a duplicate, or would
            leave the directory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise VerificationError(f"{path} has {len(entries)} entries, expected at most {MAX_FILES}")
            seen: set[str] = set()
            for entry in entries:
                _check_entry(path, entry, seen)
            if min((each.header_offset for each in entries), default=0):
                raise VerificationError(
                    f"{path} has bytes before its first entry, and may be something else too"
                )
            total = sum(entry.file_size for entry in entries)
            if total > min(path.stat().st_size, MAX_ZIP_BYTES):
                raise VerificationError(f"{path} declares {total} bytes of content, more than the file holds")
            for entry in entries:
                target = directory / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise VerificationError(f"{path} is not a readable .tsfmc file: {error}") from None


def _check_entry(path: Path, entry: zipfile.ZipInfo, seen: set[str]) -> None:
    mode = entry.external_attr >> 16
    reason = None
    if not is_safe_name(entry.filename):
        reason = "has a name that is not allowed"
    elif entry.filename in seen:
        reason = "occurs twice"
    elif entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        reason = "is compressed, expected stored"
    elif entry.flag_bits & 0x1:
        reason = "is encrypted"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        reason = "is not a plain file"
    if reason:
        raise VerificationError(f"{path}: entry {entry.filename[:80]!r} {reason}")
    seen.add(entry.filename)
