"""Modes: whether samples gather around more than one time, which a median would hide.

Samples are split in two where the squared distance to two centres is least (in log time, so that a mode of
1 ms and one of 10 us are judged alike).  The split stands if both parts are real: a twentieth of all samples
each, their centres a tenth apart, and between them a window that is clearly emptier than those around both
centres.  A tail does not pass the last condition: it thins out but never thickens again.  Each part is
looked at again, so there may be more than two.
"""

from __future__ import annotations

import numpy as np

LEAST_SHARE = 0.05
LEAST_DISTANCE = 0.1
LEAST_SAMPLES = 64
PLACES = 129
VALLEY = 0.5
"""The valley holds at most this part of the smaller peak, two standard deviations of counting allowed for."""
MOST_SAMPLES = 1 << 14
"""More are thinned out evenly: modes do not need them."""


def find_modes(samples_ns: np.ndarray) -> list[tuple[float, float]]:
    """Median in microseconds and share of each mode, fastest first; one where there is no second."""
    times = np.sort(np.log(np.maximum(samples_ns, 1.0)))
    times = times[:: -(-len(times) // MOST_SAMPLES)]
    parts = _parts(times, max(LEAST_SAMPLES * LEAST_SHARE, LEAST_SHARE * len(times)))
    return [(float(np.exp(np.median(part))) / 1e3, len(part) / len(times)) for part in parts]


def _parts(times: np.ndarray, least: float) -> list[np.ndarray]:
    """``times``, sorted, as one piece or several."""
    if len(times) < max(2 * least, LEAST_SAMPLES // 2):
        return [times]
    at = _valley(times, _best_split(times))
    if at is None or not least <= at <= len(times) - least:
        return [times]
    low, high = times[:at], times[at:]
    if np.median(high) - np.median(low) < np.log1p(LEAST_DISTANCE):
        return [times]
    return [*_parts(low, least), *_parts(high, least)]


def _best_split(times: np.ndarray) -> int:
    """Where two means explain most: one-dimensional 2-means, exact for sorted samples."""
    count = np.arange(1, len(times))
    sums = np.cumsum(times - times.mean())[:-1]
    between = sums**2 / count + sums**2 / (len(times) - count)
    return int(np.argmax(between)) + 1


def _valley(times: np.ndarray, at: int) -> int | None:
    """How many samples lie below the emptiest place between both parts' centres, if that is a valley."""
    low, high = float(np.median(times[:at])), float(np.median(times[at:]))
    width = (high - low) / 4
    first, last = np.percentile(times, [1, 99])
    places = np.linspace(first, last, PLACES)
    counts = np.searchsorted(times, places + width / 2) - np.searchsorted(times, places - width / 2)
    between = np.flatnonzero((places >= low) & (places <= high))
    if width <= 0 or not len(between):
        return None
    lowest = between[counts[between] == counts[between].min()]
    middle = lowest[len(lowest) // 2]
    valley, peak = int(counts[middle]), int(min(counts[: middle + 1].max(), counts[middle:].max()))
    if valley + 2 * np.sqrt(valley) + 2 >= VALLEY * peak:
        return None
    return int(np.searchsorted(times, places[middle]))
