"""Arrays: plain ``.npy`` files of numbers, whose header says no more than what is there."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.lib import format as npy

from .errors import ArtifactError
from .files import ArtifactFiles


def read_array(
    files: ArtifactFiles, name: str, cap: int, trailing: tuple[int, ...], dtype: str
) -> np.ndarray:
    """``[N, *trailing]`` finite numbers of one type, N at least 1.

    A header with a huge shape allocates nothing; pickled objects are refused always.

    Raises:
        ArtifactError: missing, too large, of another type or shape, or not finite.
    """
    stream, kind = BytesIO(files.read(name, cap)), np.dtype(dtype)
    try:
        version = npy.read_magic(stream)
        shape, by_columns, found = npy.read_array_header_1_0(stream)
    except Exception as error:  # numpy's reader of headers raises whatever a made-up one trips over
        raise ArtifactError(f"{name} is not a plain array of numbers: {error}") from None
    expected = ", ".join(map(str, trailing))
    if version != (1, 0) or by_columns or found != kind or shape[1:] != trailing or not shape:
        raise ArtifactError(f"{name} holds {found} {list(shape)}, expected {kind} [N, {expected}]")
    content, numbers = stream.read(), shape[0]
    for size in trailing:
        numbers *= size
    if shape[0] < 1 or len(content) != kind.itemsize * numbers:
        raise ArtifactError(f"{name} holds {len(content)} bytes of {list(shape)} numbers, at least one row")
    values = np.frombuffer(content, kind).reshape(shape)
    if not np.isfinite(values).all():
        raise ArtifactError(f"{name} holds a number that is not finite")
    return values
