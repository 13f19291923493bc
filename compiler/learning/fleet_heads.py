"""Which items share a head: all of them, clusters of them, or none; judged fold by fold.

    fleet      one head for all                                   C = S^-1 R, all items added up
    clusters   k heads, an item takes the one that fits it best   found by k-regression, see ``clustered``
    items      a head each, shrunk towards the fleet's            C_i = (S_i + v S/n)^-1 (R_i + v R/n)

``v`` counts in windows: as if so many windows of the fleet had been seen of every item besides its own
(partial pooling).  Form, rank, k and v are judged on a spread of items, on windows after those of the fit, by
the mean over folds of the logarithm of the error over that of the fleet's head; of those that tie the one of
the fewest numbers is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .item_sums import Few, ItemSums
from .rolling_origin import middle, near_best, standard_error

Mode = Literal["fleet", "clusters", "items"]
SHRUNK = 300.0
"""Windows of the fleet that a cluster's head leans on, and those of items while clusters are sought."""
MOST_HEADS = 2000
"""Beyond, a program of a head each would be large; clusters are judged then, and the fleet's head."""
JUDGED_ITEMS, AT_ONCE = 1000, 128
COMPONENTS, ROUNDS = 32, 8


@dataclass(frozen=True)
class Heads:
    """A candidate: rank of the basis, clusters or 0, windows of the fleet that an item leans on."""

    mode: Mode
    rank: int
    clusters: int = 0
    pooling: float = math.inf

    def parameters(self, items: int, lookback: int, horizon: int) -> int:
        """Numbers to store."""
        heads = {"fleet": 1, "clusters": self.clusters + 1, "items": items + 1}[self.mode]
        return self.rank * (lookback + heads * horizon)


@dataclass(frozen=True)
class HeadGrid:
    """The candidates."""

    modes: tuple[Mode, ...] = ("fleet", "clusters", "items")
    ranks: tuple[int, ...] = (7, 11, 15, 23, 31, 47)
    clusters: tuple[int, ...] = (2, 4, 8, 16, 32)
    poolings: tuple[float, ...] = (30.0, 100.0, 300.0, 1000.0, 3000.0)

    def candidates(self, items: int) -> list[Heads]:
        """All of them that a fleet of so many items can have; the fleet's head first."""
        found = [Heads("fleet", rank) for rank in self.ranks]
        if "clusters" in self.modes:
            found += [Heads("clusters", r, k) for k in self.clusters if 4 * k <= items for r in self.ranks]
        if "items" in self.modes and 1 < items <= MOST_HEADS:
            found += [Heads("items", r, 0, v) for v in self.poolings for r in self.ranks]
        return [each for each in found if each.mode in self.modes] or found


@dataclass(frozen=True, eq=False)
class FleetHeads:
    """What was chosen, fitted on all of training.

    Attributes:
        chosen: the candidate.
        heads: ``[S, H, r]``, the fleet's first.
        slot_of: ``[N]`` the head of each item.
        table: a row for each candidate.
        clusters: items in each cluster.
    """

    chosen: Heads
    heads: Tensor
    slot_of: np.ndarray
    table: list[dict[str, Any]] = field(default_factory=list)
    clusters: tuple[int, ...] = ()


def choose_heads(sums: ItemSums, grid: HeadGrid, lookback: int, groups: int) -> FleetHeads:
    """Judges all candidates and fits the best.

    Args:
        groups: of items, that are the folds where there is one period alone.
    """
    candidates = grid.candidates(sums.items)
    errors = _judged(sums, candidates, groups)
    horizon = sums.fleet[0].cross.shape[2]
    base = errors[_reference(candidates)]
    ratios = {each: torch.log((found + 1e-12) / (base + 1e-12)) for each, found in errors.items()}
    scores = {each: middle(values) for each, values in ratios.items()}
    close = near_best(ratios, scores)
    chosen = min(close, key=lambda each: (each.parameters(sums.items, lookback, horizon), scores[each]))
    table = [
        {
            "heads": each.mode,
            "rank": each.rank,
            "clusters": each.clusters,
            "pooling": each.pooling if math.isfinite(each.pooling) else "inf",
            "parameters": each.parameters(sums.items, lookback, horizon),
            "log_ratio": scores[each],
            "standard_error": standard_error(values),
            "near_best": each in close,
            "chosen": each == chosen,
        }
        for each, values in ratios.items()
    ]
    return _fitted(sums, chosen, table)


def _reference(candidates: Sequence[Heads]) -> Heads:
    fleet = [each for each in candidates if each.mode == "fleet"] or list(candidates)
    return max(fleet, key=lambda each: each.rank)


def _judged(sums: ItemSums, candidates: Sequence[Heads], groups: int) -> dict[Heads, Tensor]:
    """Mean squared error of every candidate in each fold, ``[F]``."""
    chosen = np.linspace(0, sums.items - 1, min(sums.items, JUDGED_ITEMS)).round().astype(np.int64)
    found: dict[Heads, list[Tensor]] = {each: [] for each in candidates}
    cells: list[Tensor] = []
    for fold in range(len(sums.origins)):
        fleet = sums.fleet[fold]
        groupings = _clusterings(sums, fold, candidates)
        fit, judged = (sums.few(fold, kind, chosen) for kind in ("fit", "judged"))
        cells.append(judged.count)
        for each in candidates:
            if each.mode == "clusters":
                heads = groupings[each.clusters][:, : each.rank]
                heads = (
                    heads
                    if each.rank == groupings[each.clusters].shape[1]
                    else _refitted(sums, fold, fit, groupings[each.clusters], each.rank)
                )
                own = heads[closest(fit, groupings[each.clusters])]
            else:
                own = item_heads(fit, fleet, each) if each.mode == "items" else fleet_head(fleet, each.rank)
            found[each].append(squared_errors(judged, own))
    horizon = sums.fleet[0].cross.shape[2]
    return {each: _per_fold(errors, cells, horizon, groups) for each, errors in found.items()}


def _refitted(sums: ItemSums, fold: int, fit: Few, full: Tensor, rank: int) -> Tensor:
    """Heads of a lower rank for the clusters that heads of full rank make."""
    return cluster_heads(fit, closest(fit, full), len(full), sums.fleet[fold], rank)


def _per_fold(errors: Sequence[Tensor], cells: Sequence[Tensor], horizon: int, groups: int) -> Tensor:
    """Mean squared error by fold; with a single fold by group of items."""
    if len(errors) > 1:
        return torch.stack([e.sum() / (n.sum() * horizon) for e, n in zip(errors, cells, strict=True)])
    (error,), (count,) = errors, cells
    means = [error[at::groups].sum() / (count[at::groups].sum() * horizon) for at in range(groups)]
    return torch.stack([mean for mean in means if bool(torch.isfinite(mean))])


def fleet_head(fleet: Few, rank: int) -> Tensor:
    """``[1, r, H]`` the head of all items."""
    return _solved(fleet.gram[:, :rank, :rank], fleet.cross[:, :rank])


def item_heads(few: Few, fleet: Few, heads: Heads) -> Tensor:
    """``[M, r, H]`` a head each, leaning on the fleet's windows."""
    lean = heads.pooling / fleet.count
    gram = few.gram[:, : heads.rank, : heads.rank] + lean * fleet.gram[:, : heads.rank, : heads.rank]
    return _solved(gram, few.cross[:, : heads.rank] + lean * fleet.cross[:, : heads.rank])


def cluster_heads(few: Few, member: Tensor, clusters: int, fleet: Few, rank: int) -> Tensor:
    """``[k, r, H]`` from the items of each cluster; the fleet's for an empty one."""
    gram = torch.zeros(clusters, *few.gram.shape[1:], dtype=torch.float64).index_add_(0, member, few.gram)
    cross = torch.zeros(clusters, *few.cross.shape[1:], dtype=torch.float64).index_add_(0, member, few.cross)
    lean = SHRUNK / fleet.count
    gram, cross = gram + lean * fleet.gram, cross + lean * fleet.cross
    return _solved(gram[:, :rank, :rank], cross[:, :rank])


def _solved(gram: Tensor, cross: Tensor) -> Tensor:
    """Least squares with a ridge that only keeps it regular."""
    regular = gram.clone()
    diagonal = regular.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(1e-6 * diagonal.mean(-1, keepdim=True) + 1e-12)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(regular))


def squared_errors(few: Few, heads: Tensor) -> Tensor:
    """``[M]`` sum of squared errors of ``heads [M or 1, r, H]`` over the windows of each item."""
    rank = heads.shape[1]
    image = few.gram[:, :rank, :rank] @ heads - 2 * few.cross[:, :rank]
    return few.square + (image * heads).sum((1, 2))


def closest(few: Few, heads: Tensor) -> Tensor:
    """``[M]`` the head ``[k, r, H]`` with the smallest error on the windows of each item."""
    rank = heads.shape[1]
    squares = (heads @ heads.mT).flatten(1)
    gram, cross = few.gram[:, :rank, :rank].flatten(1), few.cross[:, :rank].flatten(1)
    return (gram @ squares.T - 2 * cross @ heads.flatten(1).T).argmin(1)


def _clusterings(sums: ItemSums, fold: int, candidates: Sequence[Heads]) -> dict[int, Tensor]:
    """Heads ``[k, K, H]`` of each number of clusters that is a candidate, from a spread of items."""
    wanted = sorted({each.clusters for each in candidates if each.clusters})
    if not wanted:
        return {}
    chosen = np.linspace(0, sums.items - 1, min(sums.items, JUDGED_ITEMS)).round().astype(np.int64)
    few, fleet = sums.few(fold, "fit", chosen), sums.fleet[fold]
    return {count: clustered(few, fleet, count) for count in wanted}


def clustered(few: Few, fleet: Few, clusters: int) -> Tensor:
    """``[k, K, H]`` heads that items fall to: k-regression, started from halving what differs most.

    Items start by the signs of the leading components of their shrunk heads, which the white basis makes
    comparable; then heads are fitted to their items and items go to the head that fits them best, in turn.
    """
    width = few.gram.shape[1]
    own = item_heads(few, fleet, Heads("items", width, 0, SHRUNK)).flatten(1)
    away = own - own.mean(0)
    scores = torch.linalg.svd(away, full_matrices=False)
    points = scores.U[:, :COMPONENTS] * scores.S[:COMPONENTS]
    member = _halved(points, clusters)
    heads = cluster_heads(few, member, clusters, fleet, width)
    for _ in range(ROUNDS):
        moved = closest(few, heads)
        if bool((moved == member).all()):
            break
        member = moved
        heads = cluster_heads(few, member, clusters, fleet, width)
    return heads


def _halved(points: Tensor, clusters: int) -> Tensor:
    """``[M]`` cluster of each point: the widest is cut across its leading direction, again and again."""
    member = torch.zeros(len(points), dtype=torch.long)
    for new in range(1, clusters):
        spreads = [
            float((points[member == old] - points[member == old].mean(0)).square().sum())
            if (member == old).sum() > 1
            else 0.0
            for old in range(new)
        ]
        widest = int(np.argmax(spreads))
        inside = torch.nonzero(member == widest).squeeze(1)
        own = points[inside] - points[inside].mean(0)
        direction = torch.linalg.eigh(own.T @ own)[1][:, -1]
        along = own @ direction
        member[inside[along > along.median()]] = new
    return member


def _fitted(sums: ItemSums, chosen: Heads, table: list[dict[str, Any]]) -> FleetHeads:
    """The heads of all items on all of training, a few items at a time."""
    last = len(sums.origins) - 1
    fleet = sums.fleet[last]
    first = fleet_head(fleet, chosen.rank)
    if chosen.mode == "fleet":
        return FleetHeads(chosen, first.mT, np.zeros(sums.items, dtype=np.int64), table)
    if chosen.mode == "items":
        heads = [item_heads(few, fleet, chosen) for _, few in _all(sums, last)]
        return FleetHeads(chosen, torch.cat([first, *heads]).mT, 1 + np.arange(sums.items), table)
    full = _clusterings(sums, last, [chosen])[chosen.clusters]
    member = torch.cat([closest(few, full) for _, few in _all(sums, last)])
    total: Few | None = None
    width = full.shape[1]
    for rows, few in _all(sums, last):
        part = Few(
            torch.zeros(chosen.clusters, dtype=torch.float64).index_add_(0, member[rows], few.count),
            torch.zeros(chosen.clusters, width, width, dtype=torch.float64).index_add_(
                0, member[rows], few.gram
            ),
            torch.zeros_like(full).index_add_(0, member[rows], few.cross),
            torch.zeros(chosen.clusters, dtype=torch.float64),
        )
        total = part if total is None else total + part
    assert total is not None
    heads_of = cluster_heads(total, torch.arange(chosen.clusters), chosen.clusters, fleet, chosen.rank)
    sizes = tuple(torch.bincount(member, minlength=chosen.clusters).tolist())
    return FleetHeads(chosen, torch.cat([first, heads_of]).mT, 1 + member.numpy(), table, sizes)


def _all(sums: ItemSums, fold: int) -> Iterator[tuple[slice, Few]]:
    for start in range(0, sums.items, AT_ONCE):
        rows = slice(start, min(start + AT_ONCE, sums.items))
        yield rows, sums.few(fold, "fit", rows)
