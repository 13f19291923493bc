"""Typed reading of an upstream ``config.json``: every refusal names the family, the field and its value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

from ..base.errors import TeacherError

LARGEST = 1 << 20
"""No width, number of layers or length of a published model comes near."""


class Settings:
    """The fields of one configuration.

    Args:
        family: name of the frontend, for messages.
        config: the parsed ``config.json`` or a table in it.
    """

    def __init__(self, family: str, config: Mapping[str, Any]) -> None:
        self.family = family
        self.config = config

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """An integer from ``minimum`` to ``LARGEST``; the default stands in for a missing or null field."""
        value = self.config.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise TeacherError(
                f"{self.family} config: {name} is {value!r}, expected an integer of at least {minimum}"
            )
        if value > LARGEST:
            raise TeacherError(f"{self.family} config: {name} is {value}, expected at most {LARGEST}")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite positive number."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise TeacherError(f"{self.family} config: {name} is {value!r}, expected a positive number")
        return float(value)

    def table(self, name: str) -> Settings:
        """A nested object."""
        value = self.config.get(name)
        if not isinstance(value, Mapping):
            raise TeacherError(f"{self.family} config: {name} is {value!r}, expected an object")
        return Settings(self.family, value)

    def levels(self, name: str) -> tuple[float, ...]:
        """Quantile levels: ascending numbers strictly between 0 and 1."""
        value = self.config.get(name)
        if isinstance(value, list | tuple) and all(isinstance(level, int | float) for level in value):
            levels = tuple(float(level) for level in value)
            bounded = (0.0, *levels, 1.0)
            if levels and all(low < high for low, high in pairwise(bounded)):
                return levels
        raise TeacherError(
            f"{self.family} config: {name} is {value!r}, expected ascending quantile levels between 0 and 1"
        )

    def only(self, name: str, *allowed: Any) -> None:
        """Refuses a field with another value than ``allowed``; a missing field counts as the first."""
        value = self.config.get(name, allowed[0])
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise TeacherError(
                f"{self.family} config: {name}={value!r} is not implemented,"
                f" expected {' or '.join(repr(one) for one in allowed)}"
            )


def known_options(family: str, options: Mapping[str, Any], known: Collection[str] = ()) -> None:
    """Refuses a family option that does not exist.

    Raises:
        TeacherError: naming the option and those the family has.
    """
    for name in options:
        if name not in known:
            have = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise TeacherError(f"teacher family {family} has no option {name!r}", hint=have)
