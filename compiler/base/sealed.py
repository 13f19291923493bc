"""Files that are believed for their hash alone: how they are written, put in place and read back.

1. A file or a folder is written beside its place under a name of this process and renamed into it, so that
   nobody reads half of it, and two processes that write the same are not in each other's way.
2. A record carries the sha256 of its own content (``"seal"``), a file of tensors in its header.
3. What is damaged in a cache is no result: it is computed again, with one line of warning.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .content import content_key
from .errors import TsfmcError
from .reading import open_regular, read_json

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "seal"
_LOG = logging.getLogger("tsfmc.cache")
_FACTS = "facts"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the sha256 of its content."""
    plain = json.loads(json.dumps(dict(record)))
    return {**plain, SEAL: content_key(plain)}


def read_sealed(
    path: Path,
    *,
    what: str,
    error: type[TsfmcError],
    hint: str = "",
    unsealed: bool = False,
    finite: bool = True,
) -> dict[str, Any]:
    """A record as it was sealed, without its seal.

    Args:
        unsealed: take a record that has no seal, from before there were any.
        finite: see :func:`~.reading.read_json`.

    Raises:
        TsfmcError: of the class ``error``; it is not there, no JSON object, or not what was sealed.
    """
    record = read_json(path, what=what, error=error, hint=hint, finite=finite)
    if not isinstance(record, dict):
        raise error(f"{path}: {what}: this is {type(record).__name__}, expected an object", hint=hint)
    seal = record.pop(SEAL, None)
    if seal != content_key(record) and not (unsealed and seal is None):
        raise error(f"{path}: {what}: it was changed since it was written", hint=hint)
    return record


def write_text(path: Path, text: str) -> None:
    """Writes a file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with placed(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Where to write what is to be at ``path``: it takes its place when the block ends, or is removed."""
    partial = unfinished(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """Where this process writes what will be at ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def publish(partial: Path, final: Path) -> None:
    """Puts a written folder in the place of whatever is there; of two that do so at once one stays."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    for _ in range(3):
        try:
            partial.rename(final)
            return
        except OSError:  # something is there, and a folder does not replace a folder
            try:
                final.rename(old)
            except FileNotFoundError:
                continue  # another process is at the same, and was faster
            _remove(old)
    shutil.rmtree(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


@contextmanager
def hashed(path: Path) -> Iterator[tuple[str, Path]]:
    """The sha256 of a file, and a path of the very file that was hashed, whatever ``path`` becomes.

    Yields:
        Hex sha256, and the path of the open descriptor.
    """
    with open_regular(path) as file:
        yield hashlib.file_digest(file, "sha256").hexdigest(), Path(f"/dev/fd/{file.fileno()}")


def mapped(
    file: Any, shape: tuple[int, ...], dtype: str, size: int, mode: Literal["r", "r+"] = "r"
) -> np.ndarray:
    """The numbers at the end of an open ``.npy`` file of ``size`` bytes, memory-mapped.

    Shape and type are the caller's, from a record that he believes, and not those of the file's header.
    """
    offset = size - math.prod(shape) * np.dtype(dtype).itemsize
    if offset < 0:
        raise ValueError(f"{size} bytes are too few for {list(shape)} of {dtype}")
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing to map
    return np.memmap(file, dtype=np.dtype(dtype), mode=mode, offset=offset, shape=shape)


@contextmanager
def exclusive(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One process at a time; ends with the process, however that ends.

    Args:
        folder: exists.
        waiting: called when another process is inside, before waiting for it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes tensors and JSON-able facts as one safetensors file, sealed, and puts it in place."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(dict(facts))
    with placed(path) as partial:
        save_file(kept, partial, metadata={_FACTS: text, SEAL: _tensors_seal(kept, text)})


def load_tensors(
    path: Path, *, what: str, error: type[TsfmcError], hint: str = ""
) -> tuple[dict[str, Tensor], Any]:
    """Tensors and facts as :func:`save_tensors` wrote them; the seal is that of what is returned.

    Raises:
        TsfmcError: of the class ``error``; it is not there, truncated, or not what was sealed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as failure:
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise error(f"{path}: {what}: not a whole safetensors file: {reason}", hint=hint) from None
    text = metadata.get(_FACTS, "")
    if metadata.get(SEAL) != _tensors_seal(tensors, text):
        raise error(f"{path}: {what}: it was changed since it was written", hint=hint)
    return tensors, json.loads(text)


def _tensors_seal(tensors: Mapping[str, Tensor], text: str) -> str:
    from torch import uint8

    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def warn_damaged(reason: object) -> None:
    """One line on stderr: something in a cache is not believed, and is computed again."""
    _LOG.warning("warning: %s; computed again", " ".join(str(reason).split()))
