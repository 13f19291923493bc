"""Exact minimisers: affine students solved from sums, and judged from sums, without touching data.

The student forecasts ``m + W_d (x - m)``.  With a ridge of ``ridge * trace(G) / L`` the minimiser of

    sum |y_t - w_t x|^2 + lambda * weight_t * sum |teacher_t - w_t x|^2 + ridge * (1 + lambda * weight_t) |w_t|^2

is, per step t, the blend of the student of the truth and the student of the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .window_sums import Array, Statistics

Form = Literal["shared", "per-variate", "low-rank"]
DEFAULT_RIDGE = 0.01
# Relative to the mean of the Gram's diagonal; below it the inverse is rounding noise.
SMALLEST_RIDGE = 1e-9


@dataclass(frozen=True)
class Setting:
    """What a student is fitted to, and in which form.

    Attributes:
        form: one map for all variates, one each, or a shared basis with a head each.
        rank: of the shared basis, 0 for the other forms.
        ridge: relative to the mean of the Gram's diagonal.
        distill: weight lambda of the teacher; infinite for the teacher alone.
        tau: growth of the teacher's weight over the horizon.
        teachers: weight of each teacher among the teachers, positive, together 1.
    """

    form: Form = "shared"
    rank: int = 0
    ridge: float = DEFAULT_RIDGE
    distill: float = 0.0
    tau: float = 0.0
    teachers: tuple[tuple[str, float], ...] = ()

    def macs(self, lookback: int, horizon: int) -> int:
        """Multiply-adds per variate."""
        return self.rank * (lookback + horizon) if self.form == "low-rank" else lookback * horizon

    def parameters(self, variates: int, lookback: int, horizon: int) -> int:
        """Numbers to store."""
        if self.form == "low-rank":
            return self.rank * (lookback + variates * horizon)
        return lookback * horizon * (variates if self.form == "per-variate" else 1)


@dataclass(frozen=True, eq=False)
class AffineSolution:
    """A solved student.

    Attributes:
        form: see ``Setting``.
        matrix: ``[H, L]`` for shared, ``[D, H, L]`` per variate, None for low rank.
        basis: ``[r, L]`` for low rank.
        heads: ``[D, H, r]`` for low rank.
    """

    form: Form
    matrix: Array | None = None
    basis: Array | None = None
    heads: Array | None = None

    def maps(self) -> Array:
        """The maps multiplied out: ``[1, H, L]`` for shared, else ``[D, H, L]``."""
        if self.matrix is not None:
            return self.matrix if self.matrix.ndim == 3 else self.matrix[None]
        assert self.basis is not None and self.heads is not None
        product: Array = self.heads @ self.basis
        return product

    def predict(self, past: npt.NDArray[np.floating]) -> Array:
        """Forecasts ``[B, D, H]`` of windows ``[B, D, L]``."""
        means = past.mean(axis=-1, keepdims=True, dtype=np.float64)
        centred = past - means
        if self.basis is not None and self.heads is not None:
            forecast = np.einsum("bdr,dhr->bdh", centred @ self.basis.T, self.heads)
        elif self.form == "shared":
            forecast = centred @ self.maps()[0].T
        else:
            forecast = np.einsum("bdl,dhl->bdh", centred, self.maps(), optimize=True)
        return np.asarray(forecast + means)


def horizon_weights(tau: float, horizon: int) -> Array:
    """``[H]`` exp(tau t / (H-1)) at mean 1 (DistilTS, horizon-weighted distillation)."""
    raw = np.exp(tau * np.arange(horizon) / max(1, horizon - 1))
    return np.asarray(raw / raw.mean())


def blend(setting: Setting, horizon: int) -> tuple[Array, Array]:
    """``[H]`` shares of the truth and of the teacher in the target, together 1 at every step."""
    if math.isinf(setting.distill):
        return np.zeros(horizon), np.ones(horizon)
    weight = setting.distill * horizon_weights(setting.tau, horizon)
    return 1 / (1 + weight), weight / (1 + weight)


def mixed_teacher(values: Mapping[str, Array], mix: tuple[tuple[str, float], ...]) -> Array:
    """The weighted sum of some teachers' products with the windows."""
    first, *rest = mix
    total = values[first[0]] * first[1]
    for name, weight in rest:
        total = total + values[name] * weight
    return np.asarray(total)


def target_products(statistics: Statistics, setting: Setting) -> Array:
    """``[D, L, H]`` products of the windows with the blended target."""
    if setting.distill == 0 or not setting.teachers:
        return statistics.truth
    truth, teacher = blend(setting, statistics.shape[2])
    return np.asarray(
        statistics.truth * truth + mixed_teacher(statistics.teachers, setting.teachers) * teacher
    )


def ridge_of(gram: Array, ridge: float) -> float:
    """The number added to the diagonal of ``gram [L, L]``; positive also where the Gram is zero."""
    return float(max(ridge, SMALLEST_RIDGE) * np.trace(gram) / len(gram)) or 1.0


def factor(gram: Array, ridge: float) -> torch.Tensor:
    """Cholesky factor ``C`` of ``gram + ridge`` with ``C C' = gram + ridge``."""
    regular = torch.from_numpy(np.array(gram))
    regular.diagonal().add_(ridge_of(gram, ridge))
    return torch.linalg.cholesky(regular)


def solve_with(cholesky: torch.Tensor, products: Array) -> Array:
    """``(gram + ridge)^-1 products``."""
    return np.asarray(torch.cholesky_solve(torch.from_numpy(np.ascontiguousarray(products)), cholesky))


def solve(statistics: Statistics, setting: Setting) -> AffineSolution:
    """The exact minimiser of a setting's objective over the windows in ``statistics``."""
    if setting.form == "shared":
        pooled = statistics.pooled()
        weights = solve_with(factor(pooled.gram[0], setting.ridge), target_products(pooled, setting)[0])
        return AffineSolution("shared", matrix=np.ascontiguousarray(weights.T))
    products = target_products(statistics, setting)
    if setting.form == "per-variate":
        maps = [solve_with(factor(g, setting.ridge), p).T for g, p in zip(statistics.gram, products, strict=True)]
        return AffineSolution("per-variate", matrix=np.stack(maps))
    whitening = factor(statistics.gram.sum(axis=0), setting.ridge)
    upper = whitening.numpy().T
    spread = np.zeros((len(upper), len(upper)))
    for gram, product in zip(statistics.gram, products, strict=True):
        stacked = upper @ solve_with(factor(gram, setting.ridge), product)
        spread += stacked @ stacked.T
    directions = np.linalg.eigh(spread)[1][:, ::-1][:, : setting.rank]
    basis = basis_of(whitening, directions)
    heads = [
        fit_head(basis @ gram @ basis.T, basis @ product, ridge_of(gram, setting.ridge) * (basis @ basis.T)).T
        for gram, product in zip(statistics.gram, products, strict=True)
    ]
    return AffineSolution("low-rank", basis=basis, heads=np.stack(heads))


def basis_of(whitening: torch.Tensor, directions: Array) -> Array:
    """``[r, L]`` from directions ``[L, r]`` in whitened coordinates: ``directions' C^-1``."""
    solved = torch.linalg.solve_triangular(
        whitening.mT, torch.from_numpy(np.ascontiguousarray(directions)), upper=True
    )
    return np.ascontiguousarray(solved.numpy().T)


def fit_head(gram: Array, product: Array, penalty: Array) -> Array:
    """``[r, H]`` least squares on the embedding, with the ridge on the map that it is part of."""
    return np.asarray(np.linalg.solve(gram + penalty, product))


def squared_error(statistics: Statistics, solution: AffineSolution) -> float:
    """Mean squared error over all windows, variates and steps in ``statistics``, exactly."""
    cells = statistics.count * statistics.truth_square.size
    maps = solution.maps()
    sums = statistics.pooled() if len(maps) == 1 else statistics
    total = float(sums.truth_square.sum())
    for gram, product, matrix in zip(sums.gram, sums.truth, maps, strict=True):
        total += float(np.sum((matrix @ gram - 2 * product.T) * matrix))
    return total / cells


def singular_note(statistics: Statistics) -> str | None:
    """A line for the user where only the ridge makes the solution unique."""
    variates, lookback, _ = statistics.shape
    constant = int(sum(np.trace(gram) == 0 for gram in statistics.gram))
    if constant:
        return f"{constant} of {variates} variates are constant in training; their map is 0 by the ridge"
    # Centred windows span at most lookback - 1 dimensions, one window at most one.
    if statistics.count < lookback - 1:
        return f"{statistics.count:.0f} windows for a lookback of {lookback}: the ridge makes the solution unique"
    return None
