"""What a fleet's artifact has beside its payload: who has which slot, and what one device is cut out of.

fleet/ids.json     the items, a list of names
fleet/table.npy    [N, 3] slot, mean and deviation of each item
fleet/basis.npy    [L, r + 1]          the weights once more, for ``package --id``;
fleet/heads.npy    [S, r + 1, H]       a device reads neither
fleet/recipe.toml  the recipe that one device's own artifact is lowered by
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .device.fleet import BASIS, HEADS, IDS, RECIPE, TABLE

WEIGHTS = {"basis": BASIS, "heads": HEADS}


def write_fleet(
    directory: Path, ids: Sequence[str], table: np.ndarray, weights: Mapping[str, np.ndarray], recipe: str
) -> None:
    """Writes the files into an artifact that is being made.

    Args:
        table: ``[N, 3]``.
        weights: of the low-rank form, or none.
        recipe: as TOML.
    """
    (directory / IDS).parent.mkdir(exist_ok=True)
    (directory / IDS).write_text(json.dumps(list(ids), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    (directory / RECIPE).write_text(recipe, encoding="utf-8")
    np.save(directory / TABLE, np.ascontiguousarray(table, np.float64), allow_pickle=False)
    for name, values in weights.items():
        np.save(directory / WEIGHTS[name], np.ascontiguousarray(values, np.float32), allow_pickle=False)
