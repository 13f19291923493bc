"""weight_horizons: the equation of paper B, and that tau acts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.ir.objective import Batch
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.build_student import BuildStudent, UniformKD
from tsfmc.passes.weight_horizons import HorizonKD, WeightHorizons, horizon_weights


@given(horizon=st.integers(1, 720), tau=st.floats(-8, 8))
def test_mean_is_one(horizon: int, tau: float) -> None:
    assert float(horizon_weights(horizon, tau).double().mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1, 2, 4])
def test_definition(tau: float) -> None:
    """The quotient of the paper, term by term in double precision."""
    powers = [math.exp(tau * t / 95) for t in range(96)]
    expected = [power / (sum(powers) / 96) for power in powers]
    assert horizon_weights(96, tau).tolist() == pytest.approx(expected, rel=1e-6)
    if tau == 4:
        assert (expected[0], expected[-1]) == pytest.approx((0.074, 4.03), abs=5e-3)


def test_tau_changes_loss_and_gradient() -> None:
    student, teacher = torch.randn(4, 3, 12, requires_grad=True), torch.randn(4, 3, 12)
    seen = {}
    for tau in (0.0, 1.0, 4.0):
        loss = HorizonKD(12, tau)(Batch(student, teacher, None, teacher))
        (gradient,) = torch.autograd.grad(loss, student)
        seen[tau] = (float(loss), gradient)
    assert len({loss for loss, _ in seen.values()}) == 3
    # The gradient of step t is the uniform one times w_t.
    for tau in (1.0, 4.0):
        torch.testing.assert_close(seen[tau][1], seen[0.0][1] * horizon_weights(12, tau))


def test_tau_zero_is_uniform_kd() -> None:
    batch = Batch(torch.randn(4, 3, 12), torch.randn(4, 3, 12), None, torch.randn(4, 3, 12))
    torch.testing.assert_close(HorizonKD(12, 0.0)(batch), UniformKD()(batch))


def test_replaces_the_kd_term_and_keeps_its_weight(unit: CompileUnit) -> None:
    unit = BuildStudent(kind="dlinear", lambda_kd=0.5).run(unit, PassContext()).unit
    after = WeightHorizons(tau=2.0).run(unit, PassContext()).unit
    assert [(weight, term.name) for weight, term in after.objective] == [(1.0, "supervised"), (0.5, "kd")]
    assert isinstance(after.objective.terms[1][1], HorizonKD)
    assert isinstance(unit.objective.terms[1][1], UniformKD)


def test_refuses_an_objective_without_kd(unit: CompileUnit) -> None:
    with pytest.raises(PassError, match="no kd term"):
        WeightHorizons().requires(unit)
