"""A forecast for a terminal: a row for each variate, with its shape in block characters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...targets.artifact.device.output import Forecast
from ..base.text import printable

BLOCKS = "▁▂▃▄▅▆▇█"
FLAT = "▄"
WIDTH = 24
"""Characters of the past, and of the forecast."""
COLUMNS = ("variate", "past", "last", "forecast", "next", "end", "lowest", "highest")


def sparkline_rows(forecast: Forecast) -> list[tuple[str, str, float, str, float, float, float, float]]:
    """For a table with ``COLUMNS``; past and forecast of a variate share one scale."""
    horizon = forecast.values.shape[1]
    rows = []
    for name, past, ahead in zip(forecast.variates, forecast.history.values, forecast.values, strict=True):
        shown = past[-max(horizon, WIDTH) :]
        low, high = min(shown.min(), ahead.min()), max(shown.max(), ahead.max())
        rows.append(
            (
                printable(name),
                sparkline(shown, low, high),
                float(past[-1]),
                sparkline(ahead, low, high),
                float(ahead[0]),
                float(ahead[-1]),
                float(ahead.min()),
                float(ahead.max()),
            )
        )
    return rows


def sparkline(values: npt.NDArray[np.floating], low: float, high: float) -> str:
    """At most ``WIDTH`` characters, each the mean of its stretch between ``low`` and ``high``."""
    pieces = np.array_split(np.asarray(values, dtype=np.float64), min(len(values), WIDTH))
    if not high > low:
        return FLAT * len(pieces)
    heights = [(piece.mean() - low) / (high - low) for piece in pieces]
    return "".join(BLOCKS[min(int(height * len(BLOCKS)), len(BLOCKS) - 1)] for height in heights)
