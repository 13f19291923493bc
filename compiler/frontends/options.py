"""The caller's options of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..base.errors import TeacherError
from .settings import known_options


def choose(family: str, given: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Every option of a family: as given, else its first choice.

    Raises:
        TeacherError: an option that the family does not have, or a value that is not among the choices.
    """
    known_options(family, given, choices)
    chosen = {name: given.get(name, values[0]) for name, values in choices.items()}
    for name, value in chosen.items():
        if value not in choices[name]:
            expected = " or ".join(map(repr, choices[name]))
            raise TeacherError(f"teacher family {family}: {name} is {value!r}, expected {expected}")
    return chosen
