"""Exact minimisers: affine students solved from sums, and judged from sums, without touching data.

The student forecasts ``m + W_d (x - m)``.  With ``ridge = windows / count * trace(G) / L`` the minimiser of

    sum |y_t - w_t x|^2 + lambda * weight_t * sum |teacher_t - w_t x|^2
        + ridge * (1 + lambda * weight_t) * |w_t|^2

is, per step t, the blend of the student of the truth and the student of the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .statistics import STATES, Sums

Form = Literal["shared", "per-variate", "low-rank"]
DEFAULT_RIDGE = 100.0
DEFAULT_PRIOR = 1000.0
# Relative to the mean of the Gram's diagonal; below it the inverse is rounding noise.
SMALLEST_RIDGE = 1e-9


@dataclass(frozen=True)
class Setting:
    """What a student is fitted to, and in which form.

    Attributes:
        form: one map for all variates, one each, or a shared basis with a head each.
        rank: of the shared basis, 0 for the other forms.
        ridge: strength of the penalty in windows: ``ridge / count`` of the mean of the Gram's diagonal.  As a
            prior it stays what it is while data grow, so what suits a fold of a rolling origin suits the end.
        distill: weight lambda of the teacher; infinite for the teacher alone.
        tau: growth of the teacher's weight over the horizon.
        teachers: weight of each teacher among the teachers, positive, together 1.
        pooling: weight of the average variate's statistics beside a variate's own, where variates have maps
            or heads of their own (partial pooling, between one map each and one for all).
        prior: weight of the teacher on synthetic windows, in windows, as the ridge; see ``Sums.with_prior``.
        align: weight of the teacher's states in shaping the basis of the low-rank form; at 1 they count as
            much as the forecast, see ``state_weight``.
    """

    form: Form = "shared"
    rank: int = 0
    ridge: float = DEFAULT_RIDGE
    distill: float = 0.0
    tau: float = 0.0
    teachers: tuple[tuple[str, float], ...] = ()
    pooling: float = 0.0
    prior: float = 0.0
    align: float = 0.0

    @property
    def taught(self) -> bool:
        """Whether a teacher has a part in it: by its labels, on synthetic windows, or by its states."""
        return bool(self.teachers and self.distill) or self.prior > 0 or self.align > 0

    def macs(self, lookback: int, horizon: int) -> int:
        """Multiply-adds per variate."""
        return self.rank * (lookback + horizon) if self.form == "low-rank" else lookback * horizon

    def parameters(self, variates: int, lookback: int, horizon: int) -> int:
        """Numbers to store."""
        if self.form == "low-rank":
            return self.rank * (lookback + variates * horizon)
        return lookback * horizon * (variates if self.form == "per-variate" else 1)


def setting_of(fields: Any) -> Setting:
    """The setting that a unit keeps as plain fields."""
    return Setting(**{**fields, "teachers": tuple((name, share) for name, share in fields["teachers"])})


@dataclass(frozen=True, eq=False)
class AffineSolution:
    """A solved student, in coordinates centred by the window's mean.

    Attributes:
        form: see ``Setting``.
        matrix: ``[H, L]`` for shared, ``[D, H, L]`` per variate, None for low rank.
        basis: ``[r, L]`` for low rank.
        heads: ``[D, H, r]`` for low rank.
    """

    form: Form
    matrix: Tensor | None = None
    basis: Tensor | None = None
    heads: Tensor | None = None

    def maps(self) -> Tensor:
        """The maps multiplied out: ``[1, H, L]`` for shared, else ``[D, H, L]``."""
        if self.basis is not None and self.heads is not None:
            return self.heads @ self.basis
        assert self.matrix is not None
        return self.matrix if self.matrix.ndim == 3 else self.matrix[None]

    def arrays(self) -> tuple[Tensor, ...]:
        """The arrays of the form: one matrix, or basis and heads."""
        return tuple(part for part in (self.matrix, self.basis, self.heads) if part is not None)

    def predict(self, past: Tensor) -> Tensor:
        """Forecasts ``[B, D, H]`` of windows ``[B, D, L]``, float64."""
        past = past.double()
        mean = past.mean(dim=-1, keepdim=True)
        if self.basis is not None and self.heads is not None:
            return ((past - mean) @ self.basis.T)[..., None, :].matmul(self.heads.mT).squeeze(-2) + mean
        return (past - mean)[..., None, :].matmul(self.maps().mT).squeeze(-2) + mean


def horizon_weights(tau: float, horizon: int) -> Tensor:
    """``[H]`` exp(tau t / (H-1)) at mean 1 (DistilTS, horizon-weighted distillation)."""
    ramp = torch.arange(horizon, dtype=torch.float64) / max(1, horizon - 1)
    # softmax * H is the same quotient and cannot overflow.
    return torch.softmax(tau * ramp, dim=0) * horizon


def blend(setting: Setting, horizon: int) -> tuple[Tensor, Tensor]:
    """``[H]`` shares of the truth and of the teacher in the target, together 1 at every step."""
    if math.isinf(setting.distill):
        return torch.zeros(horizon, dtype=torch.float64), torch.ones(horizon, dtype=torch.float64)
    weight = setting.distill * horizon_weights(setting.tau, horizon)
    return 1 / (1 + weight), weight / (1 + weight)


def mixed_teacher(cross: Mapping[str, Tensor], mix: Sequence[tuple[str, float]]) -> Tensor:
    """The weighted sum of some teachers' products with the windows, weights together 1."""
    scale = sum(weight for _, weight in mix)
    return torch.stack([cross[name] * (weight / scale) for name, weight in mix]).sum(0)


def target_products(sums: Sums, setting: Setting) -> Tensor:
    """``[D, L, H]`` products of the windows with the blended target."""
    if setting.distill == 0 or not setting.teachers:
        return sums.cross["truth"]
    truth, teacher = blend(setting, sums.cross["truth"].shape[2])
    return sums.cross["truth"] * truth + mixed_teacher(sums.cross, setting.teachers) * teacher


def ridge_of(gram: Tensor, ridge: float) -> float:
    """``ridge`` times the mean of the diagonal of ``gram [L, L]``; positive also where the Gram is zero."""
    return max(ridge, SMALLEST_RIDGE) * float(gram.trace()) / len(gram) or 1.0


def factor(gram: Tensor, ridge: float) -> Tensor:
    """Cholesky factor ``C`` with ``C C' = gram + ridge_of(gram, ridge)``."""
    regular = gram.clone()
    regular.diagonal().add_(ridge_of(gram, ridge))
    lower: Tensor = torch.linalg.cholesky(regular)
    return lower


def solve(sums: Sums, setting: Setting, prior: Sums | None = None) -> AffineSolution:
    """The exact minimiser of a setting's objective over the windows in ``sums``, and the prior's.

    A basis of low rank keeps the leading directions of the maps to all targets, whitened (reduced-rank
    regression); with ``align`` the teacher's states are further targets, which have no part in the heads.
    """
    sums = sums.with_prior(prior, setting.prior)
    ridge = setting.ridge / max(sums.count, 1)
    if setting.form == "shared":
        pooled = sums.pooled()
        weights = torch.cholesky_solve(target_products(pooled, setting)[0], factor(pooled.gram[0], ridge))
        return AffineSolution("shared", matrix=weights.T.contiguous())
    sums = sums.blended(setting.pooling)
    products = target_products(sums, setting)
    if setting.form == "per-variate":
        maps = [
            torch.cholesky_solve(product, factor(gram, ridge)).T
            for gram, product in zip(sums.gram, products, strict=True)
        ]
        return AffineSolution("per-variate", matrix=torch.stack(maps))
    whitening = factor(sums.gram.sum(0), ridge)
    spread = torch.zeros_like(whitening)
    aimed = products
    if setting.align:
        aimed = torch.cat([products, state_weight(sums, setting.align) ** 0.5 * sums.cross[STATES]], dim=2)
    for gram, product in zip(sums.gram, aimed, strict=True):
        white = whitening.T @ torch.cholesky_solve(product, factor(gram, ridge))
        spread += white @ white.T
    directions = torch.linalg.eigh(spread)[1].flip(1)[:, : setting.rank]
    basis = basis_of(whitening, directions)
    heads = [
        fit_head(basis @ gram @ basis.T, basis @ product, ridge_of(gram, ridge) * basis @ basis.T).T
        for gram, product in zip(sums.gram, products, strict=True)
    ]
    return AffineSolution("low-rank", basis=basis, heads=torch.stack(heads))


def state_weight(sums: Sums, align: float) -> float:
    """What a square of the states counts beside a square of the forecast.

        align * sum (truth - m)^2 / sum states^2

    so that ``align`` compares shares of what there is to explain, whatever the number and scale of states.
    """
    states = float(sums.square[STATES].sum())
    return align * float(sums.square["truth"].sum()) / states if states else 0.0


def basis_of(whitening: Tensor, directions: Tensor) -> Tensor:
    """``[r, L]`` from directions ``[L, r]`` in whitened coordinates: ``directions' C^-1``."""
    rows: Tensor = torch.linalg.solve_triangular(whitening.T, directions, upper=True)
    return rows.T.contiguous()


def fit_head(gram: Tensor, product: Tensor, penalty: Tensor) -> Tensor:
    """``[..., r, H]`` least squares on the embedding, with the ridge on the map that it is part of."""
    return torch.cholesky_solve(product, torch.linalg.cholesky(gram + penalty))


def squared_error(sums: Sums, solution: AffineSolution) -> float:
    """Mean squared error over all windows, variates and steps in ``sums``, exactly."""
    cells = sums.count * sums.square["truth"].numel()
    maps = solution.maps()
    sums = sums.pooled() if len(maps) == 1 else sums
    total = float(sums.square["truth"].sum())
    for gram, product, matrix in zip(sums.gram, sums.cross["truth"], maps, strict=True):
        total += float(((matrix @ gram - 2 * product.T) * matrix).sum())
    return total / cells


def singular_note(sums: Sums) -> str | None:
    """A line for the user where only the ridge makes the solution unique."""
    variates, lookback, _ = sums.gram.shape
    constant = sum(float(gram.trace()) == 0 for gram in sums.gram)
    if constant:
        return f"{constant} of {variates} variates are constant in training; their map is 0 by the ridge"
    # A window spans one dimension of the lookback - 1 that centred windows have.
    if sums.count < lookback - 1:
        return f"{sums.count} windows for a lookback of {lookback}: the ridge makes the solution unique"
    return None
