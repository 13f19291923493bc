"""int8 weights and the level of a window: what is taken out first does not meet rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tvm_students import SHAPE, lower, student, windows

from tsfmc.compiler.students import affine
from tsfmc.targets.native.centre import gain_of
from tsfmc.targets.native.static import export_static
from tsfmc.targets.tvm import TARGET

INPUT = (1, SHAPE.variates, SHAPE.lookback)


def equivariant(form: str) -> nn.Module:
    """A map whose forecasts move with the window's level, as every folded student is."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 8

    variates, lookback, horizon, rank = SHAPE.variates, SHAPE.lookback, SHAPE.horizon, 4
    return {
        "shared": lambda: affine.fold_shared(affine.mean_added(random(horizon, lookback))),
        "per-variate": lambda: affine.fold_per_variate(random(variates, horizon, lookback)),
        "low-rank": lambda: affine.fold_low_rank(random(rank, lookback), 4 * random(variates, horizon, rank)),
    }[form]().eval()


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("form", ["shared", "per-variate", "low-rank"])
def test_the_error_of_int8_weights_does_not_grow_with_the_level(form: str, tmp_path: Path) -> None:
    model = equivariant(form)
    payload = lower(model, tmp_path / "out", precision="int8-weights")
    engine, exact = TARGET.load(tmp_path / "out", payload, 1), model.double()
    spread = windows() / windows().std()

    def error(level: float) -> float:
        past = (spread + level).astype(np.float32)
        with torch.no_grad():
            expected = exact(torch.from_numpy(past).double()).numpy()
        return float(np.sqrt(np.mean(np.square(engine(past) - expected))))

    at_zero = error(0.0)
    assert 0 < at_zero < 0.05
    assert error(30.0) == pytest.approx(at_zero, rel=0.02)
    assert error(-1e4) == pytest.approx(at_zero, rel=0.05)  # float32 has three decimals left there


def gain(model: nn.Module) -> Any:
    return gain_of(export_static(model.eval(), INPUT), INPUT)


def test_the_gain_is_the_response_to_a_constant_window() -> None:
    model = student("affine_maps")
    sums = dict(model.named_parameters())["matrices"].detach().double().sum(1)
    torch.testing.assert_close(gain(model), sums)
    torch.testing.assert_close(gain(equivariant("low-rank")), torch.ones(3, 12).double(), atol=1e-6, rtol=0)


class Mixed(nn.Module):
    """Affine, but a variate's forecast depends on the others."""

    def forward(self, past: Tensor) -> Tensor:
        return (past + past.flip(1) * 0.5)[..., : SHAPE.horizon]


@pytest.mark.parametrize("model", [student("itransformer"), Mixed()], ids=type)
def test_other_models_stay_as_they_are(model: nn.Module) -> None:
    assert gain(model) is None
