"""How an empty stretch of one variate is filled; a device fills by this text.

``ffill`` repeats the last value before it; ``interpolate`` draws a straight line between the values around
it, which looks at later values.  After the last value of all both repeat it; neither invents a start.
"""

from __future__ import annotations

import numpy as np

POLICIES = ("error", "ffill", "interpolate")
WARN_FILLED, MAX_FILLED = 0.05, 0.25
"""Share of a variate's cells that are filled in: beyond the first a warning says so, beyond the second a
compile is refused unless it is told otherwise.  With a quarter of the cells invented, every second day of a
test split may well be a straight line, and its error says little of the forecaster."""
FILL_HINT = "repair the file, or fill with --missing ffill or --missing interpolate"


def fill_run(run: np.ndarray, policy: str) -> int:
    """Fills the NaN of ``run [T]`` in place, whose first value is known; returns how many they were."""
    known = ~np.isnan(run)
    where, rows = np.flatnonzero(known), np.arange(len(run))
    if policy == "interpolate":
        run[:] = np.interp(rows, where, run[where])
    else:
        run[:] = run[np.maximum.accumulate(np.where(known, rows, 0))]
    return int(len(run) - known.sum())
