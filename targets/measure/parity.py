"""Parity: does what runs compute what the model computes, also on windows that are not nice?

An engine passes when for every window

    max |engine - model| <= max(tolerance * (max |past| + max |model|), FACTOR * c + m)
    c   the largest change of the model's forecast when every number of the window moves to a float beside it
    m   the same when every mean of n numbers is off by sqrt(n) roundings

The allowance grows with the numbers in the window, because rounding does.  The past counts beside the
forecast: a forecast that nearly cancels is still a sum of terms as large as the past.  There is no absolute
term: with one, any error would pass on a window of tiny numbers.  ``run.py`` judges its self-test by the
same ``window_scale``.

``c`` and ``m`` are the conditioning of the case (``conditioning.py``): a model that itself answers so
differently to windows that differ in their last bit has no digits beyond, in any order of its sums.  They
decide for few models (weights of 300 whose products cancel on a constant window); for the rest they are a
fraction of the first term, and the tolerance holds alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...compiler.base.spread import spread
from ..artifact.device.forecaster import window_scale
from .conditioning import means, neighbours

BATCHES = (8, 1)
"""Both are run: some runtimes choose other kernels for a single window."""
CONSTANT_NOISE = 1e-6
FACTOR = 16.0
"""What another order of sums, fused products and another exponential may cost, in units of ``c``."""


@dataclass(frozen=True)
class KindParity:
    """Largest errors of one kind of window: absolute, relative to each window's scale, and as a share of
    what its window allows."""

    max_abs: float
    max_rel: float
    max_share: float


@dataclass(frozen=True)
class Parity:
    """The result of ``check_parity``.

    Attributes:
        max_abs: largest absolute error on the real windows, in scaled units.
        max_rel: largest error relative to the scale of its window, over all kinds.
        per_kind: the same for each kind of window.
    """

    max_abs: float
    max_rel: float
    tolerance: float
    passed: bool
    per_kind: Mapping[str, KindParity]

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def describe(self) -> str:
        """The kind of window that is worst, in one line."""
        kind, worst = max(self.per_kind.items(), key=lambda item: _order(item[1].max_share))
        return (
            f"worst on {kind} windows, by {worst.max_rel:.3g} of the window's scale, "
            f"expected at most {worst.max_rel / worst.max_share if worst.max_share else self.tolerance:.3g}"
        )


def hard_windows(real: np.ndarray) -> dict[str, np.ndarray]:
    """Six kinds of windows ``[8, D, L]`` float32 made from real ones ``[N, D, L]``, always the same.

    real, constant (zero variance), near_constant (variance near the epsilon of a normalisation), huge and
    tiny (1e5 and 1e-5 times the real ones), ramp (no two steps equal, the mean far from the last value).
    """
    count, steps = max(BATCHES), real.shape[-1]
    windows = real[spread(len(real), count)].astype(np.float32)
    constant = np.broadcast_to(windows.mean(axis=-1, keepdims=True), windows.shape)
    noise = np.random.default_rng(0).standard_normal(windows.shape) * CONSTANT_NOISE
    slope = np.ptp(windows, axis=-1, keepdims=True)
    kinds = {
        "real": windows,
        "constant": constant,
        "near_constant": constant + noise,
        "huge": windows * 1e5,
        "tiny": windows * 1e-5,
        "ramp": windows[..., :1] + (slope + 1.0) * np.linspace(-1.0, 1.0, steps),
    }
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in kinds.items()}


def check_parity(
    engine: Callable[[np.ndarray], np.ndarray],
    model: Callable[[np.ndarray], np.ndarray],
    windows: Mapping[str, np.ndarray],
    tolerance: float,
) -> Parity:
    """Runs both on every kind of window, at batch 8 and at batch 1.

    Args:
        engine: what was lowered, ``[B, D, L] -> [B, D, H]``.
        model: the original, same shapes.
        windows: as ``hard_windows`` makes them; ``real`` must be among them.
        tolerance: see the top of this file.
    """
    per_kind = {}
    for kind, past in windows.items():
        found = KindParity(0.0, 0.0, 0.0)
        for batch in BATCHES:
            errors, scales = _errors(engine, model, past[:batch])
            allowed = np.maximum(
                tolerance * scales, FACTOR * neighbours(model, past[:batch]) + means(model, past[:batch])
            )
            with np.errstate(invalid="ignore"):  # infinite over infinite is NaN, and that is the worst of all
                shares = errors / allowed
            found = KindParity(
                _worse(found.max_abs, errors.max()),
                _worse(found.max_rel, (errors / scales).max()),
                _worse(found.max_share, shares.max()),
            )
        per_kind[kind] = found
    worst = share = 0.0
    for found in per_kind.values():
        worst, share = _worse(worst, found.max_rel), _worse(share, found.max_share)
    return Parity(per_kind["real"].max_abs, worst, tolerance, share <= 1.0, per_kind)


def _errors(
    engine: Callable[[np.ndarray], np.ndarray], model: Callable[[np.ndarray], np.ndarray], past: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Largest error and scale of every window, each ``[B]``; another shape counts as infinitely wrong."""
    expected = np.asarray(model(past), dtype=np.float64)
    got = np.asarray(engine(past), dtype=np.float64)
    scale = window_scale(past.astype(np.float64), expected)
    scale = np.where(scale > 0, scale, 1.0)  # a window of zeros with a forecast of zeros
    if got.shape != expected.shape:
        return np.full(len(past), math.inf), scale
    return np.abs(got - expected).max(axis=(1, 2)), scale


def _worse(one: float, other: float) -> float:
    """The larger error; NaN, which compares as nothing, is the largest of all."""
    return max(float(one), float(other), key=_order)


def _order(error: float) -> float:
    return math.inf if math.isnan(error) else error
