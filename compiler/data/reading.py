"""How rows are read: what is done about what is missing, repeated, out of order or in local time.

A compile states it, the artifact keeps it, and a device reads new rows in the same way unless it is told
otherwise.  Part of an artifact's ``run.py`` too: the standard library alone, and Python 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from .dialect import PLAIN, Dialect, checked_dialect, dialect_text
from .filling import POLICIES

DUPLICATES = ("error", "mean", "first")
"""What is done with rows of one time: refused, averaged (empty cells aside), or the first is kept."""


class Reading(NamedTuple):
    """Stated policies and the notation of a table.

    Attributes:
        missing: one of ``POLICIES``.
        duplicates: one of ``DUPLICATES``.
        sort: whether rows may come in any order.
        zone: name of the time zone whose clock the times show, such as ``Europe/Berlin``; empty for times in
            UTC, with an offset of their own, or of a clock that never changes.
        dialect: the notation.
    """

    missing: str = "error"
    duplicates: str = "error"
    sort: bool = False
    zone: str = ""
    dialect: Dialect = PLAIN


AS_IT_IS = Reading()


def checked_reading(fields: Mapping[str, Any]) -> Reading:
    """The reading of an artifact's ``task``, whose other fields are left alone; what is absent is as usual.

    Raises:
        ValueError: names the field.
    """
    reading = Reading(
        missing=fields.get("missing", "error"),
        duplicates=fields.get("duplicates", "error"),
        sort=fields.get("sort", False),
        zone=fields.get("zone", ""),
    )
    for name, value, known in (
        ("missing", reading.missing, POLICIES),
        ("duplicates", reading.duplicates, DUPLICATES),
        ("sort", reading.sort, (False, True)),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {str(value)[:40]!r}")
    if not isinstance(reading.zone, str) or len(reading.zone) > 100:
        raise ValueError(f"zone: expected a name such as Europe/Berlin, got {str(reading.zone)[:40]!r}")
    dialect = fields.get("data_format", {})
    if not isinstance(dialect, Mapping):
        raise ValueError(f"data_format: expected fields, got {str(dialect)[:40]!r}")
    return reading._replace(dialect=checked_dialect(dialect))


def reading_fields(reading: Reading) -> dict[str, Any]:
    """What ``checked_reading`` reads: the policy for what is missing, and what else is not as usual."""
    fields: dict[str, Any] = {"missing": reading.missing}
    for name in ("duplicates", "sort", "zone"):
        if getattr(reading, name) != getattr(AS_IT_IS, name):
            fields[name] = getattr(reading, name)
    rows = zip(Dialect._fields, reading.dialect, PLAIN)
    written = {name: value for name, value, usual in rows if value != usual}
    return {**fields, "data_format": written} if written else fields


def reading_text(reading: Reading) -> str:
    """One line for a person and for a key: what is not as usual, empty for nothing."""
    fields = reading_fields(reading)
    fields.pop("data_format", None)
    parts = [f"{name}={value}" for name, value in fields.items() if value != getattr(AS_IT_IS, name)]
    written = dialect_text(reading.dialect)
    return " ".join([*parts, *([f"csv={written}"] if written else [])])


class LocalClock:
    """The clock of a zone, read row by row: of the hour that autumn repeats the row before tells which."""

    def __init__(self, zone: str) -> None:
        self._zone = open_zone(zone)
        self._last: datetime | None = None

    def at(self, local: datetime, *, backwards: bool = False) -> datetime | None:
        """``local``, which has no zone, with its offset from UTC; None for a time that the clock skips.

        ``backwards``: rows come from the newest to the oldest.
        """
        first, second = (self._with_offset(local.replace(fold=fold)) for fold in (0, 1))
        if first.utcoffset() < second.utcoffset():  # type: ignore[operator]
            return None
        time = first
        if first != second:
            time = second if backwards else first
            if self._last is not None and (time >= self._last if backwards else time <= self._last):
                time = first if backwards else second
        self._last = time
        return time

    def _with_offset(self, local: datetime) -> datetime:
        # An offset instead of the zone: Python subtracts two times of one zone by what their clocks show.
        offset = self._zone.utcoffset(local)
        return local.replace(tzinfo=timezone(offset or timedelta(0)), fold=0)


def open_zone(name: str) -> Any:
    """The zone of this name.

    Raises:
        ValueError: there is none, or this Python has no time zones.
    """
    try:
        from zoneinfo import ZoneInfo
    except ImportError:
        raise ValueError("a zone needs Python 3.9 or newer; write times with an offset from UTC") from None
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name[:60]!r}; expected a name such as Europe/Berlin") from None
