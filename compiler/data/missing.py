"""Empty cells and missing timestamps: ``error`` refuses them, the other policies fill, see ``filling.py``.

A table is trimmed to where there is something to fill from: its first rows, up to that in which the last
variate begins, and its last rows in which every variate is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from ..base.errors import DataError, unknown_name
from .filling import POLICIES, fill_run

if TYPE_CHECKING:
    from .dataset import Filled

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

    Every variate has a value in the first row, see ``known_span``.
    """
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


def known_span(
    values: npt.NDArray[np.float64], variates: Sequence[str], file: str, chunk_rows: int
) -> tuple[int, int, str]:
    """The rows of ``values [T, D]`` to keep, first and after the last, and the variate that begins last.

    Raises:
        DataError: a variate has no value at all.
    """
    first = np.full(len(variates), -1, dtype=np.int64)
    last = -1
    for begin in range(0, len(values), chunk_rows):
        known = ~np.isnan(values[begin : begin + chunk_rows])
        begins = (first < 0) & known.any(axis=0)
        first[begins] = begin + np.argmax(known[:, begins], axis=0)
        whole = np.flatnonzero(known.any(axis=1))
        last = begin + int(whole[-1]) if whole.size else last
    if (first < 0).any():
        variate = variates[int(np.argmax(first < 0))]
        raise DataError(
            f"{file}: variate {variate!r} has no value in any row, so there is nothing to fill from",
            hint="leave the variate out",
        )
    latest = int(np.argmax(first))
    return int(first[latest]), last + 1, variates[latest] if first[latest] else ""


def refuse_trimmed(filled: Filled, rows: int, most: float, file: str) -> None:
    """A variate that begins late costs the rows before it: many of them only where a user asks for it.

    Args:
        rows: that are left.

    Raises:
        DataError: the share of the rows that were trimmed exceeds ``most``.
    """
    leading = filled.trimmed[0]
    share = leading / (leading + rows)
    if share > most:
        raise DataError(
            f"{file}: variate {filled.begun_by!r} begins {leading:,} rows after the first: {share:.0%} of "
            f"the rows would be trimmed, at most {most:.0%} are",
            hint="leave the variate out with --variates, or allow more with --max-filled "
            f"{min(1.0, math.ceil(100 * share) / 100):g}",
        )


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
