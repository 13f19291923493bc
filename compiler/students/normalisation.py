"""Per-window normalisation over the lookback, without affine parameters.

none:      x' = x                       y = y'
instance:  x' = (x - mean) / std        y = y' * std + mean     std = sqrt(population variance + 1e-5)
last:      x' = x - x_L                 y = y' + x_L
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["none", "instance", "last"]

EPSILON = 1e-5


def normalise(past: Tensor, kind: Normalisation) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``past [B, D, L]`` to (normalised ``[B, D, L]``, offset ``[B, D, 1]``, scale ``[B, D, 1]``)."""
    if kind == "none":
        return past, None, None
    if kind == "last":
        offset = past[..., -1:]
        return past - offset, offset, None
    offset = past.mean(dim=-1, keepdim=True)
    centred = past - offset
    # Two passes: the variance of the centred window does not cancel at large offsets.
    scale = torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + EPSILON)
    return centred / scale, offset, scale


def denormalise(forecast: Tensor, offset: Tensor | None, scale: Tensor | None) -> Tensor:
    """Back to the units of the window: ``forecast [B, D, H]``."""
    if scale is not None:
        forecast = forecast * scale
    return forecast if offset is None else forecast + offset
