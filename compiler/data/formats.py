"""CSV, Parquet and Excel files as chunks of rows, and the checks that concern the file as a whole."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import warnings
import zlib
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from ..base.errors import DataError, UsageError, unknown_name
from ..base.paths import reason
from .dialect import PLAIN, Dialect, dialect_text, plain_number
from .limits import Allowance, Limits, LineMeter, data_limits
from .packed import refuse_padding
from .remedies import RepairableError, options_text

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_BYTES = 1 << 20
_TRUSTED_BYTES = 64_000_000
"""A file may unpack to so much before the ratio is looked at."""
_THRIFT_BYTES, _THRIFT_ITEMS = 64_000_000, 1_000_000
"""Of one text and of one list in the footer of a Parquet file."""
_SEPARATOR_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_GUESS_LINES = 50


class TableFile(Protocol):
    """A file of named columns.

    Attributes:
        name: for messages.
        columns: header, in file order, without surrounding blanks.
        first_row: row number of the first data row as a user counts it.
        rows: number of data rows where the format says it, else 0.
        dialect: how its text is written.
    """

    name: str
    columns: tuple[str, ...]
    first_row: int
    rows: int

    dialect: Dialect

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """The named columns in file order, at most ``rows`` rows at a time, index counting data rows."""
        ...


def open_table(path: Path, dialect: Dialect = PLAIN) -> TableFile:
    """Open a CSV, Parquet or Excel file by its suffix.

    Raises:
        DataError: it is empty, is something else, exceeds a limit, or its header is unusable.
        MissingError: the extra ``excel`` is needed and not installed.
    """
    table: TableFile
    if is_excel(path):
        from .excel import ExcelFile

        table = ExcelFile(path, dialect)
    else:
        table = CsvFile(path, dialect) if is_csv(path) else ParquetFile(path)
    limits = data_limits()
    for limit, count in (("columns", len(table.columns)), ("rows", table.rows)):
        if count > getattr(limits, limit):
            raise limits.refuse(limit, f"{path.name} has {count:,} {limit}")
    repeated = [column for column, count in Counter(table.columns).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path.name}: column name {repeated[0]!r} appears twice", hint="give each column its own name"
        )
    if "" in table.columns[1:]:
        number = table.columns.index("", 1) + 1
        raise DataError(f"{path.name}: column {number} has no name", hint="name every column in the header")
    return table


class Renamed:
    """A file some of whose columns go by another name.

    Raises:
        UsageError: there is no such column, or the new name is taken.
    """

    def __init__(self, file: TableFile, names: Mapping[str, str]) -> None:
        for old, new in names.items():
            if old not in file.columns:
                raise unknown_name(f"column of {file.name}", old, file.columns)
            if new in file.columns and new not in names:
                raise UsageError(
                    f"--rename {old}={new}: {file.name} has a column {new!r}", hint="rename it, too"
                )
        self.name, self.first_row, self.rows, self.dialect = (
            file.name,
            file.first_row,
            file.rows,
            file.dialect,
        )
        self.columns = tuple(names.get(column, column) for column in file.columns)
        self._file, self._names = file, dict(names)

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """See ``TableFile.chunks``."""
        old = {new: name for name, new in self._names.items()}
        for frame in self._file.chunks([old.get(column, column) for column in columns], rows):
            yield frame.rename(columns=self._names)


@dataclass(frozen=True)
class Fingerprint:
    """sha256 of the unpacked bytes of a file, and how many rows it has (for progress, not exact)."""

    sha256: str
    rows: int


def fingerprint(path: Path, dialect: Dialect = PLAIN) -> Fingerprint:
    """Read ``path`` to its end once.

    Raises:
        DataError: a CSV is not in this encoding, exceeds a limit (``limits.py``), or its gzip stream is
            broken; or the file cannot be read.
    """
    digest, limits = hashlib.sha256(), data_limits()
    text = _Text(path.name, limits, dialect.encoding) if is_csv(path) else None
    unpacked, block = 0, b""
    try:
        with path.open("rb") as packed, _unpacking(path, packed) as stream:
            while block := stream.read(min(_BLOCK_BYTES, limits.line_bytes)):
                digest.update(block)
                unpacked += len(block)
                if text:
                    text.feed(block)
                    _check_size(path, unpacked, packed.tell(), limits)
            if text:
                text.end()
    except UnicodeDecodeError as error:
        raise _undecodable(path.name, dialect, error.reason, block) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path.name} is not a whole gzip file: {error}", hint="fetch or pack it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}", hint="give a file that can") from error
    return Fingerprint(digest.hexdigest(), text.meter.lines if text else 0)


def _undecodable(file: str, dialect: Dialect, reason: str, block: bytes) -> DataError:
    from .guessing import guess_encoding

    encoding = dialect.encoding
    what = f"{file} is not a CSV file in {encoding.upper()}: {reason}"
    found = guess_encoding(block)
    if found is None or found == encoding:
        return DataError(what, hint=f"expected {encoding.upper()} text; convert it first")
    remedy = {"csv": dialect_text(dialect._replace(encoding=found))}
    return RepairableError(what, hint=f"this looks like {found}; add {options_text(remedy)}", remedy=remedy)


class _Text:
    """The blocks of a CSV: text in its encoding, in lines and rows within the limits."""

    def __init__(self, file: str, limits: Limits, encoding: str) -> None:
        self.meter, self._file, self._limits = LineMeter(file, limits), file, limits
        self._decoder = getincrementaldecoder(encoding)()

    def feed(self, block: bytes) -> None:
        self._decoder.decode(block)
        self.meter.feed(block)
        if self.meter.lines > self._limits.rows + 1:
            raise self._limits.refuse("rows", f"{self._file} has more than {self.meter.lines - 1:,} rows")

    def end(self) -> None:
        self._decoder.decode(b"", final=True)


def _check_size(path: Path, unpacked: int, packed: int, limits: Limits) -> None:
    if unpacked > limits.unpacked_bytes:
        raise limits.refuse("unpacked_bytes", f"{path.name} has more than {unpacked:,} bytes unpacked")
    if _is_packed(path) and unpacked > max(_TRUSTED_BYTES, limits.ratio * packed):
        times = f"{unpacked // max(packed, 1):,} times its size"
        raise limits.refuse("ratio", f"{path.name} unpacks to {times} and goes on")


def open_binary(path: Path) -> IO[bytes]:
    """The unpacked bytes of ``path``."""
    if not _is_packed(path):
        return path.open("rb")
    refuse_padding(path)
    return cast("IO[bytes]", gzip.open(path, "rb"))


def _unpacking(path: Path, packed: IO[bytes]) -> IO[bytes]:
    if not _is_packed(path):
        return packed
    refuse_padding(path)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def is_csv(path: Path) -> bool:
    """Whether the suffix says CSV or TSV, packed or not."""
    return path.name.lower().endswith(_CSV)


def is_excel(path: Path) -> bool:
    """Whether the suffix says Excel."""
    return path.name.lower().endswith(".xlsx")


def separator(path: Path, dialect: Dialect) -> str:
    """What stands between two cells."""
    return dialect.sep or ("\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ",")


class CsvFile:
    """Separated values with a header line; UTF-8 with or without a byte order mark unless told otherwise."""

    first_row = 2  # the header is row 1
    rows = 0

    def __init__(self, path: Path, dialect: Dialect = PLAIN) -> None:
        self.name = path.name
        self._path, self.dialect = path, dialect
        self._encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
        self._sep = separator(path, dialect)
        with open_binary(path) as stream:
            bounded = io.BufferedReader(Allowance(stream, self.name, data_limits()))
            text = io.TextIOWrapper(bounded, encoding=self._encoding, newline="")
            records = csv.reader(text, delimiter=self._sep)
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
            what = f"{self.name}: row 2 has {len(first)} fields, the header has {len(header)}"
            raise self._another_layout(what) or DataError(what, hint="expected the same number in every row")

    def _refuse_delimiters(self) -> None:
        others = (sign for sign in _SEPARATOR_WORDS if sign not in (" ", self._sep))
        if len(self.columns) == 1 and (sign := next((s for s in others if s in self.columns[0]), None)):
            expected = _SEPARATOR_WORDS.get(self._sep, repr(self._sep))
            what = f"{self.name}: fields are separated by {_SEPARATOR_WORDS[sign]}, expected {expected}"
            raise self._another_layout(what) or DataError(what, hint="convert it first")

    def _another_layout(self, what: str) -> DataError | None:
        """The error for a file that looks like one of another layout; None where it does not."""
        from .guessing import guess_layout, propose

        lines = []
        with open_binary(self._path) as stream:
            bounded = io.BufferedReader(Allowance(stream, self.name, data_limits()))
            text = io.TextIOWrapper(bounded, encoding=self._encoding, newline="")
            for line in text:
                lines.append(line)
                if len(lines) == _GUESS_LINES:
                    break
        try:
            found = guess_layout(lines, self.dialect, separator(self._path, PLAIN))
        except csv.Error:
            return None
        return None if found is None or found == self.dialect else propose(what, found)

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
            allowance = Allowance(stream, self.name, data_limits())
            try:
                reader = pd.read_csv(
                    io.BufferedReader(allowance),
                    encoding=self._encoding,
                    sep=self._sep,
                    decimal=self.dialect.decimal,
                    # pandas drops the sign wherever it stands, so that 12.34 would be read as 1234.
                    dtype=str if self.dialect.thousands else None,
                    header=0,
                    names=list(self.columns),
                    index_col=False,
                    skipinitialspace=True,
                    float_precision="round_trip",
                    chunksize=rows,
                )
            except pd.errors.ParserError as error:  # in what follows the header
                raise self._unreadable(error) from error
            # All columns are parsed, since pandas does not see surplus fields once it may skip some.
            while (frame := self._next(reader)) is not None:
                allowance.renew()
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
                raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        return DataError(f"{self.name}: {reason}", hint="expected the same number of fields in every row")


class ParquetFile:
    """Parquet, read in batches of rows."""

    first_row = 1
    dialect = PLAIN

    def __init__(self, path: Path) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self.name = path.name
        try:
            self._file = pq.ParquetFile(
                path,
                thrift_string_size_limit=_THRIFT_BYTES,
                thrift_container_size_limit=_THRIFT_ITEMS,
                pre_buffer=False,
                buffer_size=_BLOCK_BYTES,
            )
            columns = self._file.schema_arrow.names
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            said = " ".join(str(error).split())
            raise DataError(
                f"{self.name} is not a Parquet file: {said}", hint="expected a whole Parquet file"
            ) from error
        self._refuse_bombs(data_limits())
        self.rows = int(self._file.metadata.num_rows)
        if not self.rows:
            raise DataError(f"{self.name} has no rows", hint="expected rows of numbers")
        self.columns = tuple(columns)

    def _refuse_bombs(self, limits: Limits) -> None:
        """What the pages say that they unpack to."""
        facts = self._file.metadata
        for group in range(facts.num_row_groups):
            for place in range(facts.num_columns):
                column = facts.row_group(group).column(place)
                unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
                if unpacked > max(_TRUSTED_BYTES, limits.ratio * packed):
                    times = f"{unpacked // max(packed, 1):,} times its size"
                    raise limits.refuse(
                        "ratio", f"{self.name}: column {column.path_in_schema!r} unpacks to {times}"
                    )

    def chunks(self, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        """See ``TableFile.chunks``."""
        import pandas as pd
        import pyarrow as pa

        wanted, start, limits = set(columns), 0, data_limits()
        ordered = [column for column in self.columns if column in wanted]
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=ordered):
                if batch.nbytes > limits.chunk_bytes:
                    raise limits.refuse(
                        "chunk_bytes", f"{self.name}: {len(batch)} rows take {batch.nbytes:,} bytes"
                    )
                frame = batch.to_pandas(ignore_metadata=True)
                frame.index = pd.RangeIndex(start, start + len(frame))
                start += len(frame)
                yield frame[ordered]
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            said = " ".join(str(error).split())
            raise DataError(
                f"{self.name} is a broken Parquet file: {said}", hint="fetch or write it again"
            ) from error


def plain_texts(cells: pd.Series, dialect: Dialect) -> pd.Series:
    """The texts of a column with numbers as a program writes them; others are quoted, so they stay none."""
    if (dialect.decimal, dialect.thousands) == (PLAIN.decimal, PLAIN.thousands):
        return cells
    return cells.map(
        lambda cell: (plain_number(cell, dialect) or repr(cell)) if isinstance(cell, str) else cell
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().lstrip("+-") not in ("nan", "inf", "infinity")
