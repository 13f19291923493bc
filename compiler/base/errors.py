"""One error tree.  Every error a user can cause names what, where, what was expected and what to do.

Exit codes: 0 ok, 1 our bug, 2 usage or recipe, 3 missing extra, toolchain or device,
4 a budget or gate missed, 5 verification failed, 6 licence policy violated, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

from .text import printable


class TsfmcError(Exception):
    """Base of every error that is reported in one line.

    Args:
        what: what is wrong, naming file, row or field, what was found and what was expected.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """One line, whatever the names and values in it are: see ``one_line``."""
        return one_line(f"{self.what} ({self.hint})" if self.hint else self.what)


def one_line(text: str) -> str:
    """``text`` that a terminal prints on one line and a person can read.

    What is not printable is escaped, a word of more than ``WORD`` characters loses its middle, and so does
    the whole beyond ``LINE`` characters.
    """
    return shortened(printable(text))


def shortened(text: str) -> str:
    """``text`` without the middle of very long words, and of itself where it is very long."""
    words = (_shortened(word, WORD) for word in text.split(" "))
    return _shortened(" ".join(words), LINE)


WORD, LINE = 300, 4000
"""Lengths that names, paths and lists of what is known stay within, and pasted files do not."""


def _shortened(text: str, length: int) -> str:
    kept = length // 2 - 2
    return text if len(text) <= length else f"{text[:kept]}...{text[-kept:]}"


class UsageError(TsfmcError):
    """The command line or the arguments of a call cannot be carried out."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown field, a wrong type or an impossible value."""


class DataError(UsageError):
    """A data file, or the windows asked of it, cannot be used."""


class TeacherError(UsageError):
    """A checkpoint or its configuration cannot be used as a teacher."""


class PassError(UsageError):
    """A pass cannot run on this unit; the manager names the pass and all passes before it."""


class LoweringError(UsageError):
    """A target cannot take this program: an operator, a shape or a precision."""


class MissingError(TsfmcError):
    """An extra, a toolchain, a file or a device is not there."""

    exit_code = 3


class DiskError(TsfmcError):
    """A file or folder cannot be used as the system is: read-only, full, not allowed, not of its kind."""

    exit_code = 3


class EngineError(TsfmcError):
    """The engine that tasks run on is not there, is another one, or loses its workers."""

    exit_code = 3


class PluginError(TsfmcError):
    """A plugin of another package cannot be imported, or is not what its entry point says."""

    exit_code = 3


class BudgetError(TsfmcError):
    """A budget or a gate is missed.

    Attributes:
        result: what was made and measured all the same, for whoever shows it before the miss; or None.
    """

    exit_code = 4

    def __init__(self, what: str, *, hint: str = "", result: object = None) -> None:
        super().__init__(what, hint=hint)
        self.result = result


class VerificationError(TsfmcError):
    """An artifact or a stored result is broken, truncated or edited, or parity failed."""

    exit_code = 5


class LicenceError(TsfmcError):
    """The licence policy forbids this teacher."""

    exit_code = 6


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UsageError:
    """An error for a name that no registry has: lists what exists and the nearest name."""
    names = sorted(known)
    nearest = get_close_matches(got, names, n=1, cutoff=0.4)
    guess = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UsageError(f"unknown {kind} {got!r}", hint=f"{guess}known: {', '.join(names)}")
