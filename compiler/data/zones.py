"""Local time: from what a clock shows to UTC, and how a change of the clock is told from a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from .blocks import Block
from .reading import LocalClock, open_zone
from .remedies import RepairableError
from .timeline import Stamps

_SUSPECTS = (
    "Europe/Berlin", "Europe/London", "Europe/Helsinki", "America/New_York", "Australia/Sydney",
    "America/Sao_Paulo", "America/Santiago", "Asia/Jerusalem", "Africa/Cairo",
)  # fmt: skip
"""Of each rule for changing the clock one zone, the most likely first."""


def to_utc(blocks: Iterator[Block], zone: str, file: str) -> Iterator[Block]:
    """The blocks with their local times in UTC; times that are days stay what they are.

    Raises:
        DataError: a time that the clock of this zone skips.
    """
    clock, backwards, days = Clock(zone), False, None
    for block in blocks:
        local = block.stamps
        assert local is not None
        if days is None:
            days = len(local) > 1 and len(np.unique(local - local.astype("datetime64[D]"))) == 1
            backwards = len(local) > 1 and bool(local[1] < local[0])
        if days:
            yield block
            continue
        stamps = clock.utc(local, backwards=backwards)
        skipped = np.isnat(stamps)
        if skipped.any():
            index = int(np.argmax(skipped))
            raise RepairableError(
                f"{file}: row {int(block.rows[index])} has the timestamp {stamp_text(local[index])}, "
                f"an hour that the clock of {zone} skips",
                hint="these times are not of that clock: leave --zone out or give another one",
                remedy={"zone": ""},
            )
        yield replace(block, stamps=stamps)


class Clock:
    """The clock of a zone for arrays: only the hour that is repeated is looked at row by row."""

    def __init__(self, zone: str) -> None:
        open_zone(zone)
        self._zone, self._clock = zone, LocalClock(zone)

    def utc(self, local: Stamps, *, backwards: bool) -> Stamps:
        """``[T]`` times in UTC, NaT for one that the clock skips."""
        import pandas as pd

        index = pd.DatetimeIndex(local)
        stamps = index.tz_localize(self._zone, ambiguous="NaT", nonexistent="NaT")
        found = stamps.tz_convert(None).to_numpy(dtype="datetime64[us]").copy()
        for place in np.flatnonzero(np.isnat(found)):
            time = self._clock.at(index[int(place)].to_pydatetime(), backwards=backwards)
            if time is not None:
                offset = time.utcoffset() or timedelta(0)
                found[place] = local[place] - np.timedelta64(offset)
        return found


def clock_change(before: np.datetime64, after: np.datetime64) -> tuple[str, str] | None:
    """The zone whose clock explains that ``after`` follows ``before``, and how: ``repeats`` or ``skips``.

    None where no clock does, or a file holds more or less than the change explains.
    """
    first, second = (_as_datetime(stamp) for stamp in (before, after))
    if abs(second - first) > timedelta(hours=3):
        return None
    for name in _SUSPECTS:
        try:
            zone = ZoneInfo(name)
        except ZoneInfoNotFoundError:
            continue
        if second <= first and _change(second, zone) < timedelta(0):
            return name, "repeats"
        if second > first and _change(second - timedelta(minutes=1), zone) > timedelta(0):
            return name, "skips"
    return None


def _change(local: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clock was put forward at a time that it skips, or back (negative) at one it repeats."""
    early, late = (zone.utcoffset(local.replace(fold=fold)) or timedelta(0) for fold in (0, 1))
    return late - early


def _as_datetime(stamp: np.datetime64) -> datetime:
    time = stamp.astype("datetime64[us]").item()
    assert isinstance(time, datetime)
    return time


def stamp_text(stamp: np.datetime64) -> str:
    """``2016-07-01 00:00:00``, without microseconds that are zero."""
    return str(stamp.astype("datetime64[us]")).replace("T", " ").removesuffix(".000000")
