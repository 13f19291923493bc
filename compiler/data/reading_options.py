"""How a file is read as a user states it: the words of options and of keywords, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import UsageError, unknown_name
from .dialect import PLAIN, Dialect, parse_dialect
from .missing import checked_policy
from .reading import DUPLICATES, Reading, checked_reading, open_zone


def stated_reading(
    *,
    missing: str = "error",
    duplicates: str = "error",
    sort: bool = False,
    zone: str = "",
    csv: str | Dialect = PLAIN,
) -> Reading:
    """The reading of these options, see ``load_data``.

    Raises:
        UsageError: an unknown policy or zone, or a dialect that is not understood.
    """
    if duplicates not in DUPLICATES:
        raise unknown_name("policy for duplicates", duplicates, DUPLICATES)
    if zone:
        try:
            open_zone(zone)
        except ValueError as error:
            raise UsageError(f"--zone: {error}") from None
    dialect = stated_dialect(csv) if isinstance(csv, str) else csv
    return Reading(checked_policy(missing), duplicates, bool(sort), zone, dialect)


def asked_reading(task: Mapping[str, Any], asked: Mapping[str, Any]) -> Reading:
    """How an artifact's task has its rows read, but for what is asked for, see ``stated_reading``.

    Raises:
        UsageError: as ``stated_reading``.
    """
    try:
        kept = checked_reading(task)
    except ValueError as error:
        raise UsageError(f"the artifact's task: {error}") from None
    fields = {**kept._asdict(), "csv": kept.dialect, **{k: v for k, v in asked.items() if v is not None}}
    del fields["dialect"]
    return stated_reading(**fields)


def renames(texts: Iterable[str]) -> dict[str, str]:
    """Name of a column -> its new name, from ``old=new`` each; an equals sign in a name is doubled.

    Raises:
        UsageError: it is not of this form, or two columns would get one name.
    """
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = (
            part.strip().replace("\0", "=") for part in text.replace("==", "\0").partition("=")
        )
        if not equals or not old or not new or old in names or new in names.values():
            raise UsageError(f"--rename {text!r}: expected old=new, each name once")
        names[old] = new
    return names


def stated_dialect(text: str) -> Dialect:
    """The dialect of ``--csv``.

    Raises:
        UsageError: it is not understood.
    """
    if not text:
        return PLAIN
    try:
        return parse_dialect(text)
    except ValueError as error:
        raise UsageError(f"--csv {error}") from None
