"""Steps: the artifact's step, counted between two rows and added to the last one.

A step is a fixed time, a number of months (rows at their starts or at their ends), or a business day.
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np

UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "D": timedelta(days=1),
    "W": timedelta(weeks=1),
}
MONTHS = {"M": 1, "Q": 3, "Y": 12}
BUSINESS_DAYS = "1111100"


class FixedStep:
    """``size`` of time."""

    def __init__(self, size: timedelta) -> None:
        self.size = size

    def __str__(self) -> str:
        return f"{self.size.total_seconds():g} s"

    def between(self, before: datetime, after: datetime) -> int | None:
        """Whole steps from one row to a later one, None where it is not on the axis."""
        steps, rest = divmod(after - before, self.size)
        return None if rest else steps

    def after(self, last: datetime, steps: int) -> datetime:
        """The time ``steps`` after a row, at its offset from UTC."""
        return last + steps * self.size


class MonthStep:
    """``months`` months, on the first or on the last day of one."""

    def __init__(self, months: int, at_end: bool) -> None:
        self.months, self.at_end = months, at_end

    def __str__(self) -> str:
        return f"{self.months} months, on the {'last' if self.at_end else 'first'} day of one"

    def between(self, before: datetime, after: datetime) -> int | None:
        """See ``FixedStep.between``."""
        months = 12 * (after.year - before.year) + after.month - before.month
        on_axis = all(time.day == self._day(time.year, time.month) for time in (before, after))
        same_time = before.time() == after.time()
        return months // self.months if on_axis and same_time and months % self.months == 0 else None

    def after(self, last: datetime, steps: int) -> datetime:
        """See ``FixedStep.after``."""
        years, month = divmod(last.month - 1 + steps * self.months, 12)
        year = last.year + years
        if year > datetime.max.year:
            raise OverflowError
        return last.replace(year=year, month=month + 1, day=self._day(year, month + 1))

    def _day(self, year: int, month: int) -> int:
        return calendar.monthrange(year, month)[1] if self.at_end else 1


class BusinessStep:
    """One day, Saturdays and Sundays left out."""

    def __str__(self) -> str:
        return "one business day"

    def between(self, before: datetime, after: datetime) -> int | None:
        """See ``FixedStep.between``."""
        first, second = before.date(), after.date()
        if before.time() != after.time() or not np.is_busday([first, second], BUSINESS_DAYS).all():
            return None
        return int(np.busday_count(first, second, BUSINESS_DAYS))

    def after(self, last: datetime, steps: int) -> datetime:
        """See ``FixedStep.after``."""
        if last.year == datetime.max.year:
            raise OverflowError
        day = np.busday_offset(last.date(), steps, "forward", BUSINESS_DAYS).astype(object)
        return datetime.combine(day, last.timetz())


def find_step(task: dict[str, Any]) -> FixedStep | MonthStep | BusinessStep | None:
    """The step of the manifest's task; None where the data had no times, or none of these steps."""
    if task.get("step_seconds"):
        return FixedStep(timedelta(seconds=task["step_seconds"]))
    found = re.fullmatch(r"(\d{0,6})([A-Za-z]+)(-[A-Z]{3})?", task.get("frequency") or "")
    if not found:
        return None
    count, unit = int(found[1] or 1), found[2]
    if unit in UNITS and count:
        return FixedStep(count * UNITS[unit])
    if unit[0] in MONTHS and unit[1:] in ("S", "E") and count:
        return MonthStep(count * MONTHS[unit[0]], unit[1] == "E")
    return BusinessStep() if unit == "B" and count == 1 else None
