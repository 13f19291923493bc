"""What the teachers of a unit say of its windows, by the names that statistics and settings have for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.splits import Part
from ..ir.companions import FIRST, TUNED
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit
from .affine import setting_of
from .pieces import Labels

Mix = Sequence[tuple[str, float]]


def teacher_stores(unit: CompileUnit) -> dict[str, TeacherStore]:
    """The recorded outputs of each teacher, the first one's first."""
    others = {each.name: each.store for each in unit.companions if each.store is not None}
    if unit.teacher_store is None:
        return others
    return {TUNED if FIRST in others else FIRST: unit.teacher_store, **others}


def training_labels(unit: CompileUnit) -> dict[str, Labels]:
    """Forecasts of the training windows by each teacher; of a tuned one those that it had not seen."""
    found = {name: stored_labels(store) for name, store in teacher_stores(unit).items()}
    if unit.held_out is not None and found:
        found[next(iter(found))] = unit.held_out
    return found


def stored_labels(store: TeacherStore, part: Part = "train", first: int = 0) -> Labels:
    """The stored forecasts by number of the window.

    Args:
        first: what the number of the part's first window is.
    """
    forecasts = store.array(part, "forecast")

    def labels(begin: int, end: int) -> np.ndarray:
        return np.asarray(forecasts[begin - first : end - first])

    return labels


def training_forecast(unit: CompileUnit) -> Callable[[Sequence[int]], Tensor]:
    """Reads ``[B, D, H]`` for rows of the first teacher's training store, as a student is to learn them.

    After ``solve_affine`` that is the mix that it chose; otherwise the first teacher alone.
    """
    store = unit.teacher_store
    mix: Mix = setting_of(unit.setting).teachers if unit.setting else ()
    if store is not None and unit.held_out is None and len(mix) <= 1 and not unit.companions:
        return lambda rows: store.forecast("train", rows)
    labels = training_labels(unit)
    mix = mix or ((next(iter(labels)), 1.0),)

    def forecast(rows: Sequence[int]) -> Tensor:
        total: Tensor | None = None
        for name, weight in mix:
            picked = np.concatenate([labels[name](row, row + 1) for row in rows])
            part = weight * torch.from_numpy(picked)
            total = part if total is None else total + part
        assert total is not None
        return total

    return forecast
