"""Quantiles: losses against direct formulas, offsets against known distributions, choices that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from series import make_data, waves

from tsfmc.compiler.data.levels import levels_problem
from tsfmc.compiler.ir.quantiles import QuantileHead, Spread, ascending
from tsfmc.compiler.learning.quantile_fit import fit_offsets, neighbours_averaged
from tsfmc.compiler.learning.quantile_origin import choose_head
from tsfmc.compiler.learning.quantiles import evaluate_quantiles
from tsfmc.compiler.learning.residuals import Stretch, interpolated

LEVELS = (0.1, 0.5, 0.9)
CONSTANT, DEVIATION = Spread("constant"), Spread("deviation")


def stretch(name: str, scale: torch.Tensor, *, noise: float = 1.0, taught: float | None = None) -> Stretch:
    """Normal residuals ``[N, D, 6]`` of deviation ``noise * scale [N, D]``."""
    generator = torch.Generator().manual_seed(len(name) + ord(name[-1]))
    residuals = noise * scale[..., None] * torch.randn(*scale.shape, 6, generator=generator)
    spreads = {CONSTANT: torch.ones_like(scale), DEVIATION: scale}
    offsets, at = None, None
    if taught is not None:
        at = torch.arange(64)
        normal = torch.tensor([-1.2816, 0.0, 1.2816])
        offsets = taught * scale[at, :, None, None] * normal.expand(64, scale.shape[1], 6, 3)
    return Stretch(name, residuals, spreads, offsets, at)


def varied(seed: int, count: int = 800) -> torch.Tensor:
    """Spreads ``[N, 2]`` from 0.1 to 10."""
    return 10 ** (2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) - 1)


def test_losses_are_the_formulas() -> None:
    data = make_data(waves(300, variates=2))
    windows = data.windows("test", 24, 6)
    _, future = windows.batch(range(len(windows)))
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(len(windows), 2, 6, 3, generator=generator).sort(-1).values
    found = evaluate_quantiles(lambda indices, _: given[list(indices)], windows, LEVELS)
    truth, forecast = future.numpy().astype(float), given.numpy().astype(float)
    total = 0.0
    for place, level in enumerate(LEVELS):
        error = truth - forecast[..., place]
        total += 2 * np.where(error >= 0, level * error, (level - 1) * error).sum() / np.abs(truth).sum() / 3
    assert found.wql == pytest.approx(total, rel=1e-9)
    inside = (truth >= forecast[..., 0]) & (truth <= forecast[..., 2])
    assert found.coverage == pytest.approx(inside.mean())
    np.testing.assert_allclose(found.step_coverage, inside.mean((0, 1)))
    np.testing.assert_allclose(found.window_coverage, inside.mean((1, 2)))
    assert found.width == pytest.approx((forecast[..., 2] - forecast[..., 0]).mean())
    assert found.below == pytest.approx([(truth <= forecast[..., q]).mean() for q in range(3)])
    assert found.nominal == pytest.approx(0.8)


def test_offsets_are_the_quantiles_of_the_residuals_in_units_of_the_spread() -> None:
    seen = [stretch("a", varied(0, 20_000), noise=2.0)]
    offsets = fit_offsets(DEVIATION, seen, LEVELS)
    assert offsets.shape == (2, 6, 3)
    torch.testing.assert_close(
        offsets, 2 * torch.tensor([-1.2816, 0, 1.2816]).double().expand(2, 6, 3), atol=0.12, rtol=0
    )


def test_a_window_without_spread_does_not_decide() -> None:
    scale = varied(1)
    scale[0] = 0
    assert bool(torch.isfinite(fit_offsets(DEVIATION, [stretch("a", scale)], LEVELS)).all())


@pytest.mark.parametrize(("moves", "expected"), [(True, DEVIATION), (False, CONSTANT)])
def test_the_spread_is_chosen_by_what_the_residuals_follow(moves: bool, expected: Spread) -> None:
    found = []
    for seed, name in enumerate("abcde"):
        scale = varied(seed)
        each = stretch(name, scale if moves else torch.ones_like(scale))
        found.append(Stretch(name, each.residuals, {CONSTANT: torch.ones_like(scale), DEVIATION: scale}))
    chosen = choose_head(found, LEVELS)
    assert chosen.candidate.spread == expected
    assert chosen.plain.spread == CONSTANT
    assert [row["spread"] for row in chosen.table if row["chosen"]] == [str(expected)]


def test_a_teacher_has_to_earn_its_weight() -> None:
    """Quantiles far too wide get none; exact ones win where a handful of windows says little."""
    wide = [stretch(name, varied(seed), taught=9.0) for seed, name in enumerate("abcde")]
    assert choose_head(wide, LEVELS).candidate.teacher == 0
    exact = [stretch(name, varied(seed, 64), taught=1.0) for seed, name in enumerate("abcdef")]
    few = [replace(each, **first_windows(each, 8)) for each in exact[:4]]
    assert choose_head([*few, *exact[4:]], LEVELS).candidate.teacher > 0


def first_windows(found: Stretch, count: int) -> dict[str, Any]:
    """What a stretch holds of its first windows."""
    assert found.taught is not None and found.taught_at is not None
    return {
        "residuals": found.residuals[:count],
        "spreads": {kind: values[:count] for kind, values in found.spreads.items()},
        "taught": found.taught[:count],
        "taught_at": found.taught_at[:count],
    }


def test_one_stretch_is_not_judged() -> None:
    chosen = choose_head([stretch("a", varied(0))], LEVELS)
    assert chosen.candidate.spread == DEVIATION and chosen.table == []


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6),
    st.floats(-1e7, 1e7),
    st.floats(0, 1e6),
)
def test_quantiles_never_cross(numbers: list[float], level: float, scale: float) -> None:
    """Whatever the offsets, the level and the spread, in float32."""
    head = QuantileHead.of(torch.tensor(numbers).reshape(1, 2, 3), LEVELS, DEVIATION)
    past = (level + scale * torch.sin(torch.arange(8.0)))[None, None]
    assert bool((head(past, past[..., -2:]).diff(dim=-1) >= 0).all())


def test_ascending_offsets_stay_what_they_are() -> None:
    offsets = torch.tensor([[-1.0, 0.0, 1.5]])
    assert torch.equal(ascending(offsets), offsets)
    crossed = ascending(torch.tensor([[1.0, 0.0, 0.5]]))
    assert bool((crossed.diff(dim=-1) > 0).all())


def test_the_first_step_keeps_its_quantiles_and_late_ones_lend_theirs() -> None:
    offsets = torch.zeros(1, 40, 1).double()
    offsets[0, 0], offsets[0, 30] = 5.0, 1.0
    found = neighbours_averaged(offsets)
    assert float(found[0, 0]) == 5.0
    assert 0 < float(found[0, 28]) < 1


def test_a_teacher_s_levels_are_interpolated_and_sorted() -> None:
    given = np.array([[3.0, 1.0, 2.0]])
    found = interpolated(given, (0.1, 0.5, 0.9), (0.05, 0.3, 0.5, 0.9))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.5, 2.0, 3.0]]))


@pytest.mark.parametrize(
    ("levels", "word"),
    [
        ((0.5,), "2 to 99"),
        ((0.1, 0.9), "0.5 among them"),
        ((0.9, 0.5), "ascending"),
        ((0.0, 0.5), "between 0 and 1"),
        ((0.5, float("nan")), "between 0 and 1"),
    ],
)
def test_levels_are_checked(levels: tuple[float, ...], word: str) -> None:
    assert word in (levels_problem(levels) or "")
    assert levels_problem(LEVELS) is None and levels_problem(()) is None
