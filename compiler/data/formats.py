"""CSV and Parquet files as chunks of rows, and the checks that concern the file as a whole."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import warnings
import zlib
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from ..base.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_BYTES = 1 << 20
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class TableFile(Protocol):
    """A file of named columns.

    Attributes:
        name: for messages.
        columns: header, in file order, without surrounding blanks.
        first_row: row number of the first data row as a user counts it.
        rows: number of data rows where the format says it, else 0.
    """

    name: str
    columns: tuple[str, ...]
    first_row: int
    rows: int

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """The named columns in file order, at most ``rows`` rows at a time, index counting data rows."""
        ...


def open_table(path: Path) -> TableFile:
    """Open a CSV or Parquet file by its suffix.

    Raises:
        DataError: it is empty, is something else, or its header is unusable.
    """
    table: TableFile = CsvFile(path) if is_csv(path) else ParquetFile(path)
    repeated = [column for column, count in Counter(table.columns).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path.name}: column name {repeated[0]!r} appears twice", hint="give each column its own name"
        )
    if "" in table.columns[1:]:
        number = table.columns.index("", 1) + 1
        raise DataError(f"{path.name}: column {number} has no name", hint="name every column in the header")
    return table


@dataclass(frozen=True)
class Fingerprint:
    """sha256 of the unpacked bytes of a file, and how many rows it has (for progress, not exact)."""

    sha256: str
    rows: int


def fingerprint(path: Path) -> Fingerprint:
    """Read ``path`` to its end once.

    Raises:
        DataError: a CSV is not UTF-8 or its gzip stream is broken.
    """
    digest, lines = hashlib.sha256(), 0
    decoder = getincrementaldecoder("utf-8")() if is_csv(path) else None
    try:
        with open_binary(path) as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                lines += block.count(b"\n")
                if decoder:
                    decoder.decode(block)
            if decoder:
                decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not a CSV file in UTF-8: {error.reason}",
            hint="expected UTF-8 text; convert it first",
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path.name} is not a whole gzip file: {error}", hint="fetch or pack it again"
        ) from error
    return Fingerprint(digest.hexdigest(), lines if decoder else 0)


def open_binary(path: Path) -> IO[bytes]:
    """The unpacked bytes of ``path``."""
    return cast("IO[bytes]", gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb"))


def is_csv(path: Path) -> bool:
    """Whether the suffix says CSV, packed or not."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


class CsvFile:
    """Comma-separated values with a header line, UTF-8 with or without a byte order mark."""

    first_row = 2  # the header is row 1
    rows = 0

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        with open_binary(path) as stream:
            records = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
            try:
                header, first = next(records, []), next(records, [])
            except csv.Error as error:
                raise DataError(f"{self.name} is not a CSV file: {error}", hint="expected text") from error
        if not header:
            raise DataError(f"{self.name} is empty", hint="expected a header line and rows of numbers")
        self.columns = tuple(column.strip() for column in header)
        self._refuse_delimiters()
        self._refuse_missing_header()
        if not first:
            raise DataError(
                f"{self.name} has a header but no rows", hint="expected rows of numbers below the header"
            )
        if len(first) != len(header):
            raise DataError(
                f"{self.name}: row 2 has {len(first)} fields, the header has {len(header)}",
                hint="expected the same number in every row",
            )

    def _refuse_delimiters(self) -> None:
        for delimiter, word in _OTHER_DELIMITERS.items():
            if len(self.columns) == 1 and delimiter in self.columns[0]:
                raise DataError(
                    f"{self.name}: fields are separated by {word}, expected commas", hint="convert it first"
                )

    def _refuse_missing_header(self) -> None:
        from .timestamps import is_timestamp

        for column in self.columns:
            if not column.isdecimal() and (_is_number(column) or is_timestamp(column)):
                raise DataError(
                    f"{self.name}: row 1 has the value {column!r}, expected column names",
                    hint="add a header line such as date,a,b",
                )

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """See ``TableFile.chunks``; numbers are read to the last bit."""
        import pandas as pd

        wanted = set(columns)
        ordered = [column for column in self.columns if column in wanted]
        with open_binary(self._path) as stream:
            reader = pd.read_csv(
                stream,
                encoding="utf-8-sig",
                header=0,
                names=list(self.columns),
                index_col=False,
                skipinitialspace=True,
                float_precision="round_trip",
                chunksize=rows,
            )
            # All columns are parsed, since pandas does not see surplus fields once it may skip some.
            while (frame := self._next(reader)) is not None:
                yield frame[ordered]

    def _next(self, reader: Iterator[pd.DataFrame]) -> pd.DataFrame | None:
        import pandas as pd

        # The filters are set around each chunk: a generator must not leave them on between two.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            try:
                return next(reader, None)
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
                raise DataError(
                    f"{self.name}: {reason}", hint="expected the same number of fields in every row"
                ) from error


class ParquetFile:
    """Parquet, read in batches of rows."""

    first_row = 1

    def __init__(self, path: Path) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self.name = path.name
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.name} is not a Parquet file: {reason}", hint="expected a whole Parquet file"
            ) from error
        self.rows = int(self._file.metadata.num_rows)
        if not self.rows:
            raise DataError(f"{self.name} has no rows", hint="expected rows of numbers")
        self.columns = tuple(self._file.schema_arrow.names)

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """See ``TableFile.chunks``."""
        import pandas as pd
        import pyarrow as pa

        wanted, start = set(columns), 0
        ordered = [column for column in self.columns if column in wanted]
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=ordered):
                frame = batch.to_pandas(ignore_metadata=True)
                frame.index = pd.RangeIndex(start, start + len(frame))
                start += len(frame)
                yield frame[ordered]
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.name} is a broken Parquet file: {reason}", hint="fetch or write it again"
            ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().lstrip("+-") not in ("nan", "inf", "infinity")
