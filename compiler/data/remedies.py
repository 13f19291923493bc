"""Refusals with a way out: the options that read the file, for a person to type and a program to try."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..base.errors import DataError


class RepairableError(DataError):
    """A file that can be read once it is said how.

    Args:
        what: what is wrong.
        hint: what to do, with the options in the words of ``options_text``.
        remedy: keyword of ``load_data`` -> the value with which it reads on.
    """

    def __init__(self, what: str, *, hint: str, remedy: Mapping[str, str | bool]) -> None:
        super().__init__(what, hint=hint)
        self.remedy = dict(remedy)


def options_text(options: Mapping[str, str | bool | float]) -> str:
    """The options of the command line that say so: ``--csv 'sep=;,decimal=,' --sort``."""
    words = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(shlex.quote(str(value)))
    return " ".join(words)
