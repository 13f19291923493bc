"""A .npy file that is written row by row, for series that need not fit into memory."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt


class ArrayWriter:
    """Appends rows to a new .npy file; the header leaves room for the final number of rows."""

    def __init__(self, path: Path, dtype: np.dtype[np.generic], row_shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._path, self._dtype, self._row_shape = path, dtype, row_shape
        self._file: BinaryIO

    def __enter__(self) -> ArrayWriter:
        self._file = self._path.open("wb")
        self._write_header()
        return self

    def append(self, rows: npt.NDArray[np.generic]) -> None:
        """Append ``rows [n, ...]``, converted to the dtype of the file."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def release(array: npt.NDArray[np.generic]) -> None:
    """Gives the pages of a memory-mapped array back; they are read again where they are needed again.

    What a process has looked at counts as its memory until then.
    """
    mapping = getattr(array, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
