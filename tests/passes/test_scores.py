"""Per-sample mask derivatives against central differences, and what the score is worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_teachers import STREAMS, TINY, tiny_teacher
from torch import Tensor, nn

from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.prunable import Group, Tap
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.finetune import Finetune
from tsfmc.passes.scores import Scores, batch_score, mask_derivatives, sample_losses
from tsfmc.passes.surgery import mask_units

FAMILIES = pytest.mark.parametrize("family", TINY)
STEP = 1e-6
"""Small: relu, top-2 routing and sorted quantiles have kinks, which a larger step runs into."""
SMOOTH_STEP = {"moirai": 1e-4}
"""A mixture's mean has no kinks, but may be large: a step that its rounding does not drown."""
ROUNDING = 16 * torch.finfo(torch.float64).eps
"""Of a difference of two losses, relative to the loss: what no step can resolve."""


def windows(teacher: Teacher, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    past = torch.randn(batch, teacher.variates, teacher.lookback, generator=generator).cumsum(-1)
    return past.double(), torch.randn(batch, teacher.variates, teacher.horizon, generator=generator).double()


def losses(teacher: Teacher, group: Group, mask: Tensor, tap: int, past: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad(), teacher.sample_major(), mask_units(teacher, group, mask, tap):
        return sample_losses(teacher(past), target)


def at_side(teacher: Teacher, group: Group, side: str) -> Group:
    """The group masked at the input of a layer that reads it, or at the output of one that writes it."""
    if group.together:
        return group  # no single layer has all of the stream
    for member in group.members:
        module = member.parameter.removesuffix(".weight")
        linear = member.owner is None and isinstance(
            teacher.get_submodule(module.removesuffix(".bias")), nn.Linear
        )
        if linear and module != member.parameter and member.dim == (1 if side == "in" else 0):
            return replace(group, taps=(Tap(module, side, member.spans),))  # type: ignore[arg-type]
    return group  # queries and keys are written by a layer, and read by no layer


@FAMILIES
@pytest.mark.parametrize("side", ["in", "out"])
def test_derivatives_equal_central_differences(family: str, side: str) -> None:
    """Every group, its first and last unit, every sample: 1e-4 relative in float64."""
    step = SMOOTH_STEP.get(family, STEP)
    teacher = tiny_teacher(family).double()
    past, target = windows(teacher)
    groups = [at_side(teacher, group, side) for group in teacher.structure().groups]
    assert sum(group.taps[0].side == side for group in groups) > len(groups) / 3
    derivatives, base = mask_derivatives(teacher, past, target, groups)
    for group in groups:
        got = derivatives[group.name]
        for unit in {0, group.units - 1}:
            up, down = torch.ones(2, group.units, dtype=torch.float64)
            up[unit] += step
            down[unit] -= step
            above = losses(teacher, group, up, 0, past, target)
            below = losses(teacher, group, down, 0, past, target)
            expected = (above - below) / (2 * step)
            allowed = 1e-4 * expected.abs() + ROUNDING * base / step
            assert bool(((got[:, unit] - expected).abs() <= allowed).all()), group.name


@FAMILIES
def test_taps_of_a_group_agree(family: str) -> None:
    """Why one tap is enough: the derivative is the same at each of them."""
    teacher = tiny_teacher(family).double()
    past, target = windows(teacher)
    groups = teacher.structure().groups
    first, last = (mask_derivatives(teacher, past, target, groups, tap=tap)[0] for tap in (0, 1))
    for name in first:
        torch.testing.assert_close(first[name], last[name], rtol=1e-9, atol=1e-12)


@FAMILIES
def test_a_mask_at_all_writers_sums_their_derivatives(family: str) -> None:
    """The chain rule, for the one mask of a residual dim."""
    teacher = tiny_teacher(family).double()
    past, target = windows(teacher)
    groups = [group for group in teacher.structure().groups if group.together]
    assert bool(groups) == (family in STREAMS)
    if not groups:
        return
    whole, _ = mask_derivatives(teacher, past, target, groups)
    for group in groups:
        alone = [replace(group, taps=(tap,), together=False) for tap in group.taps]
        parts = [mask_derivatives(teacher, past, target, [one])[0][group.name] for one in alone]
        assert sum(bool(part.any()) for part in parts) > 1
        torch.testing.assert_close(whole[group.name], sum(parts), rtol=1e-9, atol=1e-12)


def test_samples_do_not_mix() -> None:
    """A sample's derivatives do not depend on the batch that it is in."""
    teacher = tiny_teacher("time-moe").double()
    past, target = windows(teacher)
    groups = teacher.structure().groups
    together, _ = mask_derivatives(teacher, past, target, groups)
    alone, _ = mask_derivatives(teacher, past[1:2], target[1:2], groups)
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-8, atol=1e-12)


def test_the_formula_without_masks() -> None:
    """``sum_tokens x * dL/dx`` at the reader's input, as paper A has it."""
    teacher = tiny_teacher("ttm").double()
    past, target = windows(teacher)
    group = teacher.structure().groups[0]
    seen: list[Tensor] = []
    module = teacher.get_submodule(group.taps[0].module)
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    total = sample_losses(teacher(past), target).sum()
    handle.remove()
    (grad,) = torch.autograd.grad(total, seen)
    expected = (seen[0] * grad).reshape(len(past), -1, group.units).sum(1)
    derivatives, _ = mask_derivatives(teacher, past, target, [group])
    torch.testing.assert_close(derivatives[group.name], expected)


def test_masks_stay_wide_in_a_narrow_model() -> None:
    teacher = tiny_teacher("ttm").bfloat16()
    past, target = (tensor.bfloat16() for tensor in windows(teacher))
    derivatives, _ = mask_derivatives(teacher, past, target, teacher.structure().groups)
    assert {tensor.dtype for tensor in derivatives.values()} == {torch.float32}


def test_orders_and_where_the_absolute_value_is_taken() -> None:
    samples = torch.tensor([[1.0, -1.0], [3.0, 1.0]])
    assert batch_score(samples, 1).tolist() == [-2.0, 0.0]
    assert batch_score(samples, 2).tolist() == [0.5, 0.5]
    alive = {"g": torch.ones(1, dtype=torch.bool)}
    expected = {"before_ema": 0.5 * 4 + 0.5 * 2, "after_ema": abs(0.5 * -4 + 0.5 * 2)}
    for absolute, value in expected.items():
        scores = Scores(1, absolute, 0.5)  # type: ignore[arg-type]
        scores.update({"g": torch.tensor([[4.0]])}, alive)
        scores.update({"g": torch.tensor([[-2.0]])}, alive)
        assert scores.values()["g"].item() == value


def test_dead_units_have_no_derivative_and_keep_their_score() -> None:
    teacher = tiny_teacher("time-moe").double()
    past, target = windows(teacher)
    groups = teacher.structure().groups
    alive = {group.name: torch.arange(group.units) > 0 for group in groups}
    derivatives, _ = mask_derivatives(teacher, past, target, groups, alive=alive)
    assert all(
        bool((tensor[:, 0] == 0).all()) and bool(tensor.isfinite().all()) for tensor in derivatives.values()
    )
    scores = Scores(2, "before_ema", 1.0)
    everyone = {group.name: torch.ones(group.units, dtype=torch.bool) for group in groups}
    whole, _ = mask_derivatives(teacher, past, target, groups)
    scores.update(whole, everyone)
    before = scores.values()
    scores.update(derivatives, alive)
    for group in groups:
        assert scores.values()[group.name][0] == before[group.name][0]


def spearman(one: Tensor, other: Tensor) -> float:
    ranks = torch.stack([one.argsort().argsort(), other.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def test_scores_predict_the_true_ablation(unit: CompileUnit, tmp_path: Path) -> None:
    """On a trained model the score ranks units like ``L(m - e_i) - L(m)`` does; a random one does not."""
    tuned = Finetune(epochs=4, learning_rates=(3e-3,)).run(unit, PassContext(workspace=tmp_path)).unit
    teacher = tuned.teacher
    assert teacher is not None and teacher is not unit.teacher
    data = tuned.data.windows("train", teacher.lookback, teacher.horizon)
    past, target = data.batch(range(0, len(data), 4))
    groups = teacher.structure().groups
    derivatives, base = mask_derivatives(teacher, past, target, groups)
    true = []
    for group in groups:
        for mask in 1 - torch.eye(group.units):
            true.append(losses(teacher, group, mask, 0, past, target).mean() - base.mean())
    ablation = torch.stack(true)
    for order in (1, 2):
        signed = torch.cat([batch_score(derivatives[group.name], order) for group in groups])  # type: ignore[arg-type]
        assert spearman(signed, ablation) > 0.6
        assert spearman(signed.abs(), ablation.abs()) > 0.6
    generator = torch.Generator().manual_seed(0)
    random = [spearman(torch.rand(len(true), generator=generator), ablation) for _ in range(20)]
    assert max(map(abs, random)) < 0.4
