"""build_student: the student and the objective that it opens."""

from __future__ import annotations

import pytest
import torch

from tsfmc.compiler.base.errors import UsageError
from tsfmc.compiler.ir.forecaster import parameter_count
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.students import build_student
from tsfmc.passes.build_student import BuildStudent


def test_published_sizes() -> None:
    assert parameter_count(build_student("dlinear", lookback=512, horizon=96, normalisation="none")) == 98_496
    assert parameter_count(build_student("itransformer", lookback=512, horizon=96)) == 3_465_312


def test_objective_has_kd_only_with_a_teacher(unit: CompileUnit) -> None:
    step = BuildStudent(kind="dlinear", lambda_kd=0.5)
    result = step.run(unit, PassContext())
    with_teacher = result.unit
    assert result.modified and with_teacher.student is not None
    parameters = sum(parameter.numel() for parameter in with_teacher.student.parameters())
    assert result.metrics == {"parameters": parameters}
    assert [(weight, term.name) for weight, term in with_teacher.objective] == [
        (1.0, "supervised"),
        (0.5, "kd"),
    ]
    alone = step.run(unit.with_(teacher=None), PassContext()).unit
    assert [term.name for _, term in alone.objective] == ["supervised"]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        BuildStudent(kind="dlinear", lambda_kd=-1.0)


def test_the_unit_that_came_in_is_unchanged(unit: CompileUnit) -> None:
    before = str(unit)
    BuildStudent(kind="dlinear").run(unit, PassContext())
    assert str(unit) == before


def test_unknown_student_lists_what_exists() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'dlinear'.*itransformer"):
        build_student("dliner", lookback=8, horizon=2)


@pytest.mark.parametrize("kind", ["dlinear", "itransformer"])
def test_shape_and_scale_equivariance(kind: str) -> None:
    """Instance normalisation: shifting and scaling a window shifts and scales its forecast."""
    options = {} if kind == "dlinear" else {"width": 32, "heads": 4, "ffn": 64}
    student = build_student(kind, lookback=48, horizon=12, **options).eval()
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    past = torch.randn(4, 3, 48)
    with torch.no_grad():
        plain, moved = student(past), student(past * 7 + 100)
    assert plain.shape == (4, 3, 12)
    torch.testing.assert_close(moved, plain * 7 + 100, rtol=1e-4, atol=1e-2)
