"""Quantile forecasts on all windows of a split: losses, coverage and width, on scaled data.

pinball   rho_q(y, f) = max(q (y - f), (q - 1) (y - f))
WQL       mean over levels of  2 sum rho_q / sum |y|       weighted quantile loss (Park et al., "Learning
          quantile functions without quantile crossing", 2022; as GluonTS has it)
CRPS      2 mean rho_q over windows, variates, steps and levels: its integral over all levels by those
          asked for (Gneiting and Ranjan, "Comparing density forecasts using threshold- and
          quantile-weighted scoring rules", 2011)
coverage  share of truths from the lowest quantile to the highest; what it is to be is the distance of
          their levels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.progress import Progress, Silent
from ..data import Windows
from .evaluate import BATCH_WINDOWS

Array = npt.NDArray[np.float64]
PredictQuantiles = Callable[[Sequence[int], Tensor], Tensor]
"""(window indices, past ``[B, D, L]``) to quantiles ``[B, D, H, Q]``."""


@dataclass(frozen=True)
class QuantileAccuracy:
    """Means over all windows, variates and steps.

    Attributes:
        levels: Q of them.
        wql: see the head of this file.
        crps: the same.
        coverage: of the outermost interval.
        nominal: what coverage is to be.
        width: mean of the outermost interval, in deviations of the training split.
        below: share of truths below each quantile.
        windows: how many there were.
        window_pinball: ``[windows]`` twice the mean pinball loss of each window, in the order of time.
        window_coverage: ``[windows]``.
        step_coverage, step_width: ``[H]`` by step ahead.
    """

    levels: tuple[float, ...]
    wql: float
    crps: float
    coverage: float
    nominal: float
    width: float
    below: tuple[float, ...]
    windows: int
    window_pinball: Array = field(repr=False, compare=False)
    window_coverage: Array = field(repr=False, compare=False)
    step_coverage: Array = field(repr=False, compare=False)
    step_width: Array = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: the means."""
        names = ("wql", "crps", "coverage", "nominal", "width", "windows")
        below = dict(zip(map(str, self.levels), self.below, strict=True))
        return {**{name: getattr(self, name) for name in names}, "below": below}


def pinball_loss(truth: Tensor, quantiles: Tensor, levels: Sequence[float]) -> Tensor:
    """``rho [..., Q]`` of ``truth [...]`` and ``quantiles [..., Q]``."""
    asked = torch.tensor(levels, dtype=truth.dtype)
    error = truth.unsqueeze(-1) - quantiles
    return torch.maximum(asked * error, (asked - 1) * error)


@torch.inference_mode()
def evaluate_quantiles(
    predict: PredictQuantiles,
    windows: Windows,
    levels: Sequence[float],
    *,
    progress: Progress | None = None,
    title: str = "evaluate",
) -> QuantileAccuracy:
    """Streams all windows through ``predict``.

    Raises:
        ValueError: ``predict`` gives quantiles of another shape than the future has.
    """
    progress = progress or Silent()
    pinball, inside = np.empty(len(windows)), np.empty(len(windows))
    below: Array | float = 0.0
    step_inside: Array | float = 0.0
    step_width: Array | float = 0.0
    size = 0.0
    with progress.task(title, len(windows)) as task:
        for start in range(0, len(windows), BATCH_WINDOWS):
            indices = range(start, min(start + BATCH_WINDOWS, len(windows)))
            past, future = windows.batch(indices)
            quantiles = predict(indices, past).double()
            if quantiles.shape != (*future.shape, len(levels)):
                raise ValueError(f"quantiles of shape {list(quantiles.shape)} for {list(future.shape)}")
            truth = future.double()
            covered = ((truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])).double()
            pinball[start : indices.stop] = 2 * pinball_loss(truth, quantiles, levels).mean((1, 2, 3)).numpy()
            inside[start : indices.stop] = covered.mean((1, 2)).numpy()
            step_inside = step_inside + covered.mean(1).sum(0).numpy()
            step_width = step_width + (quantiles[..., -1] - quantiles[..., 0]).mean(1).sum(0).numpy()
            below = below + (truth.unsqueeze(-1) <= quantiles).double().mean((1, 2)).sum(0).numpy()
            size += float(truth.abs().mean((1, 2)).sum())
            task.advance(len(indices))
    count = len(windows)
    crps = float(pinball.mean())
    return QuantileAccuracy(
        levels=tuple(levels),
        wql=crps / max(size / count, 1e-12),
        crps=crps,
        coverage=float(inside.mean()),
        nominal=levels[-1] - levels[0],
        width=float(np.mean(step_width) / count),
        below=tuple(float(share) for share in np.asarray(below) / count),
        windows=count,
        window_pinball=pinball,
        window_coverage=inside,
        step_coverage=np.asarray(step_inside) / count,
        step_width=np.asarray(step_width) / count,
    )
