"""Levels: the quantiles that a task may ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_LEVELS = 99
MEDIAN = 0.5
"""The level whose quantile is the point forecast."""


def levels_problem(levels: Sequence[float]) -> str | None:
    """What is wrong with quantile levels, in words; None for none at all and for good ones."""
    if not levels:
        return None
    if not 2 <= len(levels) <= MAX_LEVELS:
        return f"{len(levels)} levels, expected 2 to {MAX_LEVELS}"
    if any(not (math.isfinite(level) and 0 < level < 1) for level in levels):
        return "expected numbers between 0 and 1"
    if list(levels) != sorted(set(levels)):
        return "expected each level once, in ascending order"
    return None if MEDIAN in levels else f"expected {MEDIAN} among them: it is the point forecast"
