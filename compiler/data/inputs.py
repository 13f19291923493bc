"""Inputs beside a variate's own window: what is known ahead, and covariates that are read and not forecast.

``encoding.py`` has the numbers that they become.  A group is what a selection keeps or drops as a whole.
Harmonics of one time fix those of every later step (a rotation by the step), so a linear map of them reaches
all steps of the horizon; a column that is centred by its own lookback has no level to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..base.errors import UsageError
from .encoding import CYCLE_SECONDS, encode_column, encode_cycle

if TYPE_CHECKING:
    from .dataset import Dataset

Array = npt.NDArray[np.float64]
Kind = Literal["calendar", "known", "past"]
Stamps = npt.NDArray[np.datetime64]

HARMONICS = {"hour": 4, "weekday": 6, "yearday": 2}
"""Of each cycle, at most."""


@dataclass(frozen=True)
class InputGroup:
    """One thing that a device supplies with a window.

    Attributes:
        kind: see the module.
        name: of the cycle or of the column.
        width: numbers in a row, E.
        harmonics: of a cycle.
        scale: standard deviation of a column in training, what its numbers are divided by.
    """

    kind: Kind
    name: str
    width: int
    harmonics: int = 0
    scale: float = 1.0


def calendar_groups(step_s: float | None) -> tuple[InputGroup, ...]:
    """The cycles that a step can see: at least two steps long, harmonics of at least two steps each."""
    found = []
    for name, most in HARMONICS.items():
        harmonics = 0 if step_s is None else min(most, int(CYCLE_SECONDS[name] / step_s / 2))
        if harmonics:
            found.append(InputGroup("calendar", name, 2 * harmonics, harmonics))
    return tuple(found)


def column_groups(
    known: Sequence[str], past: Sequence[str], scales: Sequence[float], lookback: int, horizon: int
) -> tuple[InputGroup, ...]:
    """A group a column; ``scales`` are those of ``known``, then ``past``, 0 for a constant one."""
    kinds: list[tuple[Kind, str, int]] = [("known", name, horizon) for name in known]
    kinds += [("past", name, lookback) for name in past]
    return tuple(
        InputGroup(kind, name, width, scale=float(scale) or 1.0)
        for (kind, name, width), scale in zip(kinds, scales, strict=True)
    )


def seconds_of(stamps: Stamps) -> Array:
    """Seconds since 1970."""
    return stamps.astype("datetime64[us]").astype(np.int64) / 1e6


@dataclass(frozen=True, eq=False)
class InputRows:
    """The inputs of every window of a data set, by the row where its lookback starts.

    Attributes:
        groups: in the order of the row.
        stamps: ``[T]`` timestamps; None where no group is of the calendar.
        columns: ``[T, K]`` values of columns.
        places: which of them each group that is a column has, in the order of the groups.
    """

    groups: tuple[InputGroup, ...]
    lookback: int
    horizon: int
    stamps: Stamps | None
    columns: Array
    places: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """E."""
        return sum(group.width for group in self.groups)

    def at(self, starts: npt.NDArray[np.int64]) -> Array:
        """``[n, E]`` float64 of the windows that start at rows ``starts [n]``."""
        parts, places = [], iter(self.places)
        for group in self.groups:
            if group.kind == "calendar":
                assert self.stamps is not None
                first_steps = seconds_of(np.asarray(self.stamps[starts + self.lookback]))
                parts.append(encode_cycle(group.name, group.harmonics, first_steps))
                continue
            span = starts[:, None] + np.arange(self.lookback + self.horizon)
            place = next(places)
            first, last = int(starts.min()), int(starts.max()) + span.shape[1]
            values = np.asarray(self.columns[first:last, place])[span - first]
            parts.append(encode_column(group.kind, values, self.lookback, group.scale))
        return np.concatenate(parts, axis=1) if parts else np.empty((len(starts), 0))

    def only(self, names: Sequence[str]) -> InputRows:
        """With some of the groups."""
        columns = [group.name for group in self.groups if group.kind != "calendar"]
        place_of = dict(zip(columns, self.places, strict=True))
        groups = tuple(group for group in self.groups if group.name in names)
        places = tuple(place_of[group.name] for group in groups if group.kind != "calendar")
        return InputRows(groups, self.lookback, self.horizon, self.stamps, self.columns, places)

    def slices(self) -> dict[str, slice]:
        """Where each group stands in the row."""
        found, start = {}, 0
        for group in self.groups:
            found[group.name] = slice(start, start + group.width)
            start += group.width
        return found


def asked_groups(data: Dataset, lookback: int, horizon: int, *, calendar: bool) -> tuple[InputGroup, ...]:
    """What a data set offers: the cycles of its step where ``calendar`` asks for them, and its columns.

    Raises:
        UsageError: a calendar without timestamps.
    """
    from .timeline import step_seconds

    cycles: tuple[InputGroup, ...] = ()
    if calendar:
        cycles = calendar_groups(step_seconds(data.frequency))
        if data.timestamps is None or not cycles:
            raise UsageError(
                f"{data.name}: calendar inputs need timestamps with a step of a fixed length",
                hint="leave out --calendar, or give a time column",
            )
    for group in cycles:
        if group.name in (*data.known, *data.past):
            raise UsageError(
                f"column {group.name!r} is named like an input of the calendar", hint="rename the column"
            )
    scales = np.asarray(data.beside[: data.splits.train]).std(axis=0) if data.beside.size else []
    return (*cycles, *column_groups(data.known, data.past, scales, lookback, horizon))


def input_rows(data: Dataset, groups: tuple[InputGroup, ...], lookback: int, horizon: int) -> InputRows:
    """The inputs of a data set, whose columns are found by the groups' names."""
    stamps = data.timestamps if any(group.kind == "calendar" for group in groups) else None
    names = [group.name for group in groups if group.kind != "calendar"]
    places = [(*data.known, *data.past).index(name) for name in names]
    return InputRows(groups, lookback, horizon, stamps, data.beside, tuple(places))
