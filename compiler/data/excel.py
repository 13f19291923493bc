"""Excel workbooks (``.xlsx``): one sheet, read row by row.

A workbook is a zip of XML, so what it unpacks to is looked at before any of it is read.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import DataError, MissingError, unknown_name
from .dialect import PLAIN, Dialect
from .limits import data_limits

if TYPE_CHECKING:
    import pandas as pd

_TRUSTED_BYTES = 64_000_000


class ExcelFile:
    """One sheet: its first row is the header, empty rows at its end are none."""

    first_row = 2
    rows = 0

    def __init__(self, path: Path, dialect: Dialect = PLAIN) -> None:
        self.name, self._path, self._sheet, self.dialect = path.name, path, dialect.sheet, dialect
        _refuse_bomb(path)
        header = next(self.records(), ())
        self.columns = tuple("" if cell is None else str(cell).strip() for cell in _trimmed(header))
        if not self.columns:
            raise DataError(f"{self.name} is empty", hint="expected a header row and rows of numbers")

    def records(self) -> Iterator[tuple[Any, ...]]:
        """The cells of each row, the header first.

        Raises:
            DataError: it is no workbook.
            UsageError: it has no such sheet.
        """
        openpyxl = _library()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of styles that are not read
                book = openpyxl.load_workbook(self._path, read_only=True, data_only=True)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, SyntaxError) as error:
            said = " ".join(str(error).split())
            raise DataError(f"{self.name} is not an Excel workbook: {said}", hint="expected .xlsx") from error
        try:
            if self._sheet and self._sheet not in book.sheetnames:
                raise unknown_name(f"sheet of {self.name}", self._sheet, book.sheetnames)
            sheet = book[self._sheet] if self._sheet else book.worksheets[0]
            yield from sheet.iter_rows(values_only=True)
        except (KeyError, IndexError, SyntaxError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.name} is a broken workbook: {error}", hint="write it again") from error
        finally:
            book.close()

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """See ``TableFile.chunks``."""
        import pandas as pd

        wanted = set(columns)
        ordered = [column for column in self.columns if column in wanted]
        limits, width, start = data_limits(), len(self.columns), 0
        body = islice(self.records(), 1, None)
        while chunk := list(islice(body, rows)):
            cells = [(*row[:width], *[None] * (width - len(row))) for row in chunk]
            for at, row in enumerate(chunk):
                if any(cell is not None for cell in row[width:]):
                    where = f"{self.name}: row {start + at + self.first_row}"
                    raise DataError(
                        f"{where} has {len(_trimmed(row))} fields, the header has {width}",
                        hint="expected the same number in every row",
                    )
            frame = pd.DataFrame(cells, columns=list(self.columns), index=range(start, start + len(cells)))
            start += len(cells)
            if start > limits.rows:
                raise limits.refuse("rows", f"{self.name} has more than {start:,} rows")
            whole = frame.notna().any(axis=1)
            if whole.any():
                yield frame.loc[whole, ordered].infer_objects()


def _trimmed(row: Sequence[Any]) -> tuple[Any, ...]:
    """The cells of a row without the empty ones at its end."""
    last = max((at for at, cell in enumerate(row) if cell is not None), default=-1)
    return tuple(row[: last + 1])


def _refuse_bomb(path: Path) -> None:
    limits = data_limits()
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} is not an Excel workbook: {error}", hint="expected .xlsx") from error
    unpacked, packed = (sum(getattr(part, size) for part in parts) for size in ("file_size", "compress_size"))
    if unpacked > limits.unpacked_bytes:
        raise limits.refuse("unpacked_bytes", f"{path.name} has {unpacked:,} bytes unpacked")
    if unpacked > max(_TRUSTED_BYTES, limits.ratio * packed):
        raise limits.refuse("ratio", f"{path.name} unpacks to {unpacked // max(packed, 1):,} times its size")


def _library() -> Any:
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError:
        raise MissingError(
            "reading .xlsx needs the package openpyxl", hint="pip install 'tsfmc[excel]', or save it as CSV"
        ) from None
    return openpyxl
