"""One table of rows, good and bad: ``run.py`` and ``tsfmc forecast`` answer each of them alike.

The artifacts behind it give back their window as the forecast: lookback 4, horizon 4, variates
``a`` and ``b`` (``=b`` for the last one), so that what is printed is what was read.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

HEADER = "date,a,b"
A, B = [1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]


@dataclass(frozen=True)
class Good:
    """``first`` and ``second`` are the first stamps of the forecast, ``a`` and ``b`` the window."""

    content: str | bytes
    first: str = "2024-02-01 00:00:00"
    second: str = "2024-02-01 01:00:00"
    index: str = "date"
    a: tuple[float, ...] = tuple(A)
    b: tuple[float, ...] = tuple(B)
    missing: str | None = None
    cells: int = 0
    rows: int = 0
    step: str = "h"
    compiles: bool = True
    file: str = "past.csv"
    options: tuple[str, ...] = ()
    merged: int = 0


@dataclass(frozen=True)
class Bad:
    """``says`` is what the one line of error must hold."""

    content: str | bytes
    says: str
    missing: str | None = None
    step: str = "h"
    file: str = "past.csv"
    options: tuple[str, ...] = ()


def rows(*times: str, header: str = HEADER, a: list[str] | None = None, line: str = "{t},{a},{b}") -> str:
    """Rows at these times; ``a`` and ``b`` count up to 4 and 40 at the last one."""
    count = len(times)
    numbers = a or [str(place - count + 5) for place in range(count)]
    b = [str(10 * (place - count + 5)) for place in range(count)]
    body = (line.format(t=t, a=x, b=y) for t, x, y in zip(times, numbers, b, strict=True))
    return "\n".join([header, *body]) + "\n"


def numbered(*cells: tuple[str, object, object]) -> str:
    """These rows under the header."""
    return "".join((HEADER + "\n", *(f"{time},{a},{b}\n" for time, a, b in cells)))


H20, H21, H22, H23 = (f"2024-01-31 {hour}:00:00" for hour in (20, 21, 22, 23))
H16, H17, H18, H19 = (f"2024-01-31 {hour}:00:00" for hour in (16, 17, 18, 19))
HOURS = (H20, H21, H22, H23)
EIGHT = (H16, H17, H18, H19, *HOURS)
PLAIN = rows(*HOURS)
UNIX = 1_706_731_200  # 2024-01-31 20:00:00 UTC


def unix(scale: int) -> str:
    """Unix time in ticks of ``1 / scale`` seconds."""
    return rows(*(str((UNIX + 3600 * hour) * scale) for hour in range(4)))


GOOD: dict[str, Good] = {
    "plain": Good(PLAIN),
    "byte order mark": Good("\ufeff" + PLAIN),
    "CRLF": Good(PLAIN.replace("\n", "\r\n")),
    "quoted cells": Good(rows(*HOURS, header='"date","a","b"', line='"{t}","{a}","{b}"')),
    "trailing commas": Good(rows(*HOURS, header="date,a,b,", line="{t},{a},{b},"), compiles=False),
    "blanks around cells": Good(
        rows(*HOURS, header=" date , a , b ", line="{t} , {a} , {b}"), compiles=False
    ),
    "blank lines": Good(PLAIN.replace("\n", "\n\n") + "\n\n   \n", compiles=False),
    "no newline at the end": Good(PLAIN.rstrip("\n")),
    "packed": Good(gzip.compress(PLAIN.encode()), file="past.csv.gz"),
    "header in another order": Good(rows(*HOURS, header="b,date,a", line="{b},{t},{a}")),
    "other columns": Good(rows(*HOURS, header="x,date,a,note,b", line="9,{t},{a},so-so,{b}")),
    "exponents and signs": Good(rows(*HOURS, a=["+1", "2.", ".3e1", "4e-0"])),
    "huge and tiny": Good(rows(*HOURS, a=["1e30", "-1e30", "1e-30", "4"]), a=(1e30, -1e30, 1e-30, 4)),
    "time column in capitals": Good(rows(*HOURS, header="DS,a,b"), index="DS"),
    "time column by its cells": Good(rows(*HOURS, header="when,a,b"), index="when"),
    "time column last": Good(rows(*HOURS, header="a,b,time", line="{a},{b},{t}"), index="time"),
    "no time column": Good("a,b\n1,10\n2,20\n3,30\n4,40\n", "1", "2", "step"),
    "unknown step": Good(
        rows("2024-01-01", "2024-01-03", "2024-01-04", "2024-01-31"),
        *("1", "2", "step"),
        step="",
        compiles=False,
    ),
    "only the lookback counts": Good(
        rows("soon", H19, *HOURS, a=["x", "", "1", "2", "3", "4"]), compiles=False
    ),
    "T and fractions": Good(rows(*(f"2024-01-31T{hour}:00:00.000" for hour in range(20, 24)))),
    "without seconds": Good(rows(*(f"2024-01-31 {hour}:00" for hour in range(20, 24)))),
    "zone Z": Good(
        rows(*(f"2024-01-31T{hour}:00:00Z" for hour in range(20, 24))),
        "2024-02-01 00:00:00+00:00",
        "2024-02-01 01:00:00+00:00",
    ),
    "zone +02:00": Good(
        rows(*(f"{time}+02:00" for time in HOURS)), "2024-02-01 00:00:00+02:00", "2024-02-01 01:00:00+02:00"
    ),
    "zone -05:30": Good(
        rows(*(f"{time}-0530" for time in HOURS)), "2024-02-01 00:00:00-05:30", "2024-02-01 01:00:00-05:30"
    ),
    "zones over a change of the clock": Good(
        rows(
            "2024-03-31 00:00:00+01:00",
            "2024-03-31 01:00:00+01:00",
            "2024-03-31 03:00:00+02:00",
            "2024-03-31 04:00:00+0200",
        ),
        "2024-03-31 05:00:00+02:00",
        "2024-03-31 06:00:00+02:00",
    ),
    "Unix seconds": Good(unix(1), str(UNIX + 4 * 3600), str(UNIX + 5 * 3600)),
    "Unix milliseconds": Good(unix(10**3), str((UNIX + 4 * 3600) * 10**3), str((UNIX + 5 * 3600) * 10**3)),
    "Unix nanoseconds": Good(unix(10**9), str((UNIX + 4 * 3600) * 10**9), str((UNIX + 5 * 3600) * 10**9)),
    "year first with slashes": Good(rows(*(time.replace("-", "/") for time in HOURS))),
    "days with dots": Good(rows(*(f"31.01.2024 {hour}:00" for hour in range(20, 24)))),
    "months with slashes": Good(rows(*(f"01/31/2024 {hour}:00" for hour in range(20, 24)))),
    "days with slashes": Good(rows(*(f"31/01/2024 {hour}:00" for hour in range(20, 24)))),
    "days with slashes, seen late": Good(
        rows("12/01/2024", "13/01/2024", "14/01/2024", "15/01/2024"),
        "2024-01-16 00:00:00",
        "2024-01-17 00:00:00",
        step="D",
        compiles=False,
    ),
    "twelve hours": Good(
        rows("1/31/2024 8:00 PM", "1/31/2024 9:00 PM", "1/31/2024 10:00 PM", "1/31/2024 11:00 PM"),
        compiles=False,
    ),
    "days": Good(
        rows("2024-02-26", "2024-02-27", "2024-02-28", "2024-02-29"),
        "2024-03-01 00:00:00",
        "2024-03-02 00:00:00",
        step="D",
    ),
    "weeks": Good(
        rows("2024-02-06", "2024-02-13", "2024-02-20", "2024-02-27"),
        "2024-03-05 00:00:00",
        "2024-03-12 00:00:00",
        step="W-TUE",
    ),
    "month ends": Good(
        rows("2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31"),
        "2024-02-29 00:00:00",
        "2024-03-31 00:00:00",
        step="ME",
    ),
    "quarters": Good(
        rows("2023-04-01", "2023-07-01", "2023-10-01", "2024-01-01"),
        "2024-04-01 00:00:00",
        "2024-07-01 00:00:00",
        step="QS-OCT",
    ),
    "business days": Good(
        rows("2024-01-31", "2024-02-01", "2024-02-02", "2024-02-05"),
        "2024-02-06 00:00:00",
        "2024-02-07 00:00:00",
        step="B",
    ),
    "ffill an empty cell": Good(
        rows(*HOURS, a=["1", "", "NA", "4"]), a=(1, 1, 1, 4), missing="ffill", cells=2
    ),
    "interpolate empty cells": Good(rows(*HOURS, a=["1", "nan", "", "4"]), missing="interpolate", cells=2),
    "the last cell repeats": Good(
        rows(*HOURS, a=["1", "2", "3", "null"]), a=(1, 2, 3, 3), missing="interpolate", cells=1
    ),
    "fill from before the window": Good(
        rows(H19, *HOURS, a=["7", "", "2", "3", "4"]), a=(7, 2, 3, 4), missing="ffill", cells=1
    ),
    "ffill a missing row": Good(
        rows(H19, H20, H22, H23, a=["9", "1", "3", "4"]), a=(1, 1, 3, 4), b=(20, 20, 30, 40),
        missing="ffill", rows=1,
    ),
    "interpolate a missing row": Good(
        rows(H19, H20, H22, H23, a=["9", "1", "3", "4"]), a=(1, 2, 3, 4), b=(20, 25, 30, 40),
        missing="interpolate", rows=1,
    ),
    "what is filled before the window does not count": Good(
        rows(H16, H18, *HOURS), missing="ffill", compiles=False
    ),
    "semicolons and decimal commas": Good(
        rows(*HOURS, header="date;a;b", a=["1,0", "2", "3,0", "4,0"], line="{t};{a};{b}"),
        options=("--csv", "sep=;,decimal=,"),
        compiles=False,
    ),
    "thousands": Good(
        rows(*HOURS, header="date;a;b", a=["1.234,5", "2", "3", "1.234.567"], line="{t};{a};{b}"),
        a=(1234.5, 2, 3, 1234567),
        options=("--csv", "sep=;,decimal=,,thousands=."),
        compiles=False,
    ),
    "tabs by their word": Good(
        rows(*HOURS, header="date\ta\tb", line="{t}\t{a}\t{b}"), options=("--csv", "sep=tab"), compiles=False
    ),
    "tabs in a .tsv": Good(
        rows(*HOURS, header="date\ta\tb", line="{t}\t{a}\t{b}"), file="past.tsv", compiles=False
    ),
    "days first as stated": Good(
        rows("01/02/2024 8:00 PM", "01/02/2024 9:00 PM", "01/02/2024 10:00 PM", "01/02/2024 11:00 PM"),
        "2024-02-02 00:00:00",
        "2024-02-02 01:00:00",
        options=("--csv", "dates=dd/mm/yyyy"),
        compiles=False,
    ),
    "latin-1": Good(
        rows(*HOURS, header="date,a,b,\xb0C", line="{t},{a},{b},1").encode("latin-1"),
        options=("--csv", "encoding=latin-1"),
        compiles=False,
    ),
    "the time by its name": Good(
        rows(*HOURS, header="date,a,b,when", line="2020-01-01,{a},{b},{t}"),
        index="when",
        options=("--csv", "time=when"),
        compiles=False,
    ),
    "renamed columns": Good(
        rows(*HOURS, header="date,load,b"), options=("--rename", "load=a"), compiles=False
    ),
    "two columns change their names": Good(
        rows(*HOURS, header="date,b,a"),
        options=("--rename", "a=b", "--rename", "b=a"),
        compiles=False,
    ),
    "newest first": Good(
        PLAIN.splitlines()[0] + "\n" + "\n".join(PLAIN.splitlines()[:0:-1]) + "\n",
        options=("--sort",),
        compiles=False,
    ),
    "the latest rows of many, in any order": Good(
        numbered((H22, 3, 30), (H18, 8, 80), (H23, 4, 40), (H20, 1, 10), (H21, 2, 20)),
        options=("--sort",),
        compiles=False,
    ),
    "repeated times, averaged": Good(
        numbered((H20, 1, 10), (H21, 1, ""), (H21, 3, 20), (H22, 3, 30), (H23, 4, 40)),
        options=("--duplicates", "mean"), missing="ffill", merged=1, compiles=False,
    ),
    "repeated times, the first kept": Good(
        numbered((H20, 1, 10), (H21, 2, 20), (H21, 9, 9), (H22, 3, 30), (H23, 4, 40)),
        options=("--duplicates", "first"), merged=1, compiles=False,
    ),
    "the hour that autumn repeats": Good(
        rows("2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"),
        "2024-10-27 04:00:00+01:00",
        "2024-10-27 05:00:00+01:00",
        options=("--zone", "Europe/Berlin"),
        compiles=False,
    ),
    "the hour that spring skips": Good(
        rows("2024-03-31 00:00", "2024-03-31 01:00", "2024-03-31 03:00", "2024-03-31 04:00"),
        "2024-03-31 05:00:00+02:00",
        "2024-03-31 06:00:00+02:00",
        options=("--zone", "Europe/Berlin"),
        compiles=False,
    ),
    "days know no hour": Good(
        rows("2024-10-25", "2024-10-26", "2024-10-27", "2024-10-28"),
        "2024-10-29 00:00:00",
        "2024-10-30 00:00:00",
        step="D",
        options=("--zone", "Europe/Berlin"),
        compiles=False,
    ),
    "a name that a spreadsheet would run": Good(
        rows(*HOURS, header="@date,a,'=b"), index="'@date", step="formula", compiles=False
    ),
}  # fmt: skip


def broken_gzip(text: str) -> bytes:
    """A stream whose first block says what no block is."""
    packed = bytearray(gzip.compress(text.encode()))
    packed[10] |= 0b110
    return bytes(packed)


def bomb(sign: bytes) -> bytes:
    """Nine million times the same."""
    return gzip.compress(sign * 9_000_000)


TWO_HOURS = rows(*(f"2024-01-31 {hour:02d}:00:00" for hour in range(0, 24, 2)))

BAD: dict[str, Bad] = {
    "another step": Bad(TWO_HOURS, "past.csv: most rows are 7200 s apart, the artifact's step is 3600 s"),
    "another step, filled": Bad(TWO_HOURS, "most rows are 7200 s apart", missing="interpolate"),
    "half the step": Bad(
        rows("2024-01-31 20:00", "2024-01-31 20:30", "2024-01-31 21:00", "2024-01-31 21:30"),
        "most rows are 1800 s apart",
    ),
    "hours for days": Bad(PLAIN, "most rows are 3600 s apart, the artifact's step is 86400 s", step="D"),
    "hours for months": Bad(PLAIN, "the artifact's step is 1 months, on the last day of one", step="ME"),
    "a repeated time": Bad(rows(H20, H21, H21, H22), "line 4: timestamp 2024-01-31 21:00:00 is 0 s after"),
    "descending": Bad(rows(*HOURS[::-1]), "line 3: timestamp 2024-01-31 22:00:00 is -3600 s after"),
    "off the step": Bad(rows(H20, H21, "2024-01-31 22:10:00", H23), "line 4: timestamp 2024-01-31 22:10:00"),
    "off the step, filled": Bad(
        rows(H20, H21, H22, "2024-01-31 23:30:00"), "is 5400 s after the row before", missing="ffill"
    ),
    "a missing row": Bad(rows(H19, H20, H22, H23), "line 4: timestamp 2024-01-31 22:00:00 is 7200 s after"),
    "a missing row says what to do": Bad(rows(H19, H20, H22, H23), "fill with --missing ffill or"),
    "a weekend in hours": Bad(rows("2024-01-31", "2024-02-01", "2024-02-02", "2024-02-03"),
                              "line 5: timestamp 2024-02-03 00:00:00", step="B"),
    "mixed zones": Bad(rows(H20, H21, f"{H22}Z", f"{H23}Z"), "line 4: times with and without a time zone"),
    "mixed notations": Bad(rows(H20, H21, "31.01.2024 22:00", H23), "line 4, column 'date': expected a time"),
    "no time": Bad(rows(H20, H21, "", H23), "line 4, column 'date': expected a time in the notation of the"),
    "the 31st of June": Bad(rows("2024-06-31", *HOURS[1:]), "line 2, column 'date': expected a time, got"),
    "steps in a time column": Bad(rows("1", "2", "3", "4"), "column 'date': expected a time, got '1'"),
    "dates as digits": Bad(rows("20240131", "20240201", "20240202", "20240203"), "expected a time, got"),
    "times as digits": Bad(rows("202401312000", "202401312100", "202401312200", "202401312300"), "got '2024"),
    "year 9999": Bad(rows(*(time.replace("2024-01", "9999-12") for time in HOURS)), "beyond the year 9999"),
    "months to year 9999": Bad(
        rows("9999-08-31", "9999-09-30", "9999-10-31", "9999-11-30"), "beyond the year 9999", step="ME"
    ),
    "an empty cell": Bad(rows(*HOURS, a=["1", "", "3", "4"]), "'a': expected a number, got ''; repair"),
    "text": Bad(rows(*HOURS, a=["1", "2", "3", "four"]), "line 5, column 'a': expected a number, got 'four'"),
    "text, filled": Bad(rows(*HOURS, a=["1", "2", "3", "four"]), "expected a number, got", missing="ffill"),
    "infinite": Bad(rows(*HOURS, a=["1", "2", "-inf", "4"]), "column 'a': expected a number, got '-inf'"),
    "infinite, filled": Bad(rows(*HOURS, a=["1", "2", "inf", "4"]), "got 'inf'", missing="interpolate"),
    "too large for float64": Bad(rows(*HOURS, a=["1", "1e999", "3", "4"]), "expected a number, got '1e999'"),
    "too large for the model": Bad(rows(*HOURS, a=["1", "1e60", "3", "4"]), "do not fit into float32"),
    "underscores": Bad(rows(*HOURS, a=["1", "2", "3", "4_000"]), "expected a number, got '4_000'"),
    "other digits": Bad(rows(*HOURS, a=["1", "2", "3", "\uff14"]), "expected a number, got"),
    "a decimal comma": Bad(
        rows(*HOURS, a=["1", "2", "3", '"4,5"']), "got '4,5'; for decimal commas add --csv decimal=comma"
    ),
    "a NUL": Bad(rows(*HOURS, a=["1", "2", "3", "4\0"]), "past.csv"),
    "a formula": Bad(rows(*HOURS, a=["1", "2", "3", "=1+1"]), "expected a number, got '=1+1'"),
    "few rows": Bad(rows(*HOURS[1:]), "has 3 rows, expected at least 4 (the lookback)"),
    "few rows, filled": Bad(rows(*HOURS[1:]), "has 3 rows, expected at least 4", missing="ffill"),
    "no rows": Bad(HEADER + "\n", "has 0 rows, expected at least 4"),
    "no rows, filled": Bad(HEADER + "\n", "has 0 rows, expected at least 4", missing="ffill"),
    "an empty file": Bad("", "column 'a' occurs 0 times in the header"),
    "no header": Bad(PLAIN.partition("\n")[2], "column 'a' occurs 0 times in the header, expected once"),
    "a missing column": Bad(rows(*HOURS, header="date,a,c"), "column 'b' occurs 0 times in the header"),
    "a repeated column": Bad(rows(*HOURS, header="b,a,b"), "column 'b' occurs 2 times in the header"),
    "another case": Bad(rows(*HOURS, header="date,A,b"), "column 'a' occurs 0 times in the header"),
    "semicolons": Bad(PLAIN.replace(",", ";"), "'date;a;b'; add --csv sep=semicolon if that"),
    "a surplus field": Bad(PLAIN.replace("3,30", "3,30,"), "line 4 has 4 fields, expected 3"),
    "a lacking field": Bad(PLAIN.replace("3,30", "3"), "line 4 has 2 fields, expected 3"),
    "an open quote": Bad(PLAIN.replace("3,30", '"3,30'), "cannot be read as CSV"),
    "not UTF-8": Bad(PLAIN.encode().replace(b"30", b"\xff"), "cannot be read as CSV"),
    "half a gzip": Bad(gzip.compress(PLAIN.encode())[:-9], "cannot be read as CSV", file="past.csv.gz"),
    "a broken gzip": Bad(broken_gzip(PLAIN), "cannot be read as CSV", file="past.csv.gz"),
    "a line without end": Bad(bomb(b"0"), "a line has more than 8388608 characters", file="past.csv.gz"),
    "lines without content": Bad(bomb(b"\n"), "more than 1048576 empty lines", file="past.csv.gz"),
    "no gzip": Bad(PLAIN, "cannot be read as CSV", file="past.csv.gz"),
    "nothing to fill from": Bad(
        rows(*EIGHT, a=["", "", "", "", "", "2", "3", "4"]),
        "variate 'a' has no value in the last 8 steps",
        missing="interpolate",
    ),
    "a repeated time names the way out": Bad(
        rows(H20, H21, H21, H22), "merge those of one time with --duplicates mean"
    ),
    "points between thousands as decimals": Bad(
        rows(*HOURS, a=["1", "2", "3", "12.34"]), "got '12.34'", options=("--csv", "decimal=,,thousands=.")
    ),
    "a dialect that is none": Bad(PLAIN, "colour=red': expected one of", options=("--csv", "colour=red")),
    "no such column to rename": Bad(PLAIN, "no column 'load' to rename", options=("--rename", "load=a")),
    "a renaming that is none": Bad(PLAIN, "expected old=new", options=("--rename", "load")),
    "no such zone": Bad(PLAIN, "unknown time zone 'Europe/Atlantis'", options=("--zone", "Europe/Atlantis")),
    "a zone with offsets": Bad(
        rows(*(f"{time}+01:00" for time in HOURS)), "leave --zone out", options=("--zone", "Europe/Berlin")
    ),
    "an hour that the clock skips": Bad(
        rows("2024-03-31 00:00", "2024-03-31 01:00", "2024-03-31 02:00", "2024-03-31 03:00"),
        "2024-03-31 02:00:00 is an hour that the clock of Europe/Berlin skips",
        options=("--zone", "Europe/Berlin"),
    ),
    "nothing to sort by": Bad("a,b\n1,10\n2,20\n3,30\n4,40\n", "no column with the", options=("--sort",)),
    "no such time column": Bad(PLAIN, "no column 'when' with the time", options=("--csv", "time=when")),
    "a gap longer than the lookback": Bad(
        rows("2024-01-30 10:00", "2024-01-30 11:00", "2024-01-30 12:00", "2024-01-30 13:00", H22, H23),
        "has no value in the last 8 steps",
        missing="ffill",
    ),
}  # fmt: skip
