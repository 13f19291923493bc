"""Chronological splits (LTSF convention): known borders, fractions or row counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..base.errors import DataError, UsageError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
LTSF_FRACTIONS = (0.7, 0.1, 0.2)


@dataclass(frozen=True)
class Splits:
    """Rows of the three consecutive parts; rows after them are unused."""

    train: int
    val: int
    test: int

    def span(self, part: Part) -> tuple[int, int]:
        """First row and row after the last of ``part``."""
        ends = {
            "train": (0, self.train),
            "val": (self.train, self.train + self.val),
            "test": (self.train + self.val, self.train + self.val + self.test),
        }
        return ends[part]

    def first_start(self, part: Part, lookback: int) -> int:
        """Row where the first window starts: val and test reach ``lookback`` rows back."""
        begin, _ = self.span(part)
        return begin if part == "train" else begin - lookback

    def window_count(self, part: Part, lookback: int, horizon: int) -> int:
        """Windows with stride 1 in ``part``; not positive when there is none."""
        start = self.first_start(part, lookback)
        if start < 0:
            return 0
        return self.span(part)[1] - start - lookback - horizon + 1

    def __str__(self) -> str:
        return f"{self.train}/{self.val}/{self.test}"


def resolve_split(spec: str, rows: int, name: str, known: tuple[int, int, int] | None = None) -> Splits:
    """The rows of each part.

    Args:
        spec: ``"ltsf"``, three fractions such as ``"0.7,0.1,0.2"``, or three row counts.
        rows: rows of the series.
        name: data set name for messages.
        known: published row counts of ``name`` for ``"ltsf"``, where they are not fractions.

    Raises:
        UsageError: ``spec`` is none of these.
        DataError: the parts need more rows than there are.
    """
    if spec == "ltsf":
        return _checked(Splits(*known), rows, name) if known else _by_fractions(LTSF_FRACTIONS, rows)
    parts = [part.strip() for part in spec.split(",")]
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    # A NaN fails every comparison, so it is refused here too.
    if len(numbers) != 3 or not all(number > 0 for number in numbers):
        raise _bad_split(spec)
    if all(part.isdecimal() for part in parts):
        return _checked(Splits(*(int(part) for part in parts)), rows, name)
    if not sum(numbers) <= 1 + 1e-9:
        raise _bad_split(spec)
    return _by_fractions((numbers[0], numbers[1], numbers[2]), rows)


def _bad_split(spec: str) -> UsageError:
    return UsageError(
        f"split {spec!r} is not understood",
        hint="expected ltsf, three positive fractions of at most 1 together such as 0.7,0.1,0.2,"
        " or three row counts such as 8640,2880,2880",
    )


def _by_fractions(fractions: tuple[float, float, float], rows: int) -> Splits:
    """LTSF convention: train and test are rounded down, val is the rest."""
    train, test = int(rows * fractions[0]), int(rows * fractions[2])
    used = rows if sum(fractions) > 1 - 1e-9 else int(rows * sum(fractions))
    return Splits(train, used - train - test, test)


def _checked(splits: Splits, rows: int, name: str) -> Splits:
    needed = splits.train + splits.val + splits.test
    if needed > rows:
        raise DataError(
            f"{name} has {rows} rows, the split {splits} needs {needed}",
            hint="give smaller row counts or fractions such as 0.7,0.1,0.2",
        )
    return splits


def require_windows(splits: Splits, name: str, lookback: int, horizon: int) -> None:
    """Refuse a task for which a part has no window.

    Raises:
        UsageError: lookback or horizon is not positive.
        DataError: a part is too short.
    """
    for argument, value in (("lookback", lookback), ("horizon", horizon)):
        if value < 1:
            raise UsageError(
                f"{argument} {value} is not positive", hint=f"expected a {argument} of at least 1"
            )
    for part in PARTS:
        if splits.window_count(part, lookback, horizon) < 1:
            begin, end = splits.span(part)
            needed = lookback + horizon if part == "train" else horizon
            raise DataError(
                f"{name}: the {part} split has {end - begin} rows, one window of lookback {lookback} and "
                f"horizon {horizon} needs {needed}"
                + ("" if part == "train" else f" and {lookback} rows before it"),
                hint="use a longer series, a smaller lookback or horizon, or another split",
            )
