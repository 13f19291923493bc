"""What every forecaster promises, teacher, student or folded form; the contracts of each build on it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..ir.forecaster import Forecaster
from ..ir.unit import fingerprint
from .rule import expect
from .samples import windows

TOLERANCE = 1e-5


def distance(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value; infinite for another shape or not finite values."""
    if got.shape != expected.shape or not bool(torch.isfinite(got).all() & torch.isfinite(expected).all()):
        return float("inf")
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@torch.inference_mode()
def check_shapes(model: Forecaster, variates: int) -> None:
    """``[B, D, L]`` float32 to ``[B, D, H]`` float32 and finite, for one window and for several."""
    for batch in (1, 5):
        forecast = model(windows(batch, variates, model.lookback))
        shape = [batch, variates, model.horizon]
        expect(
            list(forecast.shape) == shape,
            f"a batch of {batch} gives {list(forecast.shape)}, expected {shape}",
        )
        expect(forecast.dtype == torch.float32, f"a forecast is {forecast.dtype}, expected torch.float32")
        expect(torch.isfinite(forecast).all(), "a forecast is not finite")


@torch.inference_mode()
def check_batch(model: Forecaster, variates: int) -> None:
    """A window's forecast does not depend on the windows beside it."""
    past = windows(5, variates, model.lookback)
    together = model(past)
    alone = torch.cat([model(window[None]) for window in past])
    moved = distance(alone, together)
    expect(moved <= TOLERANCE, f"a window alone differs by {moved:.1e} from the same window in a batch")


@torch.inference_mode()
def check_deterministic(model: Forecaster, variates: int) -> None:
    """Two calls give equal numbers and leave the window and the weights as they are."""
    past = windows(3, variates, model.lookback)
    kept, weights = past.clone(), fingerprint(model)
    first, second = model(past), model(past)
    expect(torch.equal(first, second), "two calls on one window differ")
    expect(torch.equal(past, kept), "forward changes the window that it is given")
    expect(fingerprint(model) == weights, "forward changes weights or buffers")


def check_export(model: Forecaster, variates: int) -> None:
    """``torch.export`` takes it with a dynamic batch, and the program computes the same."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        example = windows(2, variates, model.lookback)
        batch = {0: torch.export.Dim("batch", min=1)}
        program = torch.export.export(model, (example,), dynamic_shapes=(batch,)).module()
        for count in (1, 5):
            past = windows(count, variates, model.lookback)
            moved = distance(program(past), model(past))
            expect(moved <= TOLERANCE, f"the exported program differs by {moved:.1e} at batch {count}")
