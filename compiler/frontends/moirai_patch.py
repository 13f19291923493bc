"""Which patch size of Moirai, and a checkpoint with that size alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TeacherError
from .moirai import FRONTEND, Moirai, patch_sizes
from .moirai_mixture import unmasked_rows, used_rows
from .settings import Settings


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
    sizes = patch_sizes(Settings(FRONTEND.family, teacher.config))
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


def keep_one_patch_size(
    config: Mapping[str, Any], state: Mapping[str, Tensor], patch_size: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and state of the same function with one patch size: 13.83 M -> 10.78 M for small.

    Every projection keeps the row of this size, cut to its length.  Rows of the mixture logits that upstream
    masks are stored as zeros: with one size, nothing is masked.  The result is a checkpoint that upstream
    could read, too, with ``patch_sizes = [patch_size]``.

    Args:
        config: of a Moirai with any options.
        state: its state dict.
        patch_size: the one to keep.

    Raises:
        TeacherError: the checkpoint has no such patch size.
    """
    sizes = patch_sizes(Settings(FRONTEND.family, config))
    if patch_size not in sizes:
        raise TeacherError(
            f"the Moirai checkpoint has no patch size {patch_size!r}, expected one of {list(sizes)}"
        )
    row, longest = sizes.index(patch_size), max(sizes)
    kept = dict(state)
    for name, tensor in state.items():
        if name == "in_proj.weight":
            kept[name] = tensor[row : row + 1, :, :patch_size].clone()
        elif name == "in_proj.bias":
            kept[name] = tensor[row : row + 1].clone()
        elif name.startswith("param_proj."):
            rows = used_rows(tensor[row], longest, patch_size)
            mask = unmasked_rows(tensor.shape[1] // longest, longest, patch_size)
            if mask is not None and name.endswith(".weight"):
                rows = rows * mask.to(rows)
            kept[name] = rows[None].clone()
    own = dict(config.get("tsfmc", {}))
    own["options"] = {**own.get("options", {}), "patch_size": patch_size}
    return {**config, "patch_sizes": [patch_size], "tsfmc": own}, kept
