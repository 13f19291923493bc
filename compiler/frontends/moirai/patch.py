"""The patch sizes of a Moirai checkpoint, and a checkpoint with one of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...base.errors import TeacherError
from .mixture import unmasked_rows, used_rows


def patch_sizes(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The patch sizes of a configuration.

    Raises:
        TeacherError: they are not distinct positive integers.
    """
    sizes = config.get("patch_sizes")
    if (
        not isinstance(sizes, list | tuple)
        or not sizes
        or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
        or len(set(sizes)) < len(sizes)
    ):
        raise TeacherError(f"moirai config: patch_sizes is {sizes!r}, expected distinct lengths")
    return tuple(sizes)


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
    sizes = patch_sizes(config)
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
