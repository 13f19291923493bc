"""What every candidate of a rolling origin would have cost on a block, from sums alone.

All targets are blends of a few: the truth and each mix of teachers.  A map is linear in its target, so a
few maps are solved for each penalty, and the error of any blend follows from the products of those maps
with the block's sums.  Dense maps are judged exactly.  Low-rank candidates are compared inside the leading
directions of the solved maps of all variates and targets together, of which every rank keeps a fraction;
the chosen one is solved without this shortcut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .affine import Setting, basis_of, blend, factor, fit_head, mixed_teacher, ridge_of, state_weight
from .grid import PLAIN, PLAIN_ONLY, Grid, Target
from .statistics import STATES, Fold, Sums

WORKING_DIRECTIONS = 128


def judge(fold: Fold, grid: Grid) -> dict[Setting, float]:
    """MSE of every candidate of ``grid``, and of the plain one, on the judged block."""
    wanted = {PLAIN, *_settings(fold, grid)}
    found: dict[Setting, float] = {}
    for prior in grid.priors:
        leaning = replace(fold, fit=fold.fit.with_prior(fold.prior, prior))
        for setting, error in _judge(leaning, grid.leaning(prior)).items():
            found[replace(setting, prior=prior)] = error
    if PLAIN not in found:
        found |= _judge(fold, PLAIN_ONLY)
    return {setting: error for setting, error in found.items() if setting in wanted}


def _settings(fold: Fold, grid: Grid) -> list[Setting]:
    variates, lookback, horizon = fold.fit.cross["truth"].shape
    return grid.settings(lookback, horizon, variates)


def _judge(fold: Fold, grid: Grid) -> dict[Setting, float]:
    """MSE of what ``grid`` asks for, and of what falls off on the way, fitted as ``fold`` has it."""
    variates, _, horizon = fold.fit.cross["truth"].shape
    settings = _settings(fold, grid)
    forms = {setting.form for setting in settings}
    found: dict[Setting, float] = {}
    fit, block = fold.fit.pooled(), fold.judged.pooled()
    count = fold.fit.count
    for ridge in dict.fromkeys((*grid.ridges, PLAIN.ridge)):
        found |= _dense(Setting("shared", 0, ridge), block, grid, _solved(fit, ridge / count, grid))
    # One map each under the plain ridge: a candidate of its own, and what low ranks are sought among.
    own = _solved(fold.fit, PLAIN.ridge / count, grid) if forms - {"shared"} else []
    if "per-variate" in forms:
        for ridge, pooling in grid.penalties("per-variate"):
            setting = Setting("per-variate", 0, ridge, pooling=pooling)
            same = (ridge, pooling) == (PLAIN.ridge, 0.0)
            maps = own if same else _solved(fold.fit.blended(pooling), ridge / count, grid)
            found |= _dense(setting, fold.judged, grid, maps)
    if "low-rank" in forms:
        ranks = sorted({setting.rank for setting in settings if setting.form == "low-rank"})
        space = Subspace.of(fold, grid, own)
        # Each penalty is thousands of small products, which threads of one product would only wait for.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = [
                pool.submit(space.judge, ridge, pooling, ranks, grid)
                for ridge, pooling in grid.penalties("low-rank")
            ]
            for each in running:
                found |= each.result()
    cells = fold.judged.count * variates * horizon
    square = float(fold.judged.square["truth"].sum())
    return {setting: (error + square) / cells for setting, error in found.items()}


def _solved(fit: Sums, relative: float, grid: Grid) -> list[Tensor]:
    """For each variate its maps to the truth and to each mix, ``[L, (1 + M) H]``.

    Args:
        relative: the ridge over the windows of one variate, also where all are pooled.
    """
    return [
        torch.cholesky_solve(cross, factor(gram, relative))
        for gram, cross in zip(fit.gram, _crosses(fit, grid), strict=True)
    ]


def _solved_states(fit: Sums, relative: float, align: float) -> list[Tensor]:
    """For each variate its map to the states ``[L, K]``, times the root of what they count."""
    root = state_weight(fit, align) ** 0.5
    return [
        root * torch.cholesky_solve(cross, factor(gram, relative))
        for gram, cross in zip(fit.gram, fit.cross[STATES], strict=True)
    ]


def _crosses(sums: Sums, grid: Grid) -> Tensor:
    """``[D, L, (1 + M) H]``: products with the truth and with each mix of teachers."""
    mixes = [mixed_teacher(sums.cross, mix) for mix in grid.mixes]
    return torch.cat([sums.cross["truth"], *mixes], dim=2)


def _dense(setting: Setting, judged: Sums, grid: Grid, solved: Sequence[Tensor]) -> dict[Setting, float]:
    """Squared error less the target's square of ``setting`` with every target."""
    horizon = judged.cross["truth"].shape[2]
    parts = 1 + len(grid.mixes)
    quadratic = torch.zeros(parts, parts, horizon, dtype=torch.float64)
    linear = torch.zeros(parts, horizon, dtype=torch.float64)
    for maps, gram, cross in zip(solved, judged.gram, judged.cross["truth"], strict=True):
        split = torch.unflatten(maps, 1, (parts, horizon))
        image = torch.unflatten(gram @ maps, 1, (parts, horizon))
        quadratic += torch.einsum("lph,lqh->pqh", split, image)
        linear += torch.einsum("lph,lh->ph", split, cross)
    found = {}
    for target in grid.targets():
        shares = _shares(target, grid, horizon)
        error = torch.einsum("ph,qh,pqh->", shares, shares, quadratic) - 2 * (shares * linear).sum()
        found[_aimed(setting, target)] = float(error)
    return found


def _aimed(setting: Setting, target: Target) -> Setting:
    weight, tau, mix = target
    return replace(setting, distill=weight, tau=tau, teachers=mix)


def _shares(target: Target, grid: Grid, horizon: int) -> Tensor:
    """``[1 + M, H]``: how much of the truth and of each mix is in the target."""
    shares = torch.zeros(1 + len(grid.mixes), horizon, dtype=torch.float64)
    mix = target[2]
    if not mix:
        shares[0] = 1
        return shares
    shares[0], shares[1 + grid.mixes.index(mix)] = blend(_aimed(PLAIN, target), horizon)
    return shares


@dataclass(frozen=True, eq=False)
class Subspace:
    """A fold seen through ``K`` leading directions of the window.

    Attributes:
        fit: sums of the fit, ``gram [D, K, K]``, every product with the window ``[D, K, H]``.
        judged: of the judged block.
        metric: ``[K, K]``, products of the directions with each other: the ridge is one on the whole map.
        pooled: ``[K, K]`` Gram of the average variate.
        pooled_scale: mean of the diagonal of its whole Gram.
        scale: ``[D]`` mean of the diagonal of each variate's whole Gram.
    """

    fit: Sums
    judged: Sums
    metric: Tensor
    pooled: Tensor
    pooled_scale: float
    scale: Tensor

    @classmethod
    def of(cls, fold: Fold, grid: Grid, own: Sequence[Tensor]) -> Subspace:
        """The directions that the maps of all variates and targets use most, under the plain ridge.

        Args:
            own: these maps without pooling.
        """
        relative = PLAIN.ridge / fold.fit.count
        pooled = fold.fit.gram.mean(0)
        whitening = factor(pooled, relative)
        # Those of pooled maps too: they are no blends of the others.
        ends = dict.fromkeys((0.0, max(grid.poolings))) if len(fold.fit.gram) > 1 else (0.0,)
        fits = [fold.fit.blended(pooling) for pooling in ends]
        maps = [*own, *(part for fit in fits[1:] for part in _solved(fit, relative, grid))]
        if most := max(grid.aligns):
            maps += [part for fit in fits for part in _solved_states(fit, relative, most)]
        white = whitening.T @ torch.cat(maps, dim=1)  # [L, 2 D (1+M) H]
        leading = torch.linalg.eigh(white @ white.T)[1].flip(1)[:, :WORKING_DIRECTIONS]
        basis = basis_of(whitening, leading)  # [K, L]
        return cls(
            _projected(fold.fit, basis),
            _projected(fold.judged, basis),
            basis @ basis.T,
            basis @ pooled @ basis.T,
            ridge_of(pooled, 1.0),
            torch.tensor([ridge_of(gram, 1.0) for gram in fold.fit.gram], dtype=torch.float64),
        )

    def judge(self, ridge: float, pooling: float, ranks: Sequence[int], grid: Grid) -> dict[Setting, float]:
        """Squared error less the target's square, for every target and rank."""
        fit, horizon, parts = self.fit.blended(pooling), self.fit.cross["truth"].shape[2], 1 + len(grid.mixes)
        scale = self.scale
        if len(scale) > 1:
            scale = (scale + pooling * scale.mean()) / (1 + pooling)
        normal = fit.gram + (ridge / fit.count * scale)[:, None, None] * self.metric
        crosses = _crosses(fit, grid)
        lower = torch.linalg.cholesky(normal)
        maps = torch.cholesky_solve(crosses, lower)
        whitening = torch.linalg.cholesky(self.pooled + ridge / fit.count * self.pooled_scale * self.metric)
        white = torch.unflatten(whitening.T @ maps, 2, (parts, horizon))
        crosses = torch.unflatten(crosses, 2, (parts, horizon))
        aligned = {}
        for align in filter(None, grid.aligns):
            states = whitening.T @ torch.cholesky_solve(fit.cross[STATES], lower)
            aligned[align] = state_weight(fit, align) * (states @ states.mT).sum(0)
        found = {}
        for target in grid.targets():
            shares = _shares(target, grid, horizon)
            blended = torch.einsum("dkph,ph->kdh", white, shares).flatten(1)
            wanted = torch.einsum("dkph,ph->dkh", crosses, shares)
            for align in grid.aligns:
                spread = blended @ blended.T
                spread = spread + aligned[align] if align else spread
                leading = torch.linalg.eigh(spread)[1].flip(1)[:, : max(ranks)]
                basis = basis_of(whitening, leading)  # [r, K]
                setting = replace(_aimed(PLAIN, target), form="low-rank", ridge=ridge, pooling=pooling)
                for rank, error in self._errors(basis, normal, wanted, ranks):
                    found[replace(setting, rank=rank, align=align)] = error
        return found

    def _errors(
        self, basis: Tensor, normal: Tensor, products: Tensor, ranks: Sequence[int]
    ) -> Iterator[tuple[int, float]]:
        """(rank, squared error less the target's square) with the leading rows of ``basis [r, K]``."""
        gram, product = basis @ normal @ basis.T, basis @ products
        image, judged = basis @ self.judged.gram @ basis.T, basis @ self.judged.cross["truth"]
        for rank in ranks:
            head = fit_head(gram[:, :rank, :rank], product[:, :rank], torch.zeros(()))
            error = (head * (image[:, :rank, :rank] @ head - 2 * judged[:, :rank])).sum()
            yield rank, float(error)


def _projected(sums: Sums, basis: Tensor) -> Sums:
    """The sums of ``basis @ x`` in the place of ``x``."""
    cross = {name: basis @ value for name, value in sums.cross.items()}
    return Sums(sums.count, basis @ sums.gram @ basis.T, cross, sums.square)
