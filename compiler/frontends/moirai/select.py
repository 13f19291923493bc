"""Which patch size of Moirai fits a data set, by upstream's own criterion."""

from __future__ import annotations

import torch
from torch import Tensor

from ...base.errors import TeacherError
from .moirai1 import FRONTEND, Moirai
from .patch import patch_sizes


def validation_loss(teacher: Moirai, windows: Tensor) -> Tensor:
    """Upstream's validation loss ``[B]`` of ``windows [B, D, L + H]``.

    The negative log-likelihood of the last H steps given the first L, averaged over the steps of a variate
    and summed over variates.
    """
    past, future = windows[..., : teacher.lookback], windows[..., teacher.lookback :]
    mixture, loc, scale = teacher.mixture(past)
    return (scale.log() - mixture.log_prob((future - loc) / scale)).mean(dim=-1).sum(dim=-1)


def select_patch_size(teacher: Moirai, windows: Tensor) -> int:
    """The patch size with the lowest validation loss, averaged over ``windows [B, D, L + H]``.

    Upstream's ``patch_size="auto"`` does this for each series at every forecast; a compiled program has one
    patch size, so it is done once, with windows that end before anything to be forecast.  Windows whose
    loss is not finite for some size are left out for all.

    Args:
        teacher: with all its patch sizes; its own choice does not matter.
        windows: of the past only.

    Raises:
        TeacherError: the windows have another shape, or none has finite losses.
    """
    expected = (teacher.variates, teacher.lookback + teacher.horizon)
    if windows.ndim != 3 or tuple(windows.shape[1:]) != expected or not len(windows):
        raise TeacherError(
            f"windows to select the patch size have shape {list(windows.shape)}, "
            f"expected [B, {expected[0]}, {expected[1]}] (variates, lookback + horizon)"
        )
    sizes = patch_sizes(teacher.config)
    losses = []
    for size in sizes:
        other = FRONTEND.build(
            teacher.config,
            lookback=teacher.lookback,
            horizon=teacher.horizon,
            variates=teacher.variates,
            patch_size=size,
        ).to(windows.device)
        other.load_state_dict(teacher.state_dict())
        with torch.no_grad():
            losses.append(validation_loss(other, windows))
    table = torch.stack(losses)
    usable = table.isfinite().all(dim=0)
    if not bool(usable.any()):
        raise TeacherError("no window to select the patch size has a finite loss for every size")
    return sizes[int(table[:, usable].mean(dim=1).argmin())]
