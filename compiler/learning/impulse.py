"""Is a forecaster one affine map, and which?  Asked of the forecaster itself, whatever it is made of.

affine      f(x + y) = f(x) + f(y) - f(0)
the map     column l is f(e_l) - f(0), the response to a unit impulse at step l of the window
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .evaluate import model_predictor

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-3
"""Of the size of the forecasts: above float32's rounding, far below what a non-linear forecaster shows."""
BATCH_CELLS = 1 << 22


@torch.inference_mode()
def impulse_response(model: nn.Module, variates: int, lookback: int, chosen: Sequence[int]) -> Array | None:
    """The maps ``[len(chosen), H, L]`` of some variates, oldest step first; None where it is not affine.

    The impulse is the same in all variates.
    """
    predict = model_predictor(model)

    def respond(past: Tensor) -> Tensor:
        return predict([], past)

    nothing = respond(torch.zeros(1, variates, lookback))
    if not _is_affine(respond, nothing, variates, lookback):
        return None
    columns = []
    batch = max(1, BATCH_CELLS // (variates * lookback))
    for impulses in torch.split(torch.eye(lookback), batch):
        past = impulses[:, None].expand(-1, variates, -1).contiguous()
        columns.append((respond(past) - nothing)[:, list(chosen)])
    response = torch.cat(columns).double()  # [L, chosen, H]
    maps: Array = response.permute(1, 2, 0).numpy()
    return maps


def _is_affine(respond: Callable[[Tensor], Tensor], nothing: Tensor, variates: int, lookback: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 1, variates, lookback, generator=generator).cumsum(dim=-1)
    together, apart = respond(one + other), respond(one) + respond(other) - nothing
    return bool((together - apart).abs().max() <= TOLERANCE * together.abs().max())
