"""What a data file may ask of this machine: limits that are met before memory or disk is.

A few kilobytes of gzip unpack to gigabytes, one line may be as long as its file, and the footer of a
Parquet file promises what it likes.  So the bytes that come out of a packed file, the bytes of a line,
columns and rows are counted while they are read, and the first that is one too many ends the reading; the
reader itself stays below 1 GiB.  ``TSFMC_DATA_LIMITS=columns=50000,line_bytes=1e8`` raises or lowers them.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, fields, replace
from typing import IO, Any

from ..base.errors import DataError, UsageError, unknown_name

VARIABLE = "TSFMC_DATA_LIMITS"


@dataclass(frozen=True)
class Limits:
    """The largest file that is read.

    Attributes:
        columns: of the header; the widest public series has some 8,600.
        line_bytes: of one line of a CSV.
        rows: with those that ``missing`` fills in.
        unpacked_bytes: of a CSV once unpacked.
        ratio: unpacked to packed bytes, looked at beyond 64 MB; numbers as text pack 3 to 20 times.
        chunk_bytes: that the rows read at a time, some two million cells, may take as text or numbers.
    """

    columns: int = 20_000
    line_bytes: int = 8_000_000
    rows: int = 200_000_000
    unpacked_bytes: int = 32_000_000_000
    ratio: int = 200
    chunk_bytes: int = 256_000_000

    def refuse(self, limit: str, what: str) -> DataError:
        """The error for what exceeds one of them."""
        most = getattr(self, limit)
        return DataError(
            f"{what}, at most {most:,} are read",
            hint=f"if the file is meant to be so, set {VARIABLE}={limit}={10 * most}",
        )


def data_limits() -> Limits:
    """The limits of this process: the defaults, changed by ``TSFMC_DATA_LIMITS``.

    Raises:
        UsageError: the variable names no limit, or is no positive number.
    """
    limits = Limits()
    known = [field.name for field in fields(Limits)]
    for part in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, text = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise unknown_name(f"limit in {VARIABLE}", name, known)
        try:
            value = int(float(text))
        except (ValueError, OverflowError):
            value = 0
        if value < 1:
            raise UsageError(
                f"{VARIABLE}: {name}={text!r}", hint=f"expected a positive number, such as {name}=1e9"
            )
        limits = replace(limits, **{name: value})
    return limits


class LineMeter:
    """Watches the lines of a stream that passes in blocks; a carriage return ends a line, too."""

    def __init__(self, file: str, limits: Limits) -> None:
        self._file, self._limits, self._open = file, limits, 0
        self._feeds = self._returns = 0

    @property
    def lines(self) -> int:
        """Ends of lines so far."""
        return max(self._feeds, self._returns)

    def feed(self, block: bytes) -> None:
        """The next block.

        Raises:
            DataError: a line is longer than ``line_bytes``.
        """
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        first = min((at for at in (block.find(b"\n"), block.find(b"\r")) if at >= 0), default=len(block))
        longest = max(self._open + first, len(block) - last - 1)
        self._open = len(block) - last - 1 if last >= 0 else self._open + len(block)
        if longest > self._limits.line_bytes:
            where = f"{self._file}: line {self.lines + 1}"
            raise self._limits.refuse("line_bytes", f"{where} has more than {longest - 1:,} bytes")
        self._feeds += block.count(b"\n")
        self._returns += block.count(b"\r")


class Allowance(io.RawIOBase):
    """A stream of which only so many bytes are read until ``renew``.

    A reader of rows looks for the end of one, and inside quotes no line end is one.
    """

    def __init__(self, stream: IO[bytes], file: str, limits: Limits) -> None:
        self._stream, self._file, self._limits = stream, file, limits
        self._taken = 0

    def renew(self) -> None:
        """Rows have come out: the next may take as many bytes again."""
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``.

        Raises:
            DataError: ``chunk_bytes`` are read, and no rows have come of them.
        """
        view = memoryview(buffer).cast("B")
        block = self._stream.read(len(view))
        view[: len(block)] = block
        self._taken += len(block)
        if self._taken > self._limits.chunk_bytes:
            raise self._limits.refuse(
                "chunk_bytes", f"{self._file}: the rows read at a time take {self._taken:,} bytes"
            )
        return len(block)
