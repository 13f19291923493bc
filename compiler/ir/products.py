"""Products that are written one way for torch and another for the runtimes that a program goes to."""

from __future__ import annotations

import torch
from torch import Tensor


def product_of_each(rows: Tensor, matrices: Tensor) -> Tensor:
    """Each variate's own product: ``rows [B, D, K]`` and ``matrices [D, K, N]`` to ``[B, D, N]``.

    One batched product in both forms.  A runtime gets rows of one, ``[B, D, 1, K] @ [D, K, N]``, which moves
    nothing in memory; torch would copy the matrices for every window, so it gets windows as rows.
    """
    if torch.compiler.is_exporting():
        return (rows.unsqueeze(2) @ matrices).squeeze(2)
    return (rows.transpose(0, 1) @ matrices).transpose(0, 1)
