"""What a table looks like, for a proposal: nothing is ever read by a guess alone.

A guess is made from some lines, or from the cells of one column, and ends up in a message as the option that
would read the file.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence

from .cells import is_empty
from .dialect import PLAIN, Dialect, dialect_text, plain_number
from .remedies import RepairableError, options_text

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_NUMBERS = (
    PLAIN,
    PLAIN._replace(decimal=","),
    PLAIN._replace(thousands=","),
    PLAIN._replace(decimal=",", thousands="."),
    *(PLAIN._replace(decimal=mark, thousands=sign) for mark in ".," for sign in " '"),
)
"""Notations of numbers, the usual ones first: a column is read by the first that reads all of it."""
_GROUPED = (PLAIN, PLAIN._replace(thousands=","), *_NUMBERS[1:])
"""The same where a comma is more likely between thousands, as in 1,234 where no semicolon splits cells."""
_ONLY_TEXT = re.compile(rb"[^\x00-\x08\x0e-\x1f\x7f]*")
CP1252_ONLY = re.compile(rb"[\x80-\x9f]")


def guess_layout(lines: Sequence[str], given: Dialect, usual: str) -> Dialect | None:
    """The dialect of some lines, the header first, where one separator splits them all alike; else None.

    ``usual`` is the separator of a file of this name.
    """
    best: tuple[int, Dialect | None] = (1, None)
    for sign in _SEPARATORS:
        rows = [row for row in csv.reader(lines, delimiter=sign) if row]
        widths = Counter(len(row) for row in rows)
        if len(widths) == 1 and len(rows[0]) > best[0]:
            columns = list(zip(*rows[1:], strict=True))
            found = given._replace(sep="" if sign == usual else sign)
            numbers = [each for column in columns if (each := guess_numbers(column, found))]
            # A column with thousands says more than one of small numbers.
            best = len(rows[0]), max(numbers, key=lambda each: len(each.thousands), default=found)
    return best[1]


def guess_numbers(cells: Sequence[str], given: Dialect) -> Dialect | None:
    """``given`` with the notation of numbers that reads all cells, where its own does not; else None."""
    texts = [cell for cell in cells if isinstance(cell, str) and not is_empty(cell)]
    if not texts or all(plain_number(text, given) is not None for text in texts):
        return None
    for notation in _NUMBERS if given.sep == ";" else _GROUPED:
        found = given._replace(decimal=notation.decimal, thousands=notation.thousands)
        if all(plain_number(text, found) is not None for text in texts):
            return found
    return None


def guess_encoding(block: bytes) -> str | None:
    """The encoding of a block that is not UTF-8; None for one that is no text."""
    if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if not _ONLY_TEXT.fullmatch(block):
        return None
    return "cp1252" if CP1252_ONLY.search(block) else "latin-1"


def describe(dialect: Dialect) -> str:
    """``a semicolon table with decimal commas``."""
    words = [f"a {_SEPARATORS.get(dialect.sep, repr(dialect.sep))} table" if dialect.sep else "a table"]
    if dialect.decimal == ",":
        words.append("decimal commas")
    if dialect.thousands:
        sign = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes"}[dialect.thousands]
        words.append(f"{sign} between thousands")
    if dialect.dates:
        words.append(f"dates as {dialect.dates}")
    return words[0] + (" with " + " and ".join(words[1:]) if words[1:] else "")


def propose(what: str, found: Dialect) -> RepairableError:
    """``what`` is wrong, and the table looks like ``found``."""
    remedy = {"csv": dialect_text(found)}
    return RepairableError(
        what, hint=f"this looks like {describe(found)}; add {options_text(remedy)}", remedy=remedy
    )
