"""Empty cells and missing timestamps: ``error`` refuses them, the other policies fill, see ``filling.py``.

A variate that begins empty is refused: there is nothing to fill from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError, unknown_name
from .filling import POLICIES, fill_run

Missing = Literal["error", "ffill", "interpolate"]


def checked_policy(policy: str) -> Missing:
    """The policy of this name.

    Raises:
        UsageError: there is no such policy.
    """
    if policy in POLICIES:
        return cast(Missing, policy)
    raise unknown_name("missing policy", policy, POLICIES)


def fill_missing(
    values: npt.NDArray[np.float64], policy: Missing, variates: Sequence[str], file: str, chunk_rows: int
) -> npt.NDArray[np.int64]:
    """Fill the NaN cells of ``values [T, D]`` in place, a chunk of rows at a time; returns how many ``[D]``.

    Raises:
        DataError: a variate has no value before its first empty cell.
    """
    empty_start = np.isnan(values[0])
    if empty_start.any():
        variate = variates[int(np.argmax(empty_start))]
        raise DataError(
            f"{file}: variate {variate!r} has no value in its first row, so there is nothing to fill from",
            hint="drop the first rows or the variate",
        )
    filled = np.zeros(len(variates), dtype=np.int64)
    last_known = np.zeros(len(variates), dtype=np.int64)
    for begin in range(0, len(values), chunk_rows):
        end = min(begin + chunk_rows, len(values))
        final = end == len(values)
        known = ~np.isnan(values[begin:end])
        last_in_chunk = np.where(known.any(axis=0), end - 1 - np.argmax(known[::-1], axis=0), -1)
        for column in np.flatnonzero(~known.all(axis=0) | (last_known < begin - 1)):
            start = int(last_known[column])
            # A line needs both its ends; what comes after the last value of all is repeated.
            stop = end if final or policy == "ffill" else int(last_in_chunk[column]) + 1
            if stop > start + 1:
                filled[column] += fill_run(values[start:stop, column], policy)
        last_known = np.maximum(last_known, last_in_chunk)
    return filled


def refuse_invented(share: float, most: float, whose: str, file: str, option: str = "--max-filled") -> None:
    """What a policy fills in is no data: beyond a share a user has to ask for it.

    Args:
        share: of the cells of the most filled variate.
        whose: that variate.
        option: what allows more, empty where nothing does.

    Raises:
        DataError: ``share`` exceeds ``most``.
    """
    if share > most:
        allow = f", or allow more with {option} {min(1.0, math.ceil(100 * share) / 100):g}" if option else ""
        raise DataError(
            f"{file}: {share:.0%} of the cells of {whose} would be filled in, at most {most:.0%} are",
            hint=f"repair or resample the file, or leave the variate out{allow}",
        )
