"""align_temporal: FTA as an equation, its boundary case, and that its aligner learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.ir.objective import Batch
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.align_temporal import FTA, Aligner, AlignTemporal
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill, DistillStep


def test_equation() -> None:
    aligner = Aligner(embedding=5, positions=4, width=7, factors=6)
    h = torch.randn(2, 3, 5)
    for s in range(4):
        factors = (aligner.project.weight @ h.unsqueeze(-1)).squeeze(-1) * aligner.positions[s]
        expected = torch.nn.functional.gelu(factors) @ aligner.out.weight.T
        torch.testing.assert_close(aligner(h)[:, :, s], expected)


def test_reductions_differ_by_the_width() -> None:
    aligner = Aligner(5, 4, 7, 6)
    batch = Batch(
        torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.randn(2, 3, 5), None, torch.randn(2, 3, 4, 7)
    )
    torch.testing.assert_close(FTA(aligner, "paper")(batch), 7 * FTA(aligner, "mean")(batch))


def test_boundary_case_is_recovered_exactly() -> None:
    """Paper B, section 2.1.3: phi = identity, u = S * r, one-hot blocks in E, time-separable states."""
    positions, rank, embedding, width = 6, 4, 8, 10
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(5, 3, embedding, generator=generator, dtype=torch.float64)
    maps = torch.randn(positions, width, embedding, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(maps, full_matrices=False)
    left, values, right = left[..., :rank], values[..., :rank], right[:, :rank]
    states = torch.einsum("swr,sr,sre,bde->bdsw", left, values, right, h)

    aligner = Aligner(embedding, positions, width, positions * rank, phi="identity").double()
    with torch.no_grad():
        aligner.project.weight.copy_(right.reshape(positions * rank, embedding))
        aligner.positions.copy_(torch.eye(positions).repeat_interleave(rank, dim=1))
        aligner.out.weight.copy_((left * values[:, None]).permute(1, 0, 2).reshape(width, positions * rank))
    torch.testing.assert_close(aligner(h), states, rtol=1e-12, atol=1e-12)


def test_aligner_moves_and_its_loss_falls(taught: CompileUnit, tmp_path: Path) -> None:
    unit = BuildStudent(kind="dlinear", config={"embedding": 16}).run(taught, PassContext()).unit
    unit = AlignTemporal(factors=32, reduction="mean").run(unit, PassContext()).unit
    before = {name: p.clone() for name, p in unit.objective.terms[2][1].named_parameters()}
    step = DistillStep(unit.student, unit.objective)  # type: ignore[arg-type]
    trained = [name for name, _ in step.named_parameters() if name.startswith("terms.2.")]
    assert len(trained) == len(before) == 3

    result = Distill(epochs=4, learning_rate=3e-3, averaging=0).run(unit, PassContext(workspace=tmp_path))
    losses = [epoch["fta"] for epoch in result.metrics["training"]]
    assert losses[-1] < 0.9 * losses[0]


def test_every_aligner_parameter_gets_a_gradient(taught: CompileUnit) -> None:
    unit = BuildStudent(kind="dlinear", config={"embedding": 16}).run(taught, PassContext()).unit
    unit = AlignTemporal(factors=32).run(unit, PassContext()).unit
    step = DistillStep(unit.student, unit.objective)  # type: ignore[arg-type]
    past, future = taught.data.windows("train", 48, 12).batch(range(4))
    store = taught.teacher_store
    assert store is not None
    step(past, future, store.forecast("train", range(4)), store.states("train", range(4)))["fta"].backward()
    for name, parameter in step.named_parameters():
        if name.startswith("terms."):
            assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


def test_plain_dlinear_is_refused_with_what_to_do(taught: CompileUnit) -> None:
    unit = BuildStudent(kind="dlinear").run(taught, PassContext()).unit
    with pytest.raises(PassError, match=r"no embedding.*student\.embedding=256"):
        AlignTemporal().requires(unit)


def test_a_form_that_is_open_is_aligned_where_it_is_solved(taught: CompileUnit) -> None:
    """Automatic maps have an embedding once they are of low rank; by gradients they have none."""
    unit = BuildStudent(kind="dlinear", config={"maps": "auto"}).run(taught, PassContext()).unit
    AlignTemporal(phi="identity").requires(unit)
    term = AlignTemporal(phi="identity").run(unit, PassContext()).unit.objective.terms[2][1]
    assert term.target == "states" and term.config["embedding"] == 7
    for options in ({"phi": "gelu"}, {"phi": "identity", "reduction": "paper"}):
        with pytest.raises(PassError, match="no embedding"):
            AlignTemporal(**options).requires(unit)
    shared = BuildStudent(kind="dlinear").run(taught, PassContext()).unit
    with pytest.raises(PassError, match="no embedding"):
        AlignTemporal(phi="identity").requires(shared)


def test_an_aligner_starts_at_the_scale_that_the_equation_says() -> None:
    """E ~ N(0, 1)/sqrt(u) and the linear maps at Kaiming's bound, whatever the width u."""
    torch.manual_seed(0)
    for factors in (64, 1024):
        aligner = Aligner(embedding=256, positions=64, width=32, factors=factors)
        assert float(aligner.positions.detach().std()) == pytest.approx(factors**-0.5, rel=0.05)
        assert abs(float(aligner.positions.detach().mean())) < 0.1 * factors**-0.5
        assert float(aligner.project.weight.detach().std()) == pytest.approx((3 * 256) ** -0.5, rel=0.05)
        assert float(aligner.out.weight.detach().std()) == pytest.approx((3 * factors) ** -0.5, rel=0.05)
