"""Paths and disks: a name is looked at before it is used as a path, a folder before it is worked for.

An out or cache folder that is read-only, full or cannot be made is found before a teacher is run or a student
trained, by writing a small file there and by comparing the free space with an estimate.  What fails later all
the same is one line (``disk_errors``).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DiskError, TsfmcError, UsageError

NAME_BYTES, PATH_BYTES = 255, 4096
"""What Linux takes for one name of a path, and for a whole path."""
_PROBE_BYTES = 4096
_UNUSABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EFBIG: "a file would exceed the allowed size",
    errno.EIO: "the disk reports an error",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "the links go round in circles",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "it is a directory",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}


def checked_path(text: str | os.PathLike[str], what: str) -> Path:
    """``text`` as a path that the system can look at; whether there is anything is not asked.

    Args:
        what: the option or field that gave it, for the message.

    Raises:
        UsageError: it is empty, holds a NUL, or is longer than any path.
    """
    name = os.fspath(text)
    problem = _problem(name)
    if problem:
        raise UsageError(f"{what} {name!r}: {problem}", hint="give the path of a file or directory")
    return Path(name)


def _problem(name: str) -> str:
    if not name.strip():
        return "an empty name"
    if "\0" in name:
        return "a name cannot hold the character NUL"
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return "a name that is not Unicode"
    if len(encoded) > PATH_BYTES or any(len(part) > NAME_BYTES for part in encoded.split(b"/")):
        return f"a path has at most {NAME_BYTES} bytes a name and {PATH_BYTES} in all"
    return ""


def require_room(folder: Path, needed_bytes: int, what: str, hint: str) -> None:
    """Makes ``folder`` where it is missing, and writes a small file there for a moment.

    Raises:
        DiskError: it cannot be made or written to, or has less than ``needed_bytes`` free.
    """
    made = _missing_parents(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".tsfmc-probe-") as probe:
            probe.write(b"\0" * _PROBE_BYTES)
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError) as error:
        raise DiskError(f"{what} {folder} cannot be written to: {reason(error)}", hint=hint) from error
    finally:
        for parent in made:  # a check leaves nothing behind
            with suppress(OSError):
                parent.rmdir()
    if free < needed_bytes:
        raise DiskError(
            f"{what} {folder} has {_size(free)} free, about {_size(needed_bytes)} are needed", hint=hint
        )


def _missing_parents(folder: Path) -> list[Path]:
    """The folders that are to be made, innermost first."""
    try:
        return [each for each in (folder, *folder.parents) if not each.exists()]
    except (OSError, ValueError):
        return []


@contextmanager
def disk_errors(what: str = "") -> Iterator[None]:
    """An ``OSError`` that comes of the disk or of a path, as a one-line ``DiskError``.

    Others, and every ``TsfmcError``, pass.
    """
    try:
        yield
    except TsfmcError:
        raise
    except Exception as error:
        found = as_disk_error(error, what)
        if found is None:
            raise
        raise found from error


def as_disk_error(error: BaseException, what: str = "") -> DiskError | None:
    """The ``DiskError`` for an error of the disk or of a path, None for any other."""
    if isinstance(error, OSError):
        if error.errno not in _UNUSABLE and not _is_short_write(error):
            return None
    elif not _is_full(error) and _named_number(error) not in _UNUSABLE:
        return None
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    place = what or (os.fsdecode(named) if isinstance(named, (str, bytes)) else "a file")
    return DiskError(
        f"{place} cannot be read or written: {reason(error)}",
        hint="nothing that was complete before is lost; make room or choose another place and run it again",
    )


def reason(error: BaseException) -> str:
    """What the system says, in words."""
    if _is_full(error) or _is_short_write(error):
        return _UNUSABLE[errno.ENOSPC]
    number = getattr(error, "errno", None) or _named_number(error)
    if isinstance(number, int):
        return _UNUSABLE.get(number) or os.strerror(number)
    return str(error)


def _is_full(error: BaseException) -> bool:
    """Whether a library that has its own errors (safetensors) says that the disk is full."""
    return "StorageFull" in str(error) or "No space left on device" in str(error)


def _named_number(error: BaseException) -> int | None:
    """The system's number in the text of a library that has its own errors: ``... (os error 27)``."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _is_short_write(error: BaseException) -> bool:
    """numpy: ``1000 requested and 24 written``, without a number of the system."""
    return isinstance(error, OSError) and error.errno is None and str(error).endswith(" written")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
