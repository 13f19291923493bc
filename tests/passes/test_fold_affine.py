"""fold_affine: one matrix, equal on real, constant and nearly constant windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.ir.verify import function_change
from tsfmc.compiler.students import build_student, from_config
from tsfmc.compiler.students.affine import AffineMap
from tsfmc.passes.build_student import BuildStudent
from tsfmc.passes.distill import Distill
from tsfmc.passes.fold_affine import FoldAffine

TOLERANCE = 1e-5


def windows(lookback: int) -> torch.Tensor:
    """Random, constant, nearly constant, huge, tiny, offset: ``[6, 3, L]``."""
    noise = torch.randn(3, lookback)
    return torch.stack(
        [
            noise,
            torch.full((3, lookback), 2.5),
            2.5 + 1e-4 * noise,
            1e5 * noise,
            1e-5 * noise,
            1e3 + noise,
        ]
    )


def randomise(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


@settings(max_examples=20, deadline=None)
@given(
    lookback=st.integers(26, 96),
    horizon=st.integers(1, 24),
    normalisation=st.sampled_from(["none", "instance", "last"]),
    embedding=st.sampled_from([0, 8]),
    kernel=st.sampled_from([1, 5, 25]),
)
def test_dlinear_is_one_affine_map(
    lookback: int, horizon: int, normalisation: Any, embedding: int, kernel: int
) -> None:
    student = build_student(
        "dlinear",
        lookback=lookback,
        horizon=horizon,
        kernel=kernel,
        normalisation=normalisation,
        embedding=embedding,
    )
    randomise(student)
    folded = student.fold()
    assert isinstance(folded, AffineMap)
    assert (folded.bias is None) == (normalisation == "instance")
    past = windows(lookback)
    # Rounding is relative to the largest product that was summed, not to a sum that may cancel.
    with torch.no_grad():
        scale = past.abs() @ folded.matrix.abs() + (0 if folded.bias is None else folded.bias.abs())
        scale = scale.amax(dim=(1, 2)) + 1e-12
        error = (folded(past) - student(past)).abs().amax(dim=(1, 2))
    assert float((error / scale).max()) <= TOLERANCE


@pytest.mark.parametrize("config", [{"embedding": 0}, {"embedding": 16}, {"normalisation": "none"}])
def test_trained_dlinear(taught: CompileUnit, tmp_path: Path, config: dict[str, Any]) -> None:
    passes = [
        BuildStudent(kind="dlinear", config=config),
        Distill(epochs=1, learning_rate=1e-3),
        FoldAffine(),
    ]
    unit = PassManager(passes).run(taught, PassContext(workspace=tmp_path))
    assert isinstance(unit.student, AffineMap)
    assert unit.record[-1].metrics["function_change"] <= TOLERANCE


def test_itransformer() -> None:
    student = build_student(
        "itransformer", lookback=48, horizon=12, width=32, heads=4, ffn=64, layers=2
    ).eval()
    randomise(student)
    folded = student.fold().eval()  # type: ignore[union-attr]
    assert function_change(student, folded, windows(48)) <= TOLERANCE
    rebuilt = from_config(folded.config)
    rebuilt.load_state_dict(folded.state_dict(), strict=True)


def test_untrained_student_is_refused(taught: CompileUnit) -> None:
    unit = BuildStudent(kind="dlinear").run(taught, PassContext()).unit
    with pytest.raises(PassError, match="not trained"):
        FoldAffine().requires(unit)


def test_a_teacher_alone_is_left_as_it_is(unit: CompileUnit) -> None:
    result = FoldAffine().run(unit, PassContext())
    assert not result.modified and result.unit is unit
