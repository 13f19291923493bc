"""The cycles that a calendar gives a series of a known step: the day, the week, the year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..base.errors import UsageError

Array = npt.NDArray[np.float64]
_DAY_S, _WEEK_S, _YEAR_S = 86_400.0, 604_800.0, 365.2425 * 86_400
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
UNKNOWN_PERIODS = (4.0, 256.0)


@dataclass(frozen=True)
class Cycles:
    """Periods in steps, shortest first, and what they are called; None where the step is unknown."""

    periods: tuple[float, float, float] | None
    names: tuple[str, str, str] = ("day", "week", "year")

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
        """``[count, 1]`` each: the calendar's periods, or for an unknown step random ones."""
        if self.periods is not None:
            short, long, longest = (np.full((count, 1), period) for period in self.periods)
            return short, long, longest
        low, high = np.log(UNKNOWN_PERIODS)
        short = np.exp(rng.uniform(low, high, (count, 1))).round()
        return short, short * rng.integers(2, 8, (count, 1)), short * rng.integers(50, 366, (count, 1))


def cycles_of(step: str | None) -> Cycles:
    """Below a day: day, week, year; days: week, month, year; longer: the year, and five and ten of them.

    Raises:
        UsageError: ``step`` is not a pandas offset alias such as ``h``, ``15min`` or ``D``.
    """
    if step is None:
        return Cycles(None)
    seconds = _seconds(step)
    if step.lstrip("0123456789") == "B":
        return Cycles((5.0, 21.75, 261.0), ("week", "month", "year"))
    year = _YEAR_S / seconds
    if 2 * seconds <= _DAY_S:
        return Cycles((_DAY_S / seconds, _WEEK_S / seconds, year))
    if 2 * seconds <= _WEEK_S:
        return Cycles((_WEEK_S / seconds, year / 12, year), ("week", "month", "year"))
    return Cycles(
        (max(year, 4.0), max(5 * year, 8.0), max(10 * year, 16.0)), ("year", "five years", "ten years")
    )


def _seconds(step: str) -> float:
    """The mean duration of a step."""
    from pandas.tseries.frequencies import to_offset
    from pandas.tseries.offsets import Tick

    try:
        offset = to_offset(step)
        if offset is None or offset.n < 1:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"step {step!r} is not understood",
            hint="expected a pandas offset alias such as h, 15min, D, W or MS",
        ) from None
    if isinstance(offset, Tick):
        return float(offset.nanos) / 1e9
    name = str(offset.name)
    if name[0] in _MONTHS:
        return _MONTHS[name[0]] * offset.n * _YEAR_S / 12
    return float(offset.n) * (_WEEK_S if name.startswith("W") else _DAY_S)
