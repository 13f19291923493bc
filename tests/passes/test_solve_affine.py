"""solve_affine: the student that the collected objective asks for, exactly, and what it leaves open."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from series import windows_of

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.objective import Batch, LossTerm, Objective
from tsfmc.compiler.ir.passes import PassContext, PassResult
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.cost import validation_mse
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.passes.align_temporal import AlignTemporal
from tsfmc.passes.build_student import BuildStudent, Supervised, UniformKD
from tsfmc.passes.fold_affine import FoldAffine
from tsfmc.passes.gather_statistics import GatherStatistics
from tsfmc.passes.solve_affine import SolveAffine
from tsfmc.passes.weight_horizons import WeightHorizons

RIDGE = 20.0


def prepared(
    unit: CompileUnit,
    *,
    lambda_kd: float = 1.0,
    tau: float | None = None,
    variates: str = "auto",
    **config: Any,
) -> CompileUnit:
    """As it comes to the pass, statistics gathered."""
    gather = GatherStatistics(variates=variates)
    passes = [BuildStudent(kind="dlinear", config=config, lambda_kd=lambda_kd), gather]
    if tau is not None:
        passes.append(WeightHorizons(tau=tau))
    return PassManager(passes).run(unit, PassContext())


def solved(unit: CompileUnit, **options: Any) -> tuple[PassResult, DLinear]:
    step = SolveAffine(**options)
    step.requires(unit)
    result = step.run(unit, PassContext())
    assert isinstance(result.unit.student, DLinear)
    return result, result.unit.student


def dlinear_maps(student: DLinear) -> torch.Tensor:
    """``[D, H, L]`` of the forecast less the window's mean, in centred coordinates, by unit windows."""
    basis = torch.eye(48)[:, None, :].expand(-1, 3, -1)
    with torch.no_grad():
        forecast = student(basis).double() - 1 / 48
    return forecast.permute(1, 2, 0)


@pytest.mark.parametrize("maps", ["shared", "per-variate"])
@pytest.mark.parametrize(("lambda_kd", "tau"), [(0.5, None), (2.0, 1.5), (0.0, None)])
def test_the_objectives_own_gradient_is_zero(
    taught: CompileUnit, maps: str, lambda_kd: float, tau: float | None
) -> None:
    """Nothing searched: the paper's setting.  By the terms of the unit, at the weights of the student."""
    unit = prepared(taught, lambda_kd=lambda_kd, tau=tau, maps=maps)
    result, student = solved(unit, search=(), ridge=RIDGE)
    past, truth = windows_of(unit.data, "train", 48, 12)
    assert unit.teacher is not None
    with torch.inference_mode():
        teacher = unit.teacher(past.float()).double()
    teacher = teacher.clone()
    matrices = dlinear_maps(student)
    matrices = (matrices[:1] if maps == "shared" else matrices).requires_grad_()
    mean = past.mean(-1, keepdim=True)
    x = past - mean

    def loss(maps: torch.Tensor) -> torch.Tensor:
        forecast = torch.einsum("dhl,bdl->bdh", maps.expand(3, -1, -1), x) + mean
        batch = Batch(forecast, truth, None, teacher)
        total = sum((weight * term(batch) for weight, term in unit.objective.active()), torch.zeros(()))
        power = x.square().sum((0, 2)) / 48
        power = power.sum(0, keepdim=True) if len(maps) == 1 else power
        kd = next((term for _, term in unit.objective.active() if term.name == "kd"), None)
        weights = 1 + lambda_kd * getattr(kd, "weights", torch.ones(12))
        ridge = (RIDGE / len(past) * power[:, None] * weights * maps.square().sum(-1)).sum()
        return total + ridge / forecast.numel()

    (gradient,) = torch.autograd.grad(loss(matrices), matrices)
    start = torch.zeros_like(matrices).requires_grad_()
    (from_zero,) = torch.autograd.grad(loss(start), start)
    assert float(gradient.abs().max()) < 1e-4 * float(from_zero.abs().max())  # the student is float32
    metrics = result.metrics
    assert (metrics["maps"], metrics["ridge"]) == (maps, pytest.approx(RIDGE))
    assert metrics["lambda"] == pytest.approx(lambda_kd)
    assert metrics["tau"] == (tau or 0.0 if lambda_kd else 0.0)


def test_without_supervision_the_student_is_the_teachers(taught: CompileUnit) -> None:
    unit = prepared(taught)
    unit = unit.with_(objective=unit.objective.put(0.0, Supervised()))
    result, student = solved(unit, search=(), ridge=1e-3)
    assert result.metrics["lambda"] == "inf"
    # Against the teacher the student has a smaller error than any that was fitted to the truth.
    past, _ = windows_of(unit.data, "train", 48, 12)
    _, of_truth = solved(prepared(taught, lambda_kd=0.0), search=(), ridge=1e-3)
    assert taught.teacher is not None
    with torch.inference_mode():
        teacher = taught.teacher(past.float())
        errors = [float((s(past.float()) - teacher).square().mean()) for s in (student, of_truth)]
    assert errors[0] < 0.5 * errors[1]


def test_the_weights_of_the_terms_count_against_each_other(taught: CompileUnit) -> None:
    unit = prepared(taught, lambda_kd=0.5)
    doubled = unit.with_(objective=Objective(tuple((2 * weight, term) for weight, term in unit.objective)))
    one, other = solved(unit, search=())[1], solved(doubled, search=())[1]
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name])
    assert solved(doubled, search=())[0].metrics["lambda"] == pytest.approx(0.5)


@pytest.mark.parametrize("maps", ["shared", "per-variate", "low-rank", "auto"])
def test_every_form_is_solved_folded_and_as_good_as_it_says(taught: CompileUnit, maps: str) -> None:
    unit = prepared(taught, maps=maps, rank=4)
    before = {name: tensor.clone() for name, tensor in unit.student.state_dict().items()}  # type: ignore[union-attr]
    after = PassManager([SolveAffine(), FoldAffine()], check_purity=True).run(unit, PassContext())
    metrics = after.record[-2].metrics
    assert maps in ("auto", metrics["maps"]) and (metrics["rank"] == 4 or maps != "low-rank")
    assert validation_mse(after.model, after) == pytest.approx(metrics["validation_mse"], rel=1e-4)
    assert (
        metrics["candidates"] == len(metrics["selection"])
        and 1 <= metrics["near_best"] <= metrics["candidates"]
    )
    assert after.objective == Objective() and not after.model.training
    assert unit.student is not None
    for name, tensor in unit.student.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_auto_searches_forms_only_when_asked(taught: CompileUnit) -> None:
    unit = prepared(taught, maps="auto")
    assert {row["form"] for row in solved(unit, search=("lambda",))[0].metrics["selection"]} == {"shared"}
    forms = {row["form"] for row in solved(unit, search=("maps",))[0].metrics["selection"]}
    assert forms == {"shared", "per-variate", "low-rank"}


def test_of_the_average_variate_comes_the_same_shared_map(taught: CompileUnit) -> None:
    """To the setting, the error it says it has, and the map; other forms are left out, and a line says so."""
    (one, mine), (other, theirs) = (
        solved(prepared(taught, maps=maps, variates=variates))
        for maps, variates in (("shared", "each"), ("auto", "average"))
    )
    warnings = one.metrics.pop("warnings"), other.metrics.pop("warnings")
    assert warnings[1][-1].startswith("3 variates: one map for all of them is the only form")
    assert not any("only form" in line for line in warnings[0])
    assert other.metrics["maps"] == "shared"
    assert {k: other.metrics[k] for k in ("lambda", "tau", "ridge", "candidates")} == {
        k: one.metrics[k] for k in ("lambda", "tau", "ridge", "candidates")
    }
    assert other.metrics["validation_mse"] == pytest.approx(one.metrics["validation_mse"], rel=1e-9)
    torch.testing.assert_close(dlinear_maps(theirs), dlinear_maps(mine), rtol=1e-5, atol=1e-6)


def test_maps_of_each_need_the_sums_of_each(taught: CompileUnit) -> None:
    with pytest.raises(PassError, match=r"3 variates are too many for low-rank maps.*gather_statistics"):
        SolveAffine().requires(prepared(taught, maps="low-rank", rank=3, variates="average"))


def test_options_are_the_values_tried(taught: CompileUnit) -> None:
    unit = prepared(taught, maps="auto", tau=2.0)
    rows = solved(
        unit, search=("lambda", "tau", "maps", "ridge"), lambdas=(0.0, 3.0), ranks=(2,), ridges=(100.0, 7.0)
    )[0].metrics["selection"]
    assert {row["lambda"] for row in rows} == {0.0, 3.0}
    assert {row["tau"] for row in rows} == {0.0, 2.0}
    assert {row["rank"] for row in rows} == {0, 2} and {row["ridge"] for row in rows} == {100.0, 7.0}
    fixed = solved(unit, search=("ridge",))[0].metrics["selection"]
    assert {(row["lambda"], row["tau"]) for row in fixed if row["teachers"]} == {(1.0, 2.0)}


def test_a_teacher_that_knows_nothing_gets_no_weight(unit: CompileUnit, taught: CompileUnit) -> None:
    """The untrained teacher of these tests; with it the student is as good as without, to a percent."""
    with_it = solved(prepared(taught))[0].metrics
    assert with_it["lambda"] != "inf" and with_it["lambda"] < 0.5
    alone = solved(prepared(unit.with_(teacher=None, teacher_info=None)))[0].metrics
    assert {row["lambda"] for row in alone["selection"]} == {0.0}
    assert with_it["validation_mse"] < 1.02 * alone["validation_mse"]


def test_the_test_split_is_never_read(unit: CompileUnit, taught: CompileUnit) -> None:
    """A pipeline on data whose test rows are poison gives the same student, bit for bit."""
    values = np.array(taught.data.values)
    values[taught.data.splits.train + taught.data.splits.val :] = np.nan
    poisoned = prepared(taught.with_(data=replace(taught.data, values=values)), maps="auto")
    one, other = solved(prepared(taught, maps="auto")), solved(poisoned)
    assert one[0].metrics == other[0].metrics
    for name, tensor in one[1].state_dict().items():
        assert torch.equal(tensor, other[1].state_dict()[name])


def test_warnings_reach_the_user_and_the_record(unit: CompileUnit) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def line(self, text: str) -> None:
            self.lines.append(text)

    heard = Heard()
    passes = [BuildStudent(kind="dlinear"), GatherStatistics(blocks=400)]
    ready = PassManager(passes).run(unit, PassContext())
    ready = ready.with_(objective=Objective().put(1.0, Supervised()))
    result = SolveAffine().run(ready, PassContext(progress=heard))
    assert "too few windows for rolling origins" in result.metrics["warnings"][0]
    assert heard.lines == [f"    warning: {line}" for line in result.metrics["warnings"]]


class Other(UniformKD):
    """A term of another package: it says what it aims at, and has a name of its own."""

    name = "imitate"


def test_terms_count_by_what_they_aim_at_not_by_their_names(taught: CompileUnit) -> None:
    unit = prepared(taught, lambda_kd=0.0)
    named = unit.with_(objective=Objective(((1.0, Supervised()), (0.5, UniformKD()))))
    other = unit.with_(objective=Objective(((1.0, Supervised()), (0.5, Other()))))
    one, two = solved(named, search=()), solved(other, search=())
    assert one[0].metrics["lambda"] == two[0].metrics["lambda"] == pytest.approx(0.5)
    for name, tensor in one[1].state_dict().items():
        assert torch.equal(tensor, two[1].state_dict()[name])
    both = unit.with_(objective=Objective(((1.0, Supervised()), (0.5, Other()), (0.5, UniformKD()))))
    with pytest.raises(PassError, match=r"imitate and kd both aim at the teacher"):
        SolveAffine().requires(both)


def test_a_rank_that_no_map_has_is_refused(taught: CompileUnit) -> None:
    """12 steps of 3 variates have 36 outputs: a basis of 40 has no meaning."""
    step = SolveAffine()
    step.requires(prepared(taught, maps="low-rank", rank=36))
    with pytest.raises(PassError, match=r"rank 40.*at most 36"):
        step.requires(prepared(taught, maps="low-rank", rank=40))
    with pytest.raises(PassError, match=r"rank 48.*at most 36"):
        step.requires(prepared(taught, maps="low-rank", rank=48))


@pytest.mark.parametrize(
    "options",
    [
        {"lambdas": (-1.0, 0.0)},
        {"lambdas": ()},
        {"ridges": (0.0,)},
        {"ridges": ()},
        {"ranks": (0,)},
        {"ranks": ()},
        {"ridge": 0},
        {"lambdas": (math.nan,)},
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SolveAffine(**options)


def aligned(unit: CompileUnit, maps: str = "auto", lambda_fta: float = 0.5, **options: Any) -> CompileUnit:
    """As it comes to the pass, with alignment with the teacher's states."""
    passes = [
        BuildStudent(kind="dlinear", config={"maps": maps, "rank": 3}),
        AlignTemporal(**{"lambda_fta": lambda_fta, "phi": "identity", **options}),
        GatherStatistics(),
    ]
    return PassManager(passes).run(unit, PassContext())


@pytest.mark.parametrize("maps", ["low-rank", "auto"])
def test_alignment_is_a_candidate_beside_none(taught: CompileUnit, maps: str) -> None:
    """The whole pipeline: the states' weight is judged, and the student is as good as it says."""
    passes = [SolveAffine(ranks=(3, 5), ridges=(RIDGE,)), FoldAffine()]
    after = PassManager(passes, check_purity=True).run(aligned(taught, maps), PassContext())
    metrics = after.record[-2].metrics
    rows = [row for row in metrics["selection"] if row["form"] == "low-rank"]
    assert {row["align"] for row in rows} == {0.0, 0.5} and after.objective == Objective()
    assert validation_mse(after.model, after) == pytest.approx(metrics["validation_mse"], rel=1e-4)
    assert after.setting is not None
    assert after.setting["align"] == metrics["align"] in (0.0, 0.5)


def test_alignment_alone_shapes_the_basis_by_the_terms_weight(taught: CompileUnit) -> None:
    """Nothing searched: the objective's weight, against the truth's; 0 is the student without the pass."""
    unit = aligned(taught, "low-rank", 4.0)
    halved = unit.with_(objective=Objective(tuple((2 * weight, term) for weight, term in unit.objective)))
    results = [solved(case, search=(), ridge=RIDGE) for case in (unit, halved)]
    assert [result.metrics["align"] for result, _ in results] == [4.0, 4.0]
    plain = solved(prepared(taught, maps="low-rank", rank=3), search=(), ridge=RIDGE)[1]
    without = solved(aligned(taught, "low-rank", 0.0), search=(), ridge=RIDGE)[1]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, without.state_dict()[name])
    past, _ = windows_of(taught.data, "val", 48, 12)
    with torch.no_grad():
        assert float((plain(past.float()) - results[0][1](past.float())).abs().max()) > 1e-3


@pytest.mark.parametrize("options", [{"phi": "gelu"}, {"reduction": "paper"}])
def test_alignment_that_is_no_regression_is_refused(taught: CompileUnit, options: dict[str, Any]) -> None:
    with pytest.raises(PassError, match="the term fta is not quadratic in an affine student"):
        SolveAffine().requires(aligned(taught, "low-rank", **options))


class Absolute(LossTerm):
    name = "absolute"


class Missing(LossTerm):
    name = "other"
    target = "elsewhere"


def test_refusals(unit: CompileUnit, taught: CompileUnit) -> None:
    ready = prepared(taught)
    step = SolveAffine()
    cases = [
        (ready.with_(student=None), "no student with an objective"),
        (ready.with_(objective=Objective()), "no student with an objective"),
        (ready.with_(statistics=None), "no statistics"),
        (prepared(taught, embedding=8), "DLinear is not affine in its windows"),
        (prepared(taught, normalisation="last"), "DLinear is not affine in its windows"),
        (ready.with_(objective=ready.objective.put(1.0, Absolute())), "absolute is not quadratic"),
        (ready.with_(objective=ready.objective.put(1.0, Missing())), "needs a elsewhere"),
    ]
    step.requires(ready)
    step.requires(ready.with_(objective=ready.objective.put(0.0, Absolute())))
    for case, message in cases:
        with pytest.raises(PassError, match=message):
            step.requires(case)
    assert math.isinf(SolveAffine().options.lambdas[-1])
