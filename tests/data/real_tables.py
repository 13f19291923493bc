"""Tables as people have them: each is refused with one message, and read with the option that it names."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

ROWS = 300
START = datetime(2024, 1, 1)


def number(row: int) -> float:
    """1234.5, 1235.5, ..."""
    return 1234.5 + row


@dataclass(frozen=True)
class RealTable:
    """One table.

    Attributes:
        content: of the file.
        says: the whole message without options; empty for a table that is read at once.
        options: keywords of ``load_data`` that read it, which are those that the message names.
        values: what variate ``a`` is then; ``b`` is the number of the row.
        first: time of the first row, in UTC where a zone is known.
        changed: fields of ``Filled``.
        file: its name.
        named: whether the message names the options, or only says what to do.
    """

    content: bytes
    says: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, ...] = tuple(number(row) for row in range(ROWS))
    first: str = "2024-01-01T00:00:00.000000"
    changed: Mapping[str, Any] = field(default_factory=dict)
    file: str = "x.csv"
    named: bool = True


def hour(row: int) -> str:
    """ISO 8601."""
    return str(START + timedelta(hours=row))


def table(
    *,
    sep: str = ",",
    header: str = "date,a,b",
    time: Callable[[int], str] = hour,
    a: Callable[[int], str] = lambda row: str(number(row)),
    rows: int = ROWS,
    encoding: str = "utf-8",
) -> bytes:
    """Rows of a time, ``a`` and the number of the row."""
    lines = [header.replace(",", sep), *(sep.join((time(row), a(row), str(row))) for row in range(rows))]
    return "\n".join([*lines, ""]).encode(encoding)


def european(row: int) -> str:
    """1.234,5"""
    return f"{number(row):,.1f}".replace(",", "_").replace(".", ",").replace("_", ".")


def comma(row: int) -> str:
    """1234,5"""
    return f"{number(row):.1f}".replace(".", ",")


def berlin(first: datetime, minutes: int = 60) -> Callable[[int], str]:
    """What a clock in Berlin shows, from a time in UTC on."""

    def show(row: int) -> str:
        utc = (first + timedelta(minutes=minutes * row)).replace(tzinfo=UTC)
        return f"{utc.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m-%d %H:%M}"

    return show


def workbook(*, sheet: str = "Sheet1", texts: bool = False) -> bytes:
    """An Excel workbook with the table on its last sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    page = book.active
    if sheet != "Sheet1":
        page.append(["read", "me"])
        page = book.create_sheet(sheet)
    page.append(["date", "a", "b"])
    for row in range(ROWS):
        page.append([START + timedelta(hours=row), comma(row) if texts else number(row), row])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def shuffled(content: bytes) -> bytes:
    """The rows of a table in another order."""
    header, *lines = content.decode().splitlines()
    return "\n".join([header, *sorted(lines, key=lambda line: line[::-1]), ""]).encode()


def doubled(content: bytes, *numbers: int) -> bytes:
    """These rows once more, ten higher in ``a``."""
    header, *lines = content.decode().splitlines()
    again = []
    for place, line in enumerate(lines):
        again.append(line)
        if place in numbers:
            time, a, b = line.split(",")
            again.append(f"{time},{float(a) + 10},{b}")
    return "\n".join([header, *again, ""]).encode()


def cells(**at: str) -> Callable[[int], str]:
    """``a`` with other cells at ``r7`` and so on."""
    return lambda row: at.get(f"r{row}", str(number(row)))


def means(*numbers: int) -> tuple[float, ...]:
    """``a`` with rows that were averaged with one ten higher."""
    return tuple(number(row) + (5 if row in numbers else 0) for row in range(ROWS))


CHANGE = (
    "this is an hour that the clock of Europe/Berlin {how}: for local time add --zone Europe/Berlin, "
    "or the name of your zone; otherwise "
)
TWICE = "keep one row per timestamp, or add --duplicates mean or --duplicates first"
FILL = "repair the file, or fill with --missing ffill or --missing interpolate"

REAL: dict[str, RealTable] = {
    "semicolons and decimal commas": RealTable(
        table(sep=";", a=comma),
        "x.csv: fields are separated by semicolons, expected commas "
        "(this looks like a semicolon table with decimal commas; add --csv 'sep=;,decimal=,')",
        {"csv": "sep=;,decimal=,"},
    ),
    "semicolons": RealTable(
        table(sep=";"),
        "x.csv: fields are separated by semicolons, expected commas "
        "(this looks like a semicolon table; add --csv 'sep=;')",
        {"csv": "sep=;"},
    ),
    "tabs in a .csv": RealTable(
        table(sep="\t"),
        "x.csv: fields are separated by tabs, expected commas (this looks like a tab table; add "
        "--csv sep=tab)",
        {"csv": "sep=tab"},
    ),
    "bars": RealTable(
        table(sep="|"),
        "x.csv: fields are separated by bars, expected commas "
        "(this looks like a bar table; add --csv 'sep=|')",
        {"csv": "sep=|"},
    ),
    "commas in a .tsv": RealTable(
        table(),
        "x.tsv: fields are separated by commas, expected tabs (this looks like a comma table; add "
        "--csv sep=,)",
        {"csv": "sep=,"},
        file="x.tsv",
    ),
    "a .tsv": RealTable(table(sep="\t"), file="x.tsv"),
    "thousands": RealTable(
        table(sep=";", a=european),
        "x.csv: fields are separated by semicolons, expected commas (this looks like a semicolon table with "
        "decimal commas and points between thousands; add --csv 'sep=;,decimal=,,thousands=.')",
        {"csv": "sep=;,decimal=,,thousands=."},
    ),
    "quoted decimal commas": RealTable(
        table(a=lambda row: f'"{comma(row)}"'),
        "x.csv: row 2, column 'a' is '1234,5', expected a number "
        "(this looks like a table with decimal commas; add --csv decimal=,)",
        {"csv": "decimal=,"},
    ),
    "quoted thousands": RealTable(
        table(a=lambda row: f'"{number(row):,.1f}"'),
        "x.csv: row 2, column 'a' is '1,234.5', expected a number "
        "(this looks like a table with commas between thousands; add --csv thousands=,)",
        {"csv": "thousands=,"},
    ),
    "blanks between thousands": RealTable(
        table(sep=";", a=lambda row: f"{number(row):,.1f}".replace(",", "\u202f").replace(".", ",")),
        "x.csv: fields are separated by semicolons, expected commas (this looks like a semicolon table with "
        "decimal commas and blanks between thousands; add --csv 'sep=;,decimal=,,thousands=space')",
        {"csv": "sep=;,decimal=,,thousands=space"},
    ),
    "dd/mm/yyyy": RealTable(
        table(time=lambda row: f"{START + timedelta(hours=row):%d/%m/%Y %H:%M}"),
        "x.csv: row 290, column 'date' is '13/01/2024 00:00', expected a timestamp in the format of the rows "
        "before (this looks like a table with dates as dd/mm/yyyy; add --csv dates=dd/mm/yyyy)",
        {"csv": "dates=dd/mm/yyyy"},
    ),
    "AM and PM": RealTable(table(time=lambda row: f"{START + timedelta(hours=row):%m/%d/%Y %I:%M %p}")),
    "AM and PM, days first": RealTable(
        table(time=lambda row: f"{START + timedelta(hours=row):%d/%m/%Y %I:%M:%S %p}"),
        "x.csv: row 290, column 'date' is '13/01/2024 12:00:00 AM', expected a timestamp in the "
        "format of the "
        "rows before (this looks like a table with dates as dd/mm/yyyy; add --csv dates=dd/mm/yyyy)",
        {"csv": "dates=dd/mm/yyyy"},
    ),
    "days with dots": RealTable(table(time=lambda row: f"{START + timedelta(hours=row):%d.%m.%Y %H:%M}")),
    "years of two digits": RealTable(
        table(time=lambda row: f"{START + timedelta(hours=row):%d.%m.%y %H:%M}"),
        options={"csv": "dates=dd.mm.yy"},
        says="x.csv: column 'date' holds '01.01.24 00:00', expected timestamps such as 2016-07-01 00:00:00 "
        "(this looks like a table with dates as dd.mm.yy; add --csv dates=dd.mm.yy)",
    ),
    "latin-1": RealTable(
        table(header="date,a,b,\u00b0C", time=hour, encoding="latin-1").replace(b"\n20", b",0\n20").replace(
            b"\xb0C,0\n", b"\xb0C\n"
        )[:-1] + b",0\n",
        "x.csv is not a CSV file in UTF-8: invalid start byte "
        "(this looks like latin-1; add --csv encoding=latin-1)",
        {"csv": "encoding=latin-1", "variates": "a,b"},
        named=False,
    ),
    "utf-16": RealTable(
        table(encoding="utf-16"),
        "x.csv is not a CSV file in UTF-8: invalid start byte (this looks like utf-16; add --csv "
        "encoding=utf-16)",
        {"csv": "encoding=utf-16"},
    ),
    "a byte order mark": RealTable(table(encoding="utf-8-sig")),
    "the time by its name": RealTable(
        table(header="hour,a,b", time=lambda row: str(1704067200 + 3600 * row)),
        options={"csv": "time=hour"},
    ),
    "newest first": RealTable(
        b"\n".join([b"date,a,b", *table().splitlines()[:0:-1], b""]),
        "x.csv: row 3 has the timestamp 2024-01-13 10:00:00 after 2024-01-13 11:00:00, expected "
        "ascending order "
        "(sort the file by time, or add --sort)",
        {"sort": True},
        changed={"moved": ROWS - 1},
    ),
    "shuffled": RealTable(
        shuffled(table()),
        "x.csv: row 5 has the timestamp 2024-01-01 10:00:00 after 2024-01-09 08:00:00, expected "
        "ascending order "
        "(sort the file by time, or add --sort)",
        {"sort": True},
        changed={"moved": 279},
    ),
    "repeated rows": RealTable(
        doubled(table(), 7, 8, 250),
        f"x.csv: row 10 has the timestamp 2024-01-01 07:00:00 like the row before it ({TWICE})",
        {"duplicates": "mean"},
        values=means(7, 8, 250),
        changed={"merged": 3},
    ),
    "repeated rows, the first kept": RealTable(
        doubled(table(), 7, 8, 250),
        f"x.csv: row 10 has the timestamp 2024-01-01 07:00:00 like the row before it ({TWICE})",
        {"duplicates": "first"},
        changed={"merged": 3},
    ),
    "the hour that autumn repeats": RealTable(
        table(time=berlin(datetime(2024, 10, 25))),
        "x.csv: row 51 has the timestamp 2024-10-27 02:00:00 like the row before it "
        f"({CHANGE.format(how='repeats')}{TWICE})",
        {"zone": "Europe/Berlin"},
        first="2024-10-25T00:00:00.000000",
    ),
    "the hour that autumn repeats, in quarters": RealTable(
        table(time=berlin(datetime(2024, 10, 26, 12), 15)),
        "x.csv: row 54 has the timestamp 2024-10-27 02:00:00 after 2024-10-27 02:45:00, expected "
        "ascending order "
        f"({CHANGE.format(how='repeats')}sort the file by time, or add --sort)",
        {"zone": "Europe/Berlin"},
        first="2024-10-26T12:00:00.000000",
    ),
    "the hour that spring skips": RealTable(
        table(time=berlin(datetime(2024, 3, 30))),
        "x.csv: row 27 has the timestamp 2024-03-31 03:00:00: 1 missing after 2024-03-31 01:00:00 "
        "at the step h "
        f"({CHANGE.format(how='skips')}{FILL})",
        {"zone": "Europe/Berlin"},
        first="2024-03-30T00:00:00.000000",
    ),
    "an empty cell": RealTable(
        table(a=cells(r9="")),
        f"x.csv: row 11, column 'a' is empty or NaN, expected a number ({FILL})",
        {"missing": "interpolate"},
        changed={"cells": 1, "share": 1 / ROWS, "variate": "a"},
    ),
    "a gap": RealTable(
        table(time=lambda row: hour(row + (row >= 100))),
        "x.csv: row 102 has the timestamp 2024-01-05 05:00:00: 1 missing after 2024-01-05 03:00:00 "
        "at the step h "
        f"({FILL})",
        {"missing": "ffill"},
        values=(*(number(row) for row in range(100)), *(number(row) for row in range(99, ROWS))),
        changed={"rows": 1, "share": 1 / (ROWS + 1), "variate": "a"},
    ),
    "a late start": RealTable(
        table(a=cells(**{f"r{row}": "" for row in range(20)})),
        f"x.csv: row 2, column 'a' is empty or NaN, expected a number ({FILL})",
        {"missing": "interpolate"},
        values=tuple(number(row) for row in range(20, ROWS)),
        first="2024-01-01T20:00:00.000000",
        changed={"trimmed": (20, 0), "begun_by": "a"},
    ),
    "an empty end": RealTable(
        table(rows=ROWS - 9)
        + "".join(f"{hour(row)},,\n" for row in range(291, 300)).encode(),
        f"x.csv: row 293, column 'a' is empty or NaN, expected a number ({FILL})",
        {"missing": "ffill"},
        values=tuple(number(row) for row in range(ROWS - 9)),
        changed={"trimmed": (0, 9)},
    ),
    "a column of text": RealTable(
        table(header="date,a,b,note").replace(b"\n2024", b",so-so\n2024").replace(b"note,so-so", b"note")[:-1]
        + b",so-so\n",
        "x.csv: row 2, column 'note' is 'so-so', expected a number "
        "(repair the cell, or choose the numeric columns with --variates a,b)",
        {"variates": "a,b"},
    ),
    "a workbook": RealTable(workbook(), file="x.xlsx"),
    "another sheet": RealTable(
        workbook(sheet="Meter"),
        "x.xlsx has a header but no rows (expected rows of numbers below the header)",
        {"csv": "sheet=Meter"},
        file="x.xlsx",
        named=False,
    ),
    "a workbook of texts": RealTable(
        workbook(texts=True),
        "x.xlsx: row 2, column 'a' is '1234,5', expected a number "
        "(this looks like a table with decimal commas; add --csv decimal=,)",
        {"csv": "decimal=,"},
        file="x.xlsx",
    ),
}  # fmt: skip
