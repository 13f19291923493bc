"""Cycles of a series: how much of it a calendar explains, and the strongest cycle that no calendar has.

A series without its moving mean over one cycle is the season and the remainder.  The strength of the cycle
is the adjusted share of their variance that the mean of each phase explains,
``1 - (RSS / (n - k)) / (TSS / (n - 1))``, after the profiles of shorter cycles are taken out (compare the
strength of seasonality in Wang, Smith and Hyndman, Characteristic-Based Clustering for Time Series Data,
section 3).  The autocorrelation is that at a lag of one cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_MOST_PHASES, _FEWEST_CYCLES, _FEWEST_OTHER = 168, 3, 10
_SHARE = 0.15
"""Of the power that a cycle outside the calendar must hold before it is named."""


@dataclass(frozen=True)
class Season:
    """One cycle of one variate: its length in steps, its strength and its autocorrelation."""

    name: str
    period: float
    strength: float
    autocorrelation: float


def calendar_seasons(series: Array, periods: Mapping[str, float]) -> tuple[list[Season], Array]:
    """The cycles of ``series [T]``, the shortest first, and the series without them ``[T]``."""
    rest, found = series, []
    for name, period in sorted(periods.items(), key=lambda item: item[1]):
        if period < 2 or len(series) < _FEWEST_CYCLES * period:
            continue
        both = _without_trend(rest, round(period))
        total = float(((both - both.mean()) ** 2).sum()) / (len(both) - 1)
        if total <= 1e-12 * float(np.mean(series**2)):
            continue
        phases = min(round(period), _MOST_PHASES)
        phase = (np.arange(len(rest)) % period * phases / period).astype(np.int64).clip(max=phases - 1)
        own = phase[round(period) // 2 :][: len(both)]
        profile = np.bincount(own, both, phases) / np.maximum(np.bincount(own, minlength=phases), 1)
        left = both - profile[own]
        strength = 1 - float((left**2).sum()) / max(1, len(both) - phases) / total
        found.append(Season(name, period, max(0.0, strength), _autocorrelation(both, round(period))))
        rest = rest - profile[phase]
    return found, rest


def other_cycle(rests: Sequence[Array], periods: Sequence[float]) -> tuple[float, float] | None:
    """The period of the strongest cycle outside the calendar that the series ``[T]`` share, and its power.

    Power is the share of the mean periodogram within one bin; None where nothing stands out.
    """
    length = min((len(rest) for rest in rests), default=0)
    if length < 64:
        return None
    spectra = []
    for rest in rests:
        power = np.abs(np.fft.rfft((rest[-length:] - rest[-length:].mean()) * np.hanning(length))) ** 2
        if power.sum() > 0:
            spectra.append(power / power.sum())
    if not spectra:
        return None
    mean = np.mean(spectra, axis=0)
    peak = _FEWEST_OTHER + int(np.argmax(mean[_FEWEST_OTHER:]))  # slower ones are drift and shifts
    share, period = float(mean[max(0, peak - 1) : peak + 2].sum()), length / peak
    harmonics = [known / order for known in periods for order in (1, 2, 3, 4)]
    if share < _SHARE or period < 3 or any(abs(period - each) < 0.03 * each for each in harmonics):
        return None
    return period, share


def _without_trend(series: Array, width: int) -> Array:
    """``series`` without its centred moving mean over ``width`` steps, which costs that many of them."""
    sums = np.cumsum(np.concatenate([[0.0], series - series.mean()]))
    trend = (sums[width:] - sums[:-width]) / width
    centred: Array = series[width // 2 :][: len(trend)] - series.mean() - trend
    return centred


def _autocorrelation(series: Array, lag: int) -> float:
    centred = series - series.mean()
    power = float((centred**2).sum())
    return float((centred[lag:] * centred[:-lag]).sum()) / power if power > 0 else 0.0
