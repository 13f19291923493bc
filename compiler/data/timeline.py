"""Regular time axes: their step, whether every timestamp lies on them, and their continuation.

Frequencies are pandas offset aliases.  A step is one of three kinds: a fixed duration, a number of
months (month, quarter and year starts or ends), or business days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Stamps = npt.NDArray[np.datetime64]
Positions = npt.NDArray[np.int64]

_DAY_US = 86_400_000_000
_MONTHLY = ("MS", "ME", "QS", "QE", "YS", "YE")
_CYCLES_PER_YEAR = {"M": 12, "Q": 4, "Y": 1}


@dataclass(frozen=True)
class Timeline:
    """A regular time axis.

    Attributes:
        frequency: pandas offset alias.
        kind: ``fixed``, ``months`` or ``business``.
        step: microseconds for ``fixed``, months for ``months``, business days for ``business``.
        origin: the first timestamp.
    """

    frequency: str
    kind: Literal["fixed", "months", "business"]
    step: int
    origin: np.datetime64

    def positions(self, stamps: Stamps) -> Positions:
        """Steps from the origin to each timestamp; -1 for a timestamp that is not on the axis."""
        offset, remainder = _OFFSETS[self.kind](stamps, self.origin)
        on_axis = (remainder == 0) & (offset % self.step == 0)
        return np.where(on_axis, offset // self.step, -1)

    def stamps(self, first: int, count: int) -> Stamps:
        """``count`` timestamps, the first of them ``first`` steps after the origin."""
        steps = np.arange(first, first + count, dtype=np.int64) * self.step
        if self.kind == "fixed":
            return cast(Stamps, self.origin + steps.astype("timedelta64[us]"))
        day = self.origin.astype("datetime64[D]")
        time_of_day = self.origin - day
        if self.kind == "business":
            return cast(Stamps, np.busday_offset(day, steps, roll="forward") + time_of_day)
        month = day.astype("datetime64[M]") + steps.astype("timedelta64[M]")
        if _is_month_end(self.origin):
            days = (month + 1).astype("datetime64[D]") - 1
        else:
            days = month.astype("datetime64[D]") + (day - day.astype("datetime64[M]"))
        return cast(Stamps, days.astype("datetime64[us]") + time_of_day)


def infer_timeline(head: Stamps) -> Timeline | None:
    """The time axis of the first timestamps, strictly ascending; gaps among them are allowed.

    Returns None for fewer than two timestamps and when there is no regular step.
    """
    import pandas as pd

    if len(head) < 2:
        return None
    origin = head[0]
    alias = pd.infer_freq(pd.DatetimeIndex(head)) if len(head) > 2 else None
    steps = np.diff(head).astype(np.int64)
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[np.argmax(counts)])
    months = np.diff(head.astype("datetime64[M]").astype(np.int64))
    if alias and alias.lstrip("0123456789").startswith(_MONTHLY):
        return Timeline(alias, "months", int(months[0]), origin)
    if alias == "B" or (alias is None and _looks_like_business_days(head, steps, usual)):
        return Timeline("B", "business", 1, origin)
    if 28 * _DAY_US <= usual <= 31 * _DAY_US and months.min() >= 1 and _same_place_in_month(head):
        return Timeline("ME" if _is_month_end(origin) else "MS", "months", 1, origin)
    if len(values) > 1 and alias is not None:
        return None  # a calendar rule such as the third Friday of a month
    frequency = alias or _alias(usual)
    return Timeline(frequency, "fixed", usual, origin)


def steps_per_season(frequency: str | None) -> int:
    """Steps per season: a day for steps below a day, a week for days, a year above; 1 when unknown.

    Used by the seasonal naive forecast and by MASE.
    """
    if frequency is None:
        return 1
    from pandas.tseries.frequencies import to_offset

    offset: Any = to_offset(frequency)
    name, count = str(offset.name).split("-")[0], int(offset.n)
    if name == "B":
        return 5
    if name in _MONTHLY:
        return max(1, _CYCLES_PER_YEAR[name[0]] // count)
    step_us = _fixed_step_us(frequency)
    if step_us < _DAY_US:
        return _DAY_US // step_us if _DAY_US % step_us == 0 else 1
    return {1: 7, 7: 52}.get(step_us // _DAY_US, 1)


def steps_per_week(frequency: str | None) -> int | None:
    """Steps in a week, rounded up, for steps of at most a day and business days; None for others."""
    if frequency is None:
        return None
    from pandas.tseries.frequencies import to_offset

    offset: Any = to_offset(frequency)
    name = str(offset.name).split("-")[0]
    if name == "B":
        return 5
    if name in _MONTHLY:
        return None
    step_us = _fixed_step_us(frequency)
    return -(-7 * _DAY_US // step_us) if step_us <= _DAY_US else None


def future_stamps(last: np.datetime64, frequency: str, count: int) -> pd.DatetimeIndex:
    """The ``count`` timestamps after ``last``."""
    import pandas as pd

    return pd.date_range(pd.Timestamp(last), periods=count + 1, freq=frequency)[1:]


def step_seconds(frequency: str | None) -> float | None:
    """Seconds per step of a fixed length, None for months, business days and what is unknown."""
    if frequency is None:
        return None
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    fixed = (pd.tseries.offsets.Tick, pd.tseries.offsets.Day, pd.tseries.offsets.Week)
    return _fixed_step_us(frequency) / 10**6 if isinstance(to_offset(frequency), fixed) else None


def _fixed_step_us(frequency: str) -> int:
    import pandas as pd

    first, second = pd.date_range("2001-01-01", periods=2, freq=frequency)
    return int((second - first) / pd.Timedelta(1, unit="us"))


def _alias(step_us: int) -> str:
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    days, rest = divmod(step_us, _DAY_US)
    if days and not rest:
        return "D" if days == 1 else f"{days}D"
    return str(cast(Any, to_offset(pd.Timedelta(step_us, unit="us"))).freqstr)


def _is_month_end(stamp: np.datetime64) -> bool:
    day = stamp.astype("datetime64[D]")
    return bool((day + 1).astype("datetime64[M]") != day.astype("datetime64[M]"))


def _same_place_in_month(stamps: Stamps) -> bool:
    _, remainder = _month_offsets(stamps, stamps[0])
    first_or_last = stamps[0].astype("datetime64[D]") == stamps[0].astype("datetime64[M]").astype(
        "datetime64[D]"
    )
    return bool((remainder == 0).all() and (first_or_last or _is_month_end(stamps[0])))


def _looks_like_business_days(stamps: Stamps, steps: Positions, usual: int) -> bool:
    days = stamps.astype("datetime64[D]")
    return usual == _DAY_US and bool(np.is_busday(days).all()) and bool((steps % _DAY_US == 0).all())


def _fixed_offsets(stamps: Stamps, origin: np.datetime64) -> tuple[Positions, Positions]:
    offset = (stamps - origin).astype("timedelta64[us]").astype(np.int64)
    return offset, np.zeros_like(offset)


def _month_offsets(stamps: Stamps, origin: np.datetime64) -> tuple[Positions, Positions]:
    month = stamps.astype("datetime64[M]")
    offset = (month - origin.astype("datetime64[M]")).astype(np.int64)
    # Distance to the start of the month, or of the next month when the axis runs over month ends.
    shift = 1 if _is_month_end(origin) else 0
    place = stamps - (month + shift).astype(stamps.dtype)
    expected = origin - (origin.astype("datetime64[M]") + shift).astype(stamps.dtype)
    return offset, (place - expected).astype(np.int64)


def _business_offsets(stamps: Stamps, origin: np.datetime64) -> tuple[Positions, Positions]:
    days, first = stamps.astype("datetime64[D]"), origin.astype("datetime64[D]")
    offset = np.busday_count(first, days).astype(np.int64)
    remainder = ((stamps - days) - (origin - first)).astype(np.int64)
    return offset, np.where(np.is_busday(days), remainder, 1)


_OFFSETS = {"fixed": _fixed_offsets, "months": _month_offsets, "business": _business_offsets}
