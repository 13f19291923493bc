"""Rules: what a contract consists of, how it is checked, and how a breach reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ..base.errors import TsfmcError, VerificationError

S = TypeVar("S")


class ContractError(VerificationError):
    """Rules that do not hold, one a line."""

    def __str__(self) -> str:
        return self.what


class Breach(AssertionError):
    """A rule that does not hold; the message says what was found and what was expected."""


def expect(holds: object, found: str) -> None:
    """Raises ``Breach`` with what was found unless ``holds``."""
    if not holds:
        raise Breach(found)


class Rule(Generic[S]):
    """One promise of a contract: a name, a sentence, and a function that tries it on a subject."""

    def __init__(self, check: Callable[[S], None]) -> None:
        self.check = check
        self.name = check.__name__
        self.says = (inspect.getdoc(check) or "").partition("\n")[0]

    def __str__(self) -> str:
        return self.name

    def breach(self, subject: S) -> str | None:
        """What is wrong, in one line, or None."""
        try:
            self.check(subject)
        except (Breach, TsfmcError) as error:
            return str(error)
        except Exception as error:  # the subject is another author's code
            return f"{type(error).__name__}: {error}"
        return None


class Contract(Generic[S]):
    """An ordered list of rules over one kind of subject."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rules: list[Rule[S]] = []

    def rule(self, check: Callable[[S], None]) -> Callable[[S], None]:
        """Decorator: adds a function to the contract; its docstring is what it promises."""
        self.rules.append(Rule(check))
        return check

    def check(self, name: str, subject: S) -> Sequence[str]:
        """Tries every rule, and returns the names of those that hold: all of them.

        Raises:
            ContractError: rules that do not hold, one a line, each with what was found.
        """
        broken = [(rule, found) for rule in self.rules if (found := rule.breach(subject)) is not None]
        if broken:
            lines = "".join(f"\n    {rule.name}: {found}" for rule, found in broken)
            raise ContractError(f"{self.kind} {name} breaks {len(broken)} of {len(self.rules)} rules:{lines}")
        return [rule.name for rule in self.rules]


def says(contract: Contract[Any]) -> list[tuple[str, str]]:
    """Name and sentence of every rule: the contract as it can be read."""
    return [(rule.name, rule.says) for rule in contract.rules]
