"""The residual student: the affine one until trained, shift-equivariant, silent on constants, foldable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsfmc.compiler.base.errors import PassError, RecipeError
from tsfmc.compiler.ir.forecaster import Student
from tsfmc.compiler.students import build_student, from_config
from tsfmc.compiler.students.dlinear import DLinear
from tsfmc.compiler.students.itransformer import ITransformer
from tsfmc.compiler.students.residual import Residual, grow
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape
from tsfmc.targets.measure.parity import check_parity, hard_windows

D, L, H, R = 3, 32, 8, 4
MAPS = ("shared", "per-variate", "low-rank")
MLP = {"branch": "mlp", "width": 16, "vector": 4, "embedding": 6}
TRANSFORMER = {"branch": "itransformer", "width": 16, "heads": 2, "ffn": 32, "embedding": 6}


def windows(count: int = 64) -> Tensor:
    """Random walks ``[N, D, L]``."""
    rng = np.random.default_rng(0)
    return torch.from_numpy((rng.normal(size=(count, D, L)).cumsum(-1) / 4).astype(np.float32))


def solved(maps: str) -> DLinear:
    arrays = {
        "shared": (torch.randn(H, L) / L,),
        "per-variate": (torch.randn(D, H, L) / L,),
        "low-rank": (torch.randn(R, L) / L, torch.randn(D, H, R)),
    }
    return DLinear.from_affine(maps, arrays[maps], lookback=L, horizon=H, variates=D).eval()  # type: ignore[arg-type]


def grown(maps: str, options: dict[str, Any]) -> Residual:
    start = solved(maps)
    basis = start.centred_arrays()[0] if maps == "low-rank" else torch.randn(6, L)
    return grow(start, basis, windows(), **options)


def trained(maps: str, options: dict[str, Any], gain: float = 0.5) -> Residual:
    """With a branch that says something."""
    student = grown(maps, options)
    with torch.no_grad():
        torch.nn.init.normal_(student.branch.head.weight, std=0.3)
        torch.nn.init.normal_(student.branch.head.bias, std=0.3)
    return student.trusted(gain)


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("options", [MLP, TRANSFORMER], ids=["mlp", "itransformer"])
def test_untrained_it_is_the_affine_student(maps: str, options: dict[str, Any]) -> None:
    start = solved(maps)
    basis = start.centred_arrays()[0] if maps == "low-rank" else torch.randn(6, L)
    student = grow(start, basis, windows(), **options)
    past = windows() + 3
    with torch.no_grad():
        torch.testing.assert_close(student(past), start(past), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(student.affine_start()(past), start(past), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(trained(maps, options)(past), start(past), atol=1e-2)


@pytest.mark.parametrize("options", [MLP, TRANSFORMER], ids=["mlp", "itransformer"])
def test_a_level_passes_through_and_a_constant_stays_one(options: dict[str, Any]) -> None:
    student, past = trained("low-rank", options), windows()
    with torch.no_grad():
        torch.testing.assert_close(student(past + 20), student(past) + 20, rtol=1e-4, atol=1e-4)
        constant = torch.full((2, D, L), 2.5)
        torch.testing.assert_close(student(constant), torch.full((2, D, H), 2.5), rtol=1e-6, atol=1e-6)


def test_scale_enters_through_the_level_alone() -> None:
    """Without the level, twice the window is twice the forecast (spread far above its floor)."""
    student, past = trained("low-rank", MLP, gain=1.0), windows() * 2
    with torch.no_grad():
        moved = (student(2 * past) - 2 * student(past)).abs().max()
        student.level_scale.fill_(1e9)
        still = (student(2 * past) - 2 * student(past)).abs().max()
    assert moved > 0.1 and still < 1e-3


def test_a_constant_window_has_a_finite_gradient() -> None:
    student = trained("shared", MLP)
    past = windows(4)
    past[0] = 1.0
    student(past).square().sum().backward()
    for parameter in student.branch.parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())


def test_the_affine_path_is_not_trained() -> None:
    student = grown("low-rank", MLP).train()
    names = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert names == {f"branch.{name}" for name, _ in student.branch.named_parameters()}


def test_the_gain_scales_what_the_branch_says() -> None:
    full, past = trained("shared", MLP, gain=1.0), windows()
    with torch.no_grad():
        affine, whole, half = full.trusted(0)(past), full(past), full.trusted(0.5)(past)
    torch.testing.assert_close(half, (affine + whole) / 2)


def test_the_branchs_inputs_have_unit_spread_where_it_was_grown() -> None:
    student = grown("low-rank", MLP)
    seen: dict[str, Tensor] = {}
    student.branch.register_forward_pre_hook(
        lambda _, inputs: seen.update(embedding=inputs[1], level=inputs[2])
    )
    with torch.no_grad():
        student(windows())
    torch.testing.assert_close(seen["embedding"].flatten(0, 1).std(dim=0), torch.ones(R), rtol=1e-3, atol=0)
    assert abs(float(seen["level"].mean())) < 0.1 and 0.8 < float(seen["level"].std()) < 1.1


@pytest.mark.parametrize(
    ("target", "maps", "options"),
    [
        ("onnx", "low-rank", MLP),
        ("onnx", "shared", MLP),
        ("onnx", "per-variate", MLP),
        ("onnx", "low-rank", TRANSFORMER),
        ("tvm", "low-rank", MLP),
    ],
)
def test_folded_and_lowered_it_is_the_same_on_hard_windows(
    target: str, maps: str, options: dict[str, Any], tmp_path: Any
) -> None:
    """Constant, nearly constant, tiny and huge windows among them."""
    student = trained(maps, options)
    folded = student.fold().eval()
    lowered = TARGETS[target]
    payload = lowered.lower_model(
        folded, Shape(D, L, H), tmp_path, options=lowered.Options(), calibration=windows().numpy()
    )
    engine = lowered.load(tmp_path, payload, 1)

    def reference(past: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            forecast: np.ndarray = student(torch.from_numpy(past)).numpy()
        return forecast

    parity = check_parity(engine, reference, hard_windows(windows().numpy() + 5), 1e-5)
    assert parity.passed, parity.describe()
    rebuilt = from_config(folded.config)
    rebuilt.load_state_dict(folded.state_dict(), strict=True)


def test_a_residual_student_starts_as_what_can_be_solved() -> None:
    for kind in ("residual", "auto"):
        start = build_student(kind, lookback=L, horizon=H, variates=D, **MLP)
        assert isinstance(start, DLinear) and start.solvable and start.maps == "auto"


def test_refusals() -> None:
    with pytest.raises(PassError, match="no solved affine student"):
        grow(ITransformer(L, H), torch.zeros(2, L), windows())
    with pytest.raises(RecipeError, match=r"student\.branch='mpl'.*mlp, itransformer"):
        Residual(L, H, D, branch="mpl")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"student\.width=0"):
        Residual(L, H, D, width=0)
    assert issubclass(Residual, Student)


def test_an_unfolded_student_is_exported_with_every_weight_once(tmp_path: Any) -> None:
    student = trained("shared", {"branch": "itransformer", "width": 8, "heads": 2, "ffn": 8, "layers": 1})
    target = TARGETS["onnx"]
    payload = target.lower_model(
        student, Shape(D, L, H), tmp_path, options=target.Options(), calibration=windows().numpy()
    )
    with torch.no_grad():
        expected = student(windows()).numpy()
    assert np.abs(target.load(tmp_path, payload, 1)(windows().numpy()) - expected).max() < 1e-4
    assert "branch.head.weight" not in student.state_dict()
