"""How a table is written: its separator, its numbers, its dates, its letters; one text says it all.

    sep=;,decimal=,,thousands=.,dates=dd/mm/yyyy,encoding=latin-1,time=Zeit,sheet=Meter

Items are separated by commas, and a value may be one: an item ends only where a comma is followed by the
next key and its ``=``.  So ``decimal=,`` needs no quotes of its own (a shell wants some for ``;``).  What is
hard to type has a word: comma, semicolon, tab, space, bar, dot, apostrophe.

Part of an artifact's ``run.py`` too, so it needs the standard library alone and reads on Python 3.8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple


class Dialect(NamedTuple):
    """How a table is written.  Empty is what is usual.

    Attributes:
        sep: one character between two cells; a comma, and in a ``.tsv`` a tab.
        decimal: ``.`` or ``,``.
        thousands: what groups digits by three: ``,``, ``.``, a blank or an apostrophe; nothing.
        dates: the order of a date, such as ``dd/mm/yyyy``; the time of day and its zone may follow it.
        encoding: one of ``ENCODINGS``.
        time: name of the column with the time, where it is not one of the usual.
        sheet: of a workbook; the first.
    """

    sep: str = ""
    decimal: str = "."
    thousands: str = ""
    dates: str = ""
    encoding: str = "utf-8"
    time: str = ""
    sheet: str = ""


PLAIN = Dialect()
ENCODINGS = (
    *("utf-8", "utf-16", "latin-1", "iso-8859-2", "iso-8859-15"),
    *("cp1250", "cp1251", "cp1252", "cp437", "cp850", "mac-roman", "shift-jis", "gb18030", "big5", "euc-kr"),
)
DIALECT_EXAMPLE = "sep=;,decimal=,"

_SIGNS = {
    "comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "space": " ", "bar": "|", "dot": ".",
    "point": ".", "apostrophe": "'", "none": "",
}  # fmt: skip
_TYPED = {"\t": "tab", " ": "space", "'": "apostrophe"}
_BLANKS = " \u00a0\u202f"
_DATE_PARTS = {"yyyy": "year", "yy": "year", "mm": "month", "m": "month", "dd": "day", "d": "day"}
_DATE_PART = re.compile("yyyy|yy|mm|m|dd|d")


def parse_dialect(text: str) -> Dialect:
    """The dialect that ``text`` says, see above.

    Raises:
        ValueError: an unknown key, one that occurs twice, or a value that it cannot have.
    """
    given: dict[str, str] = {}
    for item in re.split(rf",(?=(?:{'|'.join(Dialect._fields)})=)", text.strip()):
        key, equals, value = item.partition("=")
        if not equals or key not in Dialect._fields:
            raise ValueError(
                f"{item[:60]!r}: expected one of {', '.join(f'{name}=' for name in Dialect._fields)} "
                f"such as {DIALECT_EXAMPLE}"
            )
        if key in given:
            raise ValueError(f"{key}= occurs twice")
        given[key] = value
    return checked_dialect(given)


def checked_dialect(given: Mapping[str, Any]) -> Dialect:
    """The dialect of these fields.

    Raises:
        ValueError: an unknown field, or a value that it cannot have.
    """
    for name, value in given.items():
        if name not in Dialect._fields or not isinstance(value, str):
            raise ValueError(f"{name}: expected text under one of {', '.join(Dialect._fields)}")
    signs = {
        name: _SIGNS.get(given[name], given[name])
        for name in ("sep", "decimal", "thousands")
        if name in given
    }
    dialect = PLAIN._replace(**{**given, **signs})
    dialect = dialect._replace(encoding=_encoding(dialect.encoding), dates=dialect.dates.lower())
    if len(dialect.sep) > 1 or dialect.sep in tuple('"\r\n.-+') or dialect.sep.isalnum():
        raise ValueError(f"sep={dialect.sep[:20]!r}: expected one character such as ; or the word tab")
    if dialect.decimal not in tuple(".,"):
        raise ValueError(f"decimal={dialect.decimal[:20]!r}: expected . or ,")
    if dialect.thousands not in ("", ",", ".", " ", "'"):
        raise ValueError(f"thousands={dialect.thousands[:20]!r}: expected , or . or space or apostrophe")
    if dialect.thousands == dialect.decimal:
        raise ValueError(
            f"thousands={dialect.thousands}: expected another sign than decimal={dialect.decimal}"
        )
    if dialect.dates:
        date_pattern(dialect.dates)
    return dialect


def dialect_text(dialect: Dialect) -> str:
    """What ``parse_dialect`` reads as ``dialect``: the fields that are not as usual."""
    fields = zip(Dialect._fields, dialect, PLAIN)
    return ",".join(f"{name}={_TYPED.get(value, value)}" for name, value, usual in fields if value != usual)


def date_pattern(dates: str) -> str:
    """A regular expression for dates that are written so, with groups year, month and day.

    Raises:
        ValueError: a part is missing or occurs twice.
    """
    parts = _DATE_PART.findall(dates)
    named = [_DATE_PARTS[part] for part in parts]
    between = _DATE_PART.sub("", dates)
    if sorted(named) not in (["day", "month", "year"], ["month", "year"]) or re.search(r"[^-/. ,_]", between):
        raise ValueError(
            f"dates={dates[:40]!r}: expected an order of dd, mm and yyyy or yy such as dd/mm/yyyy"
        )
    digits = "{1,2}" if between else "{2}"
    width = {"yyyy": "{4}", "yy": "{2}"}
    text, end = "", 0
    for found in _DATE_PART.finditer(dates):
        part = found[0]
        text += (
            re.escape(dates[end : found.start()]) + rf"(?P<{_DATE_PARTS[part]}>\d{width.get(part, digits)})"
        )
        end = found.end()
    return text + re.escape(dates[end:])


def plain_number(cell: str, dialect: Dialect) -> str | None:
    """The number of a cell as a program writes it, or None where it is none in this dialect."""
    text = cell.strip()
    if not _number(dialect.decimal, dialect.thousands).fullmatch(text):
        return None
    for sign in _BLANKS if dialect.thousands == " " else dialect.thousands:
        text = text.replace(sign, "")
    return text.replace(dialect.decimal, ".")


@lru_cache(maxsize=None)
def _number(decimal: str, thousands: str) -> Any:
    point = re.escape(decimal)
    whole = r"\d+"
    if thousands:
        sign = f"[{_BLANKS}]" if thousands == " " else re.escape(thousands)
        whole = rf"(?:[1-9]\d{{0,2}}(?:{sign}\d{{3}})+|\d+)"
    return re.compile(rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _encoding(name: str) -> str:
    known = name.lower().replace("_", "-")
    known = {"utf8": "utf-8", "utf-8-sig": "utf-8", "iso-8859-1": "latin-1", "latin1": "latin-1"}.get(
        known, known
    )
    known = {"windows-1252": "cp1252", "utf16": "utf-16", "utf-16-le": "utf-16"}.get(known, known)
    if known not in ENCODINGS:
        raise ValueError(f"encoding={name[:40]!r}: expected one of {', '.join(ENCODINGS)}")
    return known
