"""Synthetic windows as a data set: what a compile reads where the user has no data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..base.content import code_key
from ..base.errors import UsageError
from .dataset import Dataset, Windows
from .splits import Part, Splits
from .synthetic import synthetic_windows

SYNTHETIC = "synthetic"
WINDOWS = 16_000
HELD_OUT = 0.1
"""Share of the windows in the validation part; the test part has as many."""
UNMEASURED = "compiled without a row of real data: nothing was measured on real data"


@dataclass(frozen=True, eq=False)
class SyntheticData(Dataset):
    """Independent windows of ``span`` rows each, one after the other in ``values``."""

    span: int = 0

    def windows(self, part: Part, lookback: int, horizon: int) -> Windows:
        """The windows of one part, stride ``span``."""
        if lookback + horizon != self.span:
            raise UsageError(f"windows of {self.span} rows, not of {lookback} + {horizon}")
        return IndependentWindows(self, part, lookback, horizon)


class IndependentWindows(Windows):
    """Windows that have no rows in common."""

    @property
    def first(self) -> int:
        """Row where window 0 starts."""
        return self.data.splits.span(self.part)[0]

    def __len__(self) -> int:
        begin, end = self.data.splits.span(self.part)
        return (end - begin) // (self.lookback + self.horizon)

    def starts(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.first + indices * (self.lookback + self.horizon)


def synthetic_data(
    step: str | None,
    *,
    lookback: int,
    horizon: int,
    variates: Sequence[str] = ("value",),
    windows: int = WINDOWS,
    seed: int = 0,
) -> SyntheticData:
    """About ``windows`` univariate windows, dealt to the variates.

    Args:
        step: pandas offset alias of the series to come, or None.
        variates: their names; all are drawn alike.

    Raises:
        UsageError: ``step`` is no step, variates are empty or repeated, too few windows.
    """
    if not variates or len(set(variates)) != len(variates) or not all(variates):
        raise UsageError(
            f"variates {','.join(variates)!r} are empty or repeated", hint="name each variate once"
        )
    if min(lookback, horizon) < 1:
        raise UsageError(f"lookback {lookback}, horizon {horizon}", hint="expected at least 1 of each")
    span, width = lookback + horizon, len(variates)
    count = -(-windows // width)
    held = max(1, round(HELD_OUT * count))
    drawn = synthetic_windows(count * width, lookback, horizon, step=step, seed=seed)
    # [N, D, span] to rows [N * span, D].
    values = drawn.reshape(count, width, span).transpose(0, 2, 1).reshape(count * span, width)
    identity = f"{step} {lookback} {horizon} {windows} {seed} {code_key('compiler/data')}"
    return SyntheticData(
        name=SYNTHETIC,
        sha256=hashlib.sha256(identity.encode()).hexdigest(),
        variates=tuple(variates),
        frequency=step,
        rows=len(values),
        splits=Splits((count - 2 * held) * span, held * span, held * span),
        mean=np.zeros(width),
        std=np.ones(width),
        values=np.ascontiguousarray(values),
        unmeasured=UNMEASURED,
        span=span,
    )
