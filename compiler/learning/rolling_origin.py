"""Choosing an affine student's setting by rolling origins, never by the test split.

Training is cut into blocks of time; every candidate is fitted on the windows before a block and judged on
the block, and once more on the validation split.  A single validation period misleads: one odd season can
prefer what every other period refutes.  The judgement is the mean over blocks of the logarithm of a
candidate's MSE over that of the plain candidate (one shared map, no teacher), so that a block with a large
error counts as much as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .affine import (
    DEFAULT_RIDGE,
    AffineSolution,
    Form,
    Setting,
    basis_of,
    blend,
    factor,
    fit_head,
    mixed_teacher,
    ridge_of,
    singular_note,
    solve,
    squared_error,
)
from .statistics import Fold, Sums

# Low-rank candidates are compared inside the leading directions of all their targets together, of which
# every rank keeps a fraction; the chosen one is solved without this shortcut.
WORKING_DIRECTIONS = 128
PLAIN = Setting()


class Folds(Protocol):
    """Where the sums come from; the last fold is validation, fitted on all of training."""

    def folds(self) -> Iterator[Fold]:
        """In the order of time."""


@dataclass(frozen=True)
class Grid:
    """The candidates: every combination, the teacher's weights only where there is a teacher."""

    forms: tuple[Form, ...] = ("shared", "per-variate", "low-rank")
    ranks: tuple[int, ...] = (8, 16, 24, 32, 48)
    ridges: tuple[float, ...] = (10.0, DEFAULT_RIDGE, 1000.0)
    distill: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
    taus: tuple[float, ...] = (0.0, 1.0)
    mixes: tuple[tuple[tuple[str, float], ...], ...] = ()
    """Teachers and their weights, each a candidate of its own."""

    def targets(self) -> list[tuple[float, float, tuple[tuple[str, float], ...]]]:
        """(lambda, tau, mix) of all targets that are judged, the truth alone first."""
        found: list[tuple[float, float, tuple[tuple[str, float], ...]]] = []
        for mix in ((), *self.mixes):
            for weight in self.distill if mix else (0.0,):
                if mix and weight == 0:
                    continue
                taus = self.taus if mix and math.isfinite(weight) else (0.0,)
                found += [(weight, tau, mix) for tau in taus]
        return found

    def settings(self, lookback: int, horizon: int, variates: int) -> list[Setting]:
        """All candidates; ranks that a dense map can not exceed are left out, as is what is the same.

        The truth alone is one where there is no teacher, or where no weight is among the teacher's weights.
        """
        targets = [target for target in self.targets() if target[2] or not self.mixes or 0 in self.distill]
        found = []
        for form in self.forms:
            if form == "per-variate" and variates == 1 and "shared" in self.forms:
                continue
            limit = min(lookback - 1, horizon * variates)
            ranks = [rank for rank in self.ranks if rank <= limit] if form == "low-rank" else [0]
            for ridge in self.ridges:
                for weight, tau, mix in targets:
                    found += [Setting(form, rank, ridge, weight, tau, mix) for rank in ranks]
        return found


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen.

    Attributes:
        chosen: the setting.
        solution: fitted on all of training with it.
        validation_mse: of the solution, on scaled data.
        table: a row for each candidate: its setting, mean log ratio, standard error, MSE per fold.
        warnings: lines for the user.
    """

    chosen: Setting
    solution: AffineSolution
    validation_mse: float
    table: list[dict[str, Any]]
    warnings: tuple[str, ...] = ()


def select(source: Folds, grid: Grid) -> Selection:
    """Judges all candidates fold by fold, takes the mean of the near-best and fits it on all of training."""
    names: list[str] = []
    errors: dict[Setting, list[float]] = {}
    last: Fold | None = None
    for fold in source.folds():
        names.append(fold.name)
        for setting, error in judge(fold, grid).items():
            errors.setdefault(setting, []).append(error)
        last = fold
    if last is None:
        raise ValueError("a source without folds")
    final = last.fit
    note = singular_note(final)
    warnings = [note] if note else []
    if len(names) == 1:
        warnings.append("too few windows for rolling origins: chosen by the validation split alone")
    plain = errors[PLAIN]
    ratios = {
        setting: torch.tensor(
            [math.log((mine + 1e-12) / (base + 1e-12)) for mine, base in zip(found, plain, strict=True)],
            dtype=torch.float64,
        )
        for setting, found in errors.items()
    }
    variates, lookback, horizon = final.cross["truth"].shape
    # What all are compared with need not be among what was asked for.
    asked = {setting: ratios[setting] for setting in grid.settings(lookback, horizon, variates)}
    close = near_best(asked, lambda setting: setting.flexibility(lookback, horizon))
    chosen = mean_setting(close)
    solution = solve(final, chosen)
    table = [
        {
            **_row(setting),
            "parameters": setting.parameters(variates, lookback, horizon),
            "macs": setting.macs(lookback, horizon),
            "log_ratio": float(values.mean()),
            "standard_error": standard_error(values),
            "mse": dict(zip(names, errors[setting], strict=True)),
            "near_best": setting in close,
        }
        for setting, values in ratios.items()
    ]
    validation = squared_error(last.judged, solution)
    return Selection(chosen, solution, validation, table, tuple(warnings))


def _row(setting: Setting) -> dict[str, Any]:
    return {
        "form": setting.form,
        "rank": setting.rank,
        "ridge": setting.ridge,
        "lambda": setting.distill if math.isfinite(setting.distill) else "inf",
        "tau": setting.tau,
        "teachers": dict(setting.teachers),
    }


def standard_error(values: Tensor) -> float:
    """Of the mean of paired differences, 0 for a single one."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0


def near_best(ratios: Mapping[Setting, Tensor], flexibility: Callable[[Setting], int]) -> tuple[Setting, ...]:
    """The settings among which the folds cannot tell, in the least flexible form that has any.

    A setting is near the best one when its mean is within one standard error of the paired differences.
    The shared map comes first, since nothing of it is fitted to one variate alone; then low ranks, then a
    map each.
    """
    best = min(ratios, key=lambda setting: float(ratios[setting].mean()))
    gaps = {setting: values - ratios[best] for setting, values in ratios.items()}
    close = [setting for setting, gap in gaps.items() if float(gap.mean()) <= standard_error(gap)]
    plainest = min(close, key=flexibility)
    return tuple(
        setting for setting in close if (setting.form, setting.rank) == (plainest.form, plainest.rank)
    )


def mean_setting(settings: Sequence[Setting]) -> Setting:
    """The middle of near-best settings: mean share of each teacher in the target, mean tau and log ridge.

    The best of many candidates is best partly by luck; the mean of those that are as good is not.  For a
    fixed ridge it is also the mean of their maps, since a map is linear in the shares.
    """
    shares: dict[str, float] = {}
    for setting in settings:
        share = 1.0 if math.isinf(setting.distill) else setting.distill / (1 + setting.distill)
        for name, weight in setting.teachers:
            shares[name] = shares.get(name, 0.0) + share * weight / len(settings)
    total = sum(shares.values())
    taught = [setting for setting in settings if setting.teachers]
    return replace(
        settings[0],
        ridge=math.exp(sum(math.log(setting.ridge) for setting in settings) / len(settings)),
        distill=math.inf if total > 1 - 1e-9 else total / (1 - total),
        tau=sum(setting.tau for setting in taught) / max(1, len(taught)),
        teachers=tuple((name, share / total) for name, share in shares.items()) if total else (),
    )


def judge(fold: Fold, grid: Grid) -> dict[Setting, float]:
    """MSE of every candidate on one block, from sums alone."""
    variates, lookback, horizon = fold.fit.cross["truth"].shape
    cells = fold.judged.count * variates * horizon
    square = float(fold.judged.square["truth"].sum())
    targets = grid.targets()
    settings = grid.settings(lookback, horizon, variates)
    wanted = {setting.form for setting in settings}
    ranks = sorted({setting.rank for setting in settings if setting.form == "low-rank"})
    found: dict[Setting, float] = {}
    pooled_fit, pooled_judged = fold.fit.pooled(), fold.judged.pooled()
    for ridge in dict.fromkeys((*grid.ridges, PLAIN.ridge)):
        relative = ridge / fold.fit.count
        for target, error in zip(
            targets, _dense(pooled_fit, pooled_judged, relative, grid, None), strict=True
        ):
            found[Setting("shared", 0, ridge, *target)] = (error + square) / cells
        if not wanted - {"shared"} or ridge not in grid.ridges:
            continue
        solved: list[Tensor] = []
        dense = _dense(fold.fit, fold.judged, relative, grid, solved if ranks else None)
        for target, error in zip(targets, dense, strict=True):
            found[Setting("per-variate", 0, ridge, *target)] = (error + square) / cells
        if ranks:
            for setting, error in _low_rank(fold, pooled_fit, ridge, grid, ranks, solved):
                found[setting] = (error + square) / cells
    keep = {*settings, PLAIN}
    return {setting: error for setting, error in found.items() if setting in keep}


def _crosses(sums: Sums, grid: Grid) -> Tensor:
    """``[D, L, (1 + mixes) H]``: products with the truth and with each mix of teachers."""
    mixes = [mixed_teacher(sums.cross, mix) for mix in grid.mixes]
    return torch.cat([sums.cross["truth"], *mixes], dim=2)


def _dense(fit: Sums, judged: Sums, ridge: float, grid: Grid, solved: list[Tensor] | None) -> list[float]:
    """Squared error less the target's square, for every target; maps ``[L, (1+M) H]`` go to ``solved``.

    The maps of all blends are blends of a few maps, so their errors are blends of a few products.
    """
    horizon = judged.cross["truth"].shape[2]
    parts = 1 + len(grid.mixes)
    quadratic = torch.zeros(parts, parts, horizon, dtype=torch.float64)
    linear = torch.zeros(parts, horizon, dtype=torch.float64)
    crosses = _crosses(fit, grid)
    for index, gram in enumerate(fit.gram):
        maps = torch.cholesky_solve(crosses[index], factor(gram, ridge))
        if solved is not None:
            solved.append(maps)
        split = torch.unflatten(maps, 1, (parts, horizon))
        image = torch.unflatten(judged.gram[index] @ maps, 1, (parts, horizon))
        quadratic += torch.einsum("lph,lqh->pqh", split, image)
        linear += torch.einsum("lph,lh->ph", split, judged.cross["truth"][index])
    errors = []
    for target in grid.targets():
        shares = _shares(target, grid, horizon)
        error = torch.einsum("ph,qh,pqh->", shares, shares, quadratic) - 2 * (shares * linear).sum()
        errors.append(float(error))
    return errors


def _shares(target: tuple[float, float, Any], grid: Grid, horizon: int) -> Tensor:
    """``[1 + M, H]``: how much of the truth and of each mix is in the target."""
    weight, tau, mix = target
    shares = torch.zeros(1 + len(grid.mixes), horizon, dtype=torch.float64)
    if not mix:
        shares[0] = 1
        return shares
    shares[0], shares[1 + grid.mixes.index(mix)] = blend(
        replace(PLAIN, distill=weight, tau=tau, teachers=mix), horizon
    )
    return shares


def _low_rank(
    fold: Fold, pooled: Sums, ridge: float, grid: Grid, ranks: Sequence[int], solved: list[Tensor]
) -> Iterator[tuple[Setting, float]]:
    variates, lookback, horizon = fold.fit.cross["truth"].shape
    parts = 1 + len(grid.mixes)
    relative = ridge / fold.fit.count
    whitening = factor(pooled.gram[0], relative)
    white = whitening.T @ torch.cat(solved, dim=1)  # [L, D (1+M) H]
    size = min(WORKING_DIRECTIONS, lookback)
    leading = torch.linalg.eigh(white @ white.T)[1].flip(1)[:, :size]
    inside = (leading.T @ white).reshape(size, variates, parts, horizon)
    basis = basis_of(whitening, leading)  # [K, L]
    fit_gram = basis @ fold.fit.gram @ basis.T  # [D, K, K]
    judged_gram = basis @ fold.judged.gram @ basis.T
    scales = torch.tensor([ridge_of(gram, relative) for gram in fold.fit.gram], dtype=torch.float64)
    penalised = fit_gram + scales[:, None, None] * (basis @ basis.T)
    fit_cross = torch.unflatten(basis @ _crosses(fold.fit, grid), 2, (parts, horizon))
    judged_cross = basis @ fold.judged.cross["truth"]
    for target in grid.targets():
        shares = _shares(target, grid, horizon)
        blended = torch.einsum("kdph,ph->kdh", inside, shares).flatten(1)
        directions = torch.linalg.eigh(blended @ blended.T)[1].flip(1)[:, : max(ranks)]  # [K, r]
        target_cross = directions.T @ torch.einsum("dkph,ph->dkh", fit_cross, shares)
        normal = directions.T @ penalised @ directions
        judging = directions.T @ judged_gram @ directions
        judging_cross = directions.T @ judged_cross
        for rank in ranks:
            head = fit_head(normal[:, :rank, :rank], target_cross[:, :rank], torch.zeros(()))
            image = judging[:, :rank, :rank] @ head - 2 * judging_cross[:, :rank]
            yield Setting("low-rank", rank, ridge, *target), float((head * image).sum())
