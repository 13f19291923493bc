"""Adaptive: quantiles that learn from the truths that arrive, with a few numbers of state.

    f[d, q]  <-  f[d, q] exp(rate (1[missed] - target))      one factor a variate and level
    q'       =   median + f[d, q] (q - median)

A truth beyond a quantile widens it and every other truth narrows it a little, so that in the long run the
share beyond is the level, however the series drifts (Gibbs and Candes, "Adaptive conformal inference under
distribution shift", 2021; here on the logarithm of a factor, so that no interval turns inside out).  The
median stays: it is the point forecast.

Of each forecast one step ahead waits for its truth, another one each time: at most one for each step of the
horizon, and all steps have their turn.  It is judged with the factors of the day it arrives, so that a long
horizon does not delay what is learnt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....compiler.data.levels import MEDIAN

RATE = 0.01
LARGEST_FACTOR = 20.0
STRIDE = 0.6180339887498949
"""Of the golden section: steps ahead that take turns by it are spread evenly at any time."""


class Adaptive:
    """Factors ``[D, Q]`` on the distances of quantiles from their median.

    Args:
        levels: ascending, the median among them.
        rate: how much one truth moves a factor; 0 leaves the quantiles as they are.
    """

    def __init__(self, variates: int, horizon: int, levels: tuple[float, ...], rate: float = RATE) -> None:
        self.levels, self.horizon, self.rate = np.array(levels), horizon, rate
        self.middle = levels.index(MEDIAN)
        self.logs = np.zeros((variates, len(levels)))
        self.waiting: dict[int, np.ndarray] = {}
        self.turns = 0

    def corrected(self, quantiles: np.ndarray) -> np.ndarray:
        """Quantiles ``[D, H, Q]`` or ``[D, Q]`` with their factors, ascending."""
        median = quantiles[..., self.middle : self.middle + 1]
        factors = np.exp(self.logs if quantiles.ndim == 2 else self.logs[:, None])
        found: np.ndarray = median + factors * (quantiles - median)
        high, low = found[..., self.middle :], found[..., self.middle :: -1]
        np.maximum.accumulate(high, axis=-1, out=high)
        np.minimum.accumulate(low, axis=-1, out=low)
        return found

    def wait_for(self, quantiles: np.ndarray) -> None:
        """Keeps one step of the forecast ``[D, H, Q]``, as it came, until its truth arrives."""
        step = int(self.horizon * ((self.turns * STRIDE) % 1.0))
        self.waiting[step + 1] = quantiles[:, step].copy()
        self.turns += 1

    def arrived(self, row: np.ndarray, steps: int = 1) -> None:
        """The row ``[D]`` that is ``steps`` after the last one; NaN is a truth that stays unknown."""
        due = self.waiting.pop(steps, None)
        self.waiting = {at - steps: kept for at, kept in self.waiting.items() if at > steps}
        if due is None:
            return
        current, truth = self.corrected(due), row[:, None]
        above = self.levels > MEDIAN
        missed = np.where(above, truth > current, truth < current)
        target = np.where(above, 1 - self.levels, self.levels)
        moves = self.rate * (missed - target) * ~np.isnan(truth)
        moves[:, self.middle] = 0
        most = np.log(LARGEST_FACTOR)
        self.logs = np.clip(self.logs + moves, -most, most)

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes, as JSON has it."""
        waiting = {str(at): kept.tolist() for at, kept in self.waiting.items()}
        return {"logs": self.logs.tolist(), "turns": self.turns, "waiting": waiting}

    def restore(self, state: Any) -> None:
        """Goes on from ``state``.

        Raises:
            ValueError: it is none, or of another task; nothing has changed then.
        """
        logs = np.array(state["logs"], dtype=np.float64)
        waiting = {int(at): np.array(kept, dtype=np.float64) for at, kept in state["waiting"].items()}
        sizes = {logs.shape, *(kept.shape for kept in waiting.values())}
        finite = all(np.isfinite(each).all() for each in (logs, *waiting.values()))
        places = all(1 <= at <= self.horizon for at in waiting)
        if sizes != {self.logs.shape} or not finite or not places or type(state["turns"]) is not int:
            raise ValueError(f"expected factors of shape {list(self.logs.shape)}")
        self.logs, self.waiting, self.turns = logs, waiting, state["turns"]
