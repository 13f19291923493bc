"""Residuals that a point forecast has not been fitted to, stretch by stretch of time.

A solved affine student gives them by rolling origin: for every fold of its statistics it is solved on the
windows before the block, with the setting that was chosen, and forecasts the block.  Of any other forecaster
those on the validation split are taken, cut into stretches.

Memory is bounded: of every stretch at most ``WINDOWS`` windows are taken, evenly spread over it, and fewer
where variates and steps are many (``MAX_NUMBERS``).  Neighbouring windows share all but a step, so little is
lost: a quantile depends on how many weeks were seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..base.spread import spread
from ..data import Dataset, Windows
from ..data.levels import MEDIAN
from ..data.splits import Part
from ..ir.forecaster import Forecaster
from ..ir.inputs import rows_for
from ..ir.quantiles import Spread
from ..ir.teacher_store import TeacherStore
from ..students.dlinear import DLinear
from .affine import Setting, solve
from .evaluate import BATCH_WINDOWS
from .statistics import WindowStatistics

WINDOWS = 2048
FEWEST_WINDOWS = 64
MAX_NUMBERS = 1 << 26
"""Residuals of all stretches together: 256 MiB of float32."""
TAUGHT_WINDOWS = 256
"""Windows of a stretch whose quantiles by the teacher are taken."""
STRETCHES = 8
"""Stretches that validation is cut into where it is alone."""


@dataclass(frozen=True)
class Origin:
    """A forecaster, and later windows of one split that it has not seen."""

    name: str
    model: Forecaster
    windows: Windows
    chosen: Sequence[int]


@dataclass(frozen=True, eq=False)
class Stretch:
    """What was seen in one stretch of time.

    Attributes:
        name: of the block.
        residuals: ``[N, D, H]`` truth less point forecast, float32.
        spreads: ``[N, D]`` of each kind of spread.
        taught: ``[M, D, H, Q]`` the teacher's quantiles less its median, in the windows ``taught_at``.
        taught_at: ``[M]`` places among the N.
    """

    name: str
    residuals: Tensor
    spreads: Mapping[Spread, Tensor]
    taught: Tensor | None = None
    taught_at: Tensor | None = None


def solved_origins(statistics: WindowStatistics, setting: Setting) -> Iterator[Origin]:
    """The folds of the statistics in the order of time, the last one validation after all of training."""
    data, lookback, horizon = statistics.data, statistics.lookback, statistics.horizon
    count = _windows_of_each(data, horizon, statistics.blocks)
    for fold in statistics.folds():
        arrays = solve(fold.fit, setting, fold.prior).arrays()
        student = DLinear.from_affine(
            setting.form, arrays, lookback=lookback, horizon=horizon, variates=len(data.variates)
        )
        last = fold.name == "validation"
        windows = data.windows("val" if last else "train", lookback, horizon)
        # A fit ends where its last future ends before the first one that is judged.
        begin = 0 if last else fold.fit.count + horizon - 1
        chosen = begin + np.unique(spread(fold.judged.count, count))
        yield Origin(fold.name, student.fold().eval(), windows, chosen.tolist())


def validation_origins(data: Dataset, model: Forecaster, lookback: int, horizon: int) -> Iterator[Origin]:
    """The validation split in stretches of time, each longer than a horizon."""
    windows = data.windows("val", lookback, horizon)
    stretches = max(1, min(STRETCHES, len(windows) // (horizon + 1)))
    count = _windows_of_each(data, horizon, stretches)
    for number in range(stretches):
        begin, end = (len(windows) * edge // stretches for edge in (number, number + 1))
        chosen = begin + np.unique(spread(end - begin, count))
        yield Origin(f"validation {number + 1}", model.eval(), windows, chosen.tolist())


def _windows_of_each(data: Dataset, horizon: int, stretches: int) -> int:
    most = MAX_NUMBERS // (stretches * len(data.variates) * horizon)
    return max(FEWEST_WINDOWS, min(WINDOWS, most))


@torch.inference_mode()
def stretch_of(
    origin: Origin, kinds: Sequence[Spread], store: TeacherStore | None, levels: Sequence[float]
) -> Stretch:
    """Residuals and spreads of an origin's windows, and the teacher's quantiles where they are stored."""
    reads = rows_for(origin.model, origin.windows)
    residuals: list[Tensor] = []
    spreads: dict[Spread, list[Tensor]] = {kind: [] for kind in kinds}
    for start in range(0, len(origin.chosen), BATCH_WINDOWS):
        indices = origin.chosen[start : start + BATCH_WINDOWS]
        past, future = origin.windows.batch(indices)
        rows = past if isinstance(reads, Windows) else reads.rows(indices, past)
        residuals.append(future - origin.model(rows))
        for kind, found in spreads.items():
            found.append(kind.of(past).squeeze(-1))
    stretch = Stretch(
        origin.name, torch.cat(residuals), {kind: torch.cat(found) for kind, found in spreads.items()}
    )
    part = origin.windows.part
    if store is None or not store.quantile_levels or store.counts[part] != len(origin.windows):
        return stretch
    at = np.unique(spread(len(origin.chosen), min(TAUGHT_WINDOWS, len(origin.chosen))))
    taught = taught_offsets(store, part, np.asarray(origin.chosen)[at], levels)
    return replace(stretch, taught=taught, taught_at=torch.from_numpy(at))


def taught_offsets(store: TeacherStore, part: Part, windows: np.ndarray, levels: Sequence[float]) -> Tensor:
    """The teacher's quantiles at ``levels`` less its median, ``[M, D, H, Q]`` float32."""
    found = interpolated(store.array(part, "quantiles")[windows], store.quantile_levels, [*levels, MEDIAN])
    return found[..., :-1] - found[..., -1:]


def interpolated(quantiles: np.ndarray, known: Sequence[float], levels: Sequence[float]) -> Tensor:
    """``[..., Q]`` float32 at ``levels`` from ``quantiles [..., K]`` at the ``known`` ones, sorted first.

    Between known levels they are drawn as straight lines, beyond them they stay at the outermost.
    """
    given = np.sort(np.asarray(quantiles, np.float32), axis=-1)
    places = np.interp(levels, known, np.arange(len(known)))
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, len(known) - 1), (places - low).astype(np.float32)
    return torch.from_numpy(given[..., low] * (1 - share) + given[..., high] * share)
