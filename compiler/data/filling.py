"""How an empty stretch of one variate is filled; a device fills by this text.

``ffill`` repeats the last value before it; ``interpolate`` draws a straight line between the values around
it, which looks at later values.  After the last value of all both repeat it; neither invents a start.
"""

from __future__ import annotations

import numpy as np

POLICIES = ("error", "ffill", "interpolate")
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
