"""Inputs beside a variate's own window: what is known ahead, and covariates that are read and not forecast.

    calendar   where the first forecast step lies in its day, week and year, as harmonics  [2 K]
    known      the coming H values of a column, less its mean over the lookback             [H]
    past       the last L values of a column, less their mean                               [L]

A group is what a selection keeps or drops as a whole.  Harmonics of one time fix those of every later step
(a rotation by the step), so a linear map of them reaches all steps of the horizon; a column that is centred
by its own lookback leaves the student's forecast where the level of both moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .dataset import Dataset

Array = npt.NDArray[np.float64]
Kind = Literal["calendar", "known", "past"]
Stamps = npt.NDArray[np.datetime64]

CYCLES: dict[str, tuple[float, int]] = {
    "hour": (86_400.0, 4),
    "weekday": (604_800.0, 6),
    "yearday": (365.2425 * 86_400, 2),
}
"""Calendar groups: seconds of the cycle, and harmonics of it."""


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
    for name, (seconds, most) in CYCLES.items():
        harmonics = 0 if step_s is None else min(most, int(seconds / step_s / 2))
        if harmonics:
            found.append(InputGroup("calendar", name, 2 * harmonics, harmonics))
    return tuple(found)


def column_groups(
    known: Sequence[str], past: Sequence[str], scales: Sequence[float], lookback: int, horizon: int
) -> tuple[InputGroup, ...]:
    """A group a column; ``scales`` are those of ``known`` and ``past`` in this order, 1 for a constant one."""
    kinds: list[tuple[Kind, str, int]] = [("known", name, horizon) for name in known]
    kinds += [("past", name, lookback) for name in past]
    return tuple(
        InputGroup(kind, name, width, scale=float(scale) or 1.0)
        for (kind, name, width), scale in zip(kinds, scales, strict=True)
    )


def encode_time(group: InputGroup, first_steps: Stamps) -> Array:
    """``[n, 2 K]`` sines and cosines of where ``first_steps [n]`` lie in the cycle."""
    seconds = first_steps.astype("datetime64[us]").astype(np.int64) / 1e6
    phase = 2 * np.pi * (seconds / CYCLES[group.name][0])
    angles = phase[:, None] * np.arange(1, group.harmonics + 1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def encode_column(group: InputGroup, values: Array, lookback: int) -> Array:
    """``[n, E]`` of windows ``values [n, L + H]`` of a column."""
    past, future = values[:, :lookback], values[:, lookback:]
    wanted = future if group.kind == "known" else past
    return (wanted - past.mean(axis=1, keepdims=True)) / group.scale


@dataclass(frozen=True, eq=False)
class InputRows:
    """The inputs of every window of a data set, by the row where its lookback starts.

    Attributes:
        groups: in the order of the row.
        stamps: ``[T]`` timestamps; None where no group is of the calendar.
        columns: ``[T, K]`` values of the known and past columns, in the order of their groups.
    """

    groups: tuple[InputGroup, ...]
    lookback: int
    horizon: int
    stamps: Stamps | None
    columns: Array

    @property
    def width(self) -> int:
        """E."""
        return sum(group.width for group in self.groups)

    def at(self, starts: npt.NDArray[np.int64]) -> Array:
        """``[n, E]`` float64 of the windows that start at rows ``starts [n]``."""
        parts, column = [], 0
        for group in self.groups:
            if group.kind == "calendar":
                assert self.stamps is not None
                parts.append(encode_time(group, np.asarray(self.stamps[starts + self.lookback])))
                continue
            span = starts[:, None] + np.arange(self.lookback + self.horizon)
            values = np.asarray(self.columns[:, column])[span]
            parts.append(encode_column(group, values, self.lookback))
            column += 1
        return np.concatenate(parts, axis=1) if parts else np.empty((len(starts), 0))

    def slices(self) -> dict[str, slice]:
        """Where each group stands in the row."""
        found, start = {}, 0
        for group in self.groups:
            found[group.name] = slice(start, start + group.width)
            start += group.width
        return found


def input_rows(
    data: Dataset,
    groups: tuple[InputGroup, ...],
    lookback: int,
    horizon: int,
    columns: Array | None = None,
) -> InputRows:
    """The inputs of a data set; ``columns [T, K]`` as the groups have them."""
    stamps = data.timestamps if any(group.kind == "calendar" for group in groups) else None
    return InputRows(groups, lookback, horizon, stamps, np.empty((data.rows, 0)) if columns is None else columns)
