"""Solves a fleet: one basis for all items, and heads for all, for clusters of them, or for each.

    pass 1   sums of all items together        ridge and the teacher's weight, by rolling origin
             sums of a few items each          the basis: leading directions of their maps and of the fleet's
    pass 2   projected sums of every item      who shares a head, the rank, how far items lean on the fleet

Memory is that of a few ``[L + H, L + H]`` matrices and of a thousand items' projected sums.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.progress import Progress
from ..base.spread import spread
from ..data import Panel
from .affine import Setting, basis_of, blend, factor, target_products
from .fleet_heads import FleetHeads, HeadGrid, choose_heads
from .fleet_sums import FleetFolds, Sample, item_sums, origins
from .grid import Grid
from .item_sums import ItemSums, Targets, stretch_of_all
from .rolling_origin import Selection, select
from .statistics import Sums

GROUPS = 8
"""Of items, that are judged apart where there is one period alone."""
SHAPING_ITEMS = 64
"""Items whose own maps shape the basis, evenly spread; all of them in a small fleet."""


@dataclass(frozen=True, eq=False)
class FleetSolution:
    """A solved fleet.

    Attributes:
        basis: ``[r, L]``.
        found: heads, and who has which.
        selection: of the ridge and of the teacher's weight, on all items together.
        blocks: how many stretches of time judged, 1 for the validation split alone.
    """

    basis: Tensor
    found: FleetHeads
    selection: Selection
    blocks: int


def solve_fleet(
    panel: Panel,
    lookback: int,
    horizon: int,
    grid: Grid,
    heads: HeadGrid,
    *,
    blocks: int,
    sample: Sample | None,
    default: Setting | None,
    folder: Path,
    progress: Progress,
) -> FleetSolution:
    """Both passes.

    Args:
        grid: ridges and weights of the teacher, for the map of all items together.
        heads: who may share a head, and ranks.
        sample: the teacher's labels.
        default: a setting that stays unless it is refuted, where one period alone judges.
        folder: for the projected sums, on disk.
    """
    found = origins(panel, lookback, horizon, blocks)
    groups = min(GROUPS, len(panel.ids))
    folds = FleetFolds(panel, lookback, horizon, found, sample, groups)
    with progress.task("sums of all items, rolling origins", 1) as task:
        selection = select(folds, grid, default=default if len(found) == 1 else None)
        task.advance(1)
    assert folds.pooled is not None
    setting = selection.chosen
    basis = shared_basis(panel, folds.pooled, folds.taught, setting, horizon, max(heads.ranks))
    truth, teacher = blend(setting, horizon) if setting.teachers else (torch.ones(1), torch.zeros(1))
    taught = folds.taught.numpy() if folds.taught is not None and setting.teachers else None
    targets = Targets(truth.numpy(), teacher.numpy(), taught, sample if taught is not None else None)
    with (
        tempfile.TemporaryDirectory(prefix="items-", dir=folder) as place,
        progress.task("projected sums of each item", len(panel.ids)) as task,
    ):
        sums = ItemSums(Path(place), panel, basis, horizon, found, targets, task)
        chosen = choose_heads(sums, heads, lookback, groups)
    return FleetSolution(basis[: chosen.chosen.rank], chosen, selection, len(found))


def shared_basis(
    panel: Panel, pooled: Sums, taught: Tensor | None, setting: Setting, horizon: int, rank: int
) -> Tensor:
    """``[K, L]`` white in the windows of all items, the leading directions of the fleet's map and of items'.

    An item leans on the fleet as on as many windows as it has, so that a short one shapes no direction alone.
    """
    lookback = pooled.gram.shape[1]
    relative = setting.ridge / max(pooled.count, 1)
    mean_gram, mean_product = (
        pooled.gram[0] / pooled.count,
        target_products(pooled, setting)[0] / pooled.count,
    )
    whitening = factor(mean_gram, relative)
    truth, teacher = blend(setting, horizon)
    chosen = spread(len(panel.ids), min(len(panel.ids), SHAPING_ITEMS))
    spreads = torch.zeros_like(mean_gram)
    everything = stretch_of_all(panel)
    white = whitening.T @ torch.cholesky_solve(mean_product, whitening)
    spreads += len(chosen) * (white @ white.T)
    for item in chosen:
        own = item_sums(panel, int(item), everything, lookback, horizon)
        if own is None:
            continue
        gram, product = own.gram[0] / own.count, own.cross["truth"][0] / own.count
        if setting.teachers and taught is not None:
            product = product * truth + gram @ taught * teacher
        lower = factor((gram + mean_gram) / 2, setting.ridge / own.count)
        white = whitening.T @ torch.cholesky_solve((product + mean_product) / 2, lower)
        spreads += white @ white.T
    leading = torch.linalg.eigh(spreads)[1].flip(1)[:, :rank]
    return basis_of(whitening, leading)


def table_of(solution: FleetSolution) -> dict[str, Any]:
    """What was chosen, for the record."""
    chosen, setting = solution.found.chosen, solution.selection.chosen
    return {
        "heads": chosen.mode,
        "rank": chosen.rank,
        "clusters": list(solution.found.clusters),
        "pooling": chosen.pooling if np.isfinite(chosen.pooling) else "inf",
        "slots": len(solution.found.heads),
        "lambda": setting.distill if np.isfinite(setting.distill) else "inf",
        "tau": setting.tau,
        "weights_judged": solution.selection.table,
        "ridge": setting.ridge,
        "validation_mse_of_one_map": solution.selection.validation_mse,
        "blocks": solution.blocks,
        "candidates": len(solution.found.table),
        "judged": solution.found.table,
        "warnings": list(solution.selection.warnings),
    }
