"""Moirai 2 against the authors' code (as sktime carries it) and against stored vectors of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from uni2ts_reference import UpstreamMoirai2

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher, save_teacher
from tsfmc.compiler.frontends.moirai.moirai2 import FRONTEND, PUBLISHED, Moirai2, empirical_quantiles
from tsfmc.compiler.ir.forecaster import parameter_count

TINY: dict[str, Any] = {**PUBLISHED, "d_model": 128, "d_ff": 24, "num_layers": 2, "patch_size": 4}
BLOCK = 16


def tiny(kit: Any, **arguments: Any) -> Moirai2:
    config = {**TINY, **arguments.pop("config", {})}
    teacher = build_teacher(config, **{"lookback": 40, "horizon": BLOCK, "variates": 2, **arguments})
    kit.randomise(teacher, scale=0.1)
    assert isinstance(teacher, Moirai2)
    return teacher


def series(batch: int, teacher: Moirai2) -> Tensor:
    return torch.randn(batch, teacher.variates, teacher.lookback).cumsum(-1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    lookback=st.integers(1, 70),
    horizon=st.integers(1, 3 * BLOCK + 3),
    variates=st.integers(1, 3),
    scale=st.sampled_from([0.01, 1.0, 300.0]),
)
def test_parity_with_the_authors_code(
    kit: Any, seed: int, lookback: int, horizon: int, variates: int, scale: float
) -> None:
    torch.manual_seed(seed)
    variates = variates if horizon <= BLOCK else 1  # upstream's roll-out fails for more than one variate
    teacher = tiny(kit, lookback=lookback, horizon=horizon, variates=variates)
    upstream = UpstreamMoirai2(teacher)
    past = scale * series(2, teacher) + scale
    with torch.no_grad():
        kit.close(teacher.quantiles(past), upstream.quantiles(past))
        states = teacher.states(past)
        hidden = upstream.states(past)[:, : variates * states.shape[2]]
        torch.testing.assert_close(states.flatten(1, 2), hidden, rtol=0, atol=5e-4)


@pytest.mark.parametrize("level", [0.0, 1e5 / 3])
@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e5])
def test_parity_on_hard_windows(kit: Any, level: float, spread: float) -> None:
    """Within the usual tolerance, or what one rounding of the inputs does to upstream itself."""
    teacher = tiny(kit, lookback=500)
    upstream = UpstreamMoirai2(teacher)
    past = level + spread * series(3, teacher)
    with torch.no_grad():
        expected = upstream.quantiles(past)
        rounded = upstream.quantiles(past * (1 + 1.2e-7 * torch.randn_like(past)))
        floor = float((rounded - expected).abs().max())
        kit.close(teacher.quantiles(past), expected, absolute=max(1e-5, floor))


@pytest.mark.parametrize("case", cases("moirai-2"))
def test_stored_vectors(kit: Any, case: Case) -> None:
    task = case.settings
    teacher = load_teacher(
        case.checkpoint, lookback=task["context"], horizon=task["horizon"], variates=task["variates"]
    )
    past = case["past"]
    with torch.no_grad():
        outputs = teacher.outputs(past)
        assert outputs.quantiles is not None
        kit.close(teacher(past), case["point"])
        kit.close(outputs.forecast, case["point"])
        kit.close(outputs.quantiles, case["quantiles"])
        torch.testing.assert_close(outputs.states, case["hidden_context"], rtol=0, atol=5e-4)


def test_published_size() -> None:
    (card,) = FRONTEND.cards
    assert card.config is not None
    with torch.device("meta"):
        teacher = FRONTEND.build(card.config, lookback=512, horizon=96, variates=1)
    assert parameter_count(teacher) == card.parameters == 11_387_208


def test_the_median_path_appends_the_median(kit: Any) -> None:
    teacher = tiny(kit, horizon=2 * BLOCK + 3, rollout="median")
    first = tiny(kit, rollout="median")
    second = tiny(kit, lookback=40 + BLOCK)
    past = series(2, teacher)
    with torch.no_grad():
        start = first(past)
        following = second(torch.cat([past, start], dim=-1))
        kit.close(teacher(past)[..., : 2 * BLOCK], torch.cat([start, following], dim=-1))
        other = tiny(kit, horizon=2 * BLOCK + 3)(past)
        kit.close(other[..., :BLOCK], start)
        assert float((other - teacher(past))[..., BLOCK:].abs().max()) > 1e-3


def test_paths_of_several_variates_go_together(kit: Any) -> None:
    """Upstream's rule where upstream's code fails: path q holds the q-th quantile of every variate."""
    teacher, first = tiny(kit, horizon=2 * BLOCK), tiny(kit)
    second = tiny(kit, lookback=40 + BLOCK)
    past = series(2, teacher)
    with torch.no_grad():
        start = first.quantiles(past)
        paths = [second.quantiles(torch.cat([past, start[..., q]], dim=-1)) for q in range(9)]
        expected = torch.quantile(
            torch.cat(paths, dim=-1), torch.tensor(teacher.quantile_levels), dim=-1
        ).permute(1, 2, 3, 0)
        kit.close(teacher.quantiles(past)[:, :, BLOCK:], expected)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 90), levels=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_empirical_quantiles(count: int, levels: list[float]) -> None:
    values = torch.randn(3, count)
    expected = torch.quantile(values.double(), torch.tensor(levels).double(), dim=-1).T.float()
    torch.testing.assert_close(empirical_quantiles(values, levels), expected, rtol=1e-5, atol=1e-5)


def test_the_future_of_one_variate_is_closed_to_the_others(kit: Any) -> None:
    """Causal over time across variates: a state never depends on a later patch of any variate."""
    teacher = tiny(kit)
    past = series(1, teacher)
    changed = past.clone()
    # mean and variance stay: the last patch of the second variate is only reordered
    changed[:, 1, -4:] = past[:, 1, -4:].flip(-1)
    with torch.no_grad():
        before, after = teacher.states(past), teacher.states(changed)
    torch.testing.assert_close(before[:, :, :-1], after[:, :, :-1], rtol=0, atol=1e-5)
    assert float((before - after)[:, :, -1].abs().min(-1).values.max()) > 0


def test_constants_are_right_after_loading(kit: Any, tmp_path: Path) -> None:
    """A loader may leave buffers that no file holds uninitialised."""
    teacher = tiny(kit, lookback=37, horizon=2 * BLOCK)
    save_teacher(teacher, tmp_path)
    loaded, constants = load_teacher(tmp_path), dict(teacher.named_buffers())
    assert constants and not constants.keys() & teacher.state_dict().keys()
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, constants[name])


@pytest.mark.parametrize("horizon", [BLOCK, 2 * BLOCK])
def test_masked_equals_sliced(kit: Any, horizon: int) -> None:
    teacher = tiny(kit, horizon=horizon)
    past = series(2, teacher)
    groups = teacher.structure().groups
    assert {group.kind for group in groups} == {"head", "value", "ffn", "residual"} and len(groups) == 9
    for group in groups:
        most = list(range(0 if group.removable else group.floor, group.units))
        for dead in ([0, group.units - 1], most):
            for taps in [group.taps] if group.together else [(tap,) for tap in group.taps]:
                masked, sliced = kit.masked_and_sliced(teacher, replace(group, taps=taps), dead, past)
                kit.close(sliced, masked, relative=1e-5)


def test_emptied_branches_export(kit: Any, tmp_path: Path) -> None:
    layers = "encoder.layers"
    kept = {
        "in_proj.units": [],
        f"{layers}.0.self_attn.heads": [],
        f"{layers}.1.self_attn.heads": [1],
        f"{layers}.1.ffn.units": [],
        "out_proj.units": [],
        "encoder.residual": list(range(3, 120)),
    }
    teacher = tiny(kit, config={"tsfmc": {"kept": kept}})
    assert len(teacher.structure().groups) == 4
    kit.assert_exports(teacher, tmp_path / "pruned.onnx")


@pytest.mark.parametrize(
    ("horizon", "rollout", "lookback"), [(10, "quantiles", 37), (20, "quantiles", 40), (20, "median", 37)]
)
def test_export(kit: Any, tmp_path: Path, horizon: int, rollout: str, lookback: int) -> None:
    config = {"num_layers": 1}
    teacher = tiny(kit, config=config, horizon=horizon, rollout=rollout, lookback=lookback)
    kit.assert_exports(teacher, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_dropout_p": 0.1}, "attn_dropout_p=0.1 is not implemented"),
        ({"scaling": False}, "scaling=False is not implemented"),
        ({"quantile_levels": [0.1, 0.9]}, r"quantile_levels is \[0.1, 0.9\], expected levels with 0.5"),
        ({"num_predict_token": 0}, "num_predict_token is 0"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**TINY, **change}, lookback=40, horizon=20, variates=1)


def test_options_that_are_refused() -> None:
    with pytest.raises(TeacherError, match="rollout is 'mean', expected 'quantiles' or 'median'"):
        build_teacher(TINY, lookback=40, horizon=20, variates=1, rollout="mean")
