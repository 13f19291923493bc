"""Moirai 1 against the authors' code (as sktime carries it) and against stored vectors of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from golden import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from uni2ts_reference import UpstreamMoirai

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, find_card, load_teacher, save_teacher
from tsfmc.compiler.frontends.moirai.encoder import location_and_scale
from tsfmc.compiler.frontends.moirai.mixture import Mixture, _beta_ratio, _student_cdf
from tsfmc.compiler.frontends.moirai.moirai1 import FRONTEND, Moirai
from tsfmc.compiler.frontends.moirai.patch import keep_one_patch_size
from tsfmc.compiler.frontends.moirai.select import select_patch_size, validation_loss
from tsfmc.compiler.ir.forecaster import parameter_count

assert FRONTEND.cards[0].config is not None
TINY: dict[str, Any] = {
    **FRONTEND.cards[0].config,
    "d_model": 128,
    "num_layers": 2,
    "patch_sizes": [4, 8, 16],
}
HARD = ("constant", "zero", "huge", "minute", "high level", "one spike")


def tiny(kit: Any, **arguments: Any) -> Moirai:
    config = {**TINY, **arguments.pop("config", {})}
    teacher = build_teacher(config, **{"lookback": 40, "horizon": 20, "variates": 2, **arguments})
    kit.randomise(teacher, scale=0.1)
    assert isinstance(teacher, Moirai)
    return teacher


def series(batch: int, teacher: Moirai, kind: str = "walk") -> Tensor:
    walk = torch.randn(batch, teacher.variates, teacher.lookback).cumsum(-1)
    spike = walk.clone()
    spike[..., 0] = 1e6
    kinds = {
        "constant": torch.full_like(walk, 1e5 / 3),
        "zero": torch.zeros_like(walk),
        "huge": 1e5 * walk,
        "minute": 1e-5 * walk,
        "high level": 1e4 + walk,
        "one spike": spike,
    }
    return kinds.get(kind, walk)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    lookback=st.integers(1, 70),
    horizon=st.integers(1, 40),
    variates=st.integers(1, 3),
    patch=st.sampled_from([4, 8, 16]),
    scale=st.sampled_from([0.01, 1.0, 300.0]),
)
def test_parity_with_the_authors_code(
    kit: Any, seed: int, lookback: int, horizon: int, variates: int, patch: int, scale: float
) -> None:
    torch.manual_seed(seed)
    teacher = tiny(kit, lookback=lookback, horizon=horizon, variates=variates, patch_size=patch)
    upstream = UpstreamMoirai(teacher, patch)
    past = scale * series(2, teacher) + scale
    with torch.no_grad():
        kit.close(teacher(past), upstream.mean(past))
        hidden = upstream.states(past)[:, : variates * teacher.past_tokens]
        torch.testing.assert_close(teacher.states(past).flatten(1, 2), hidden, rtol=0, atol=5e-4)


@pytest.mark.parametrize("kind", HARD)
def test_parity_on_hard_windows(kit: Any, kind: str) -> None:
    """Within the usual tolerance, or what one rounding of the inputs does to upstream itself."""
    teacher = tiny(kit, lookback=500, patch_size=16)
    upstream = UpstreamMoirai(teacher, 16)
    past = series(4, teacher, kind)
    with torch.no_grad():
        expected = upstream.mean(past)
        rounded = upstream.mean(past * (1 + 1.2e-7 * torch.randn_like(past)))
        floor = float((rounded - expected).abs().max())
        kit.close(teacher(past), expected, absolute=max(1e-5, floor))


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("lookback", [1, 2, 500, 4000])
def test_scaling_agrees_with_float64(kit: Any, kind: str, lookback: int) -> None:
    past = series(4, tiny(kit, lookback=lookback), kind)
    loc, scale = location_and_scale(past)
    exact = past.double()
    mean = exact.mean(-1, keepdim=True)
    variance = (exact - mean).square().sum(-1, keepdim=True) / max(lookback - 1, 1)
    torch.testing.assert_close(loc, mean.float(), rtol=1.3e-7, atol=2e-7 * float(scale.max()))
    torch.testing.assert_close(scale, (variance + 1e-5).sqrt().float(), rtol=5e-7, atol=0)


@pytest.mark.parametrize("case", [*cases("moirai-1"), *cases("moirai-1-heads")])
def test_stored_vectors(kit: Any, case: Case) -> None:
    task = case.settings
    teacher = load_teacher(
        case.checkpoint,
        lookback=task["context"],
        horizon=task["horizon"],
        variates=task["variates"],
        patch_size=task["patch"],
    )
    assert isinstance(teacher, Moirai)
    past = case["past"]
    with torch.no_grad():
        outputs = teacher.outputs(past)
        mixture, loc, scale = teacher.mixture(past)
        kit.close(teacher(past), case["mean"])
        every, *_ = teacher._encode(past, every=True)
    future = torch.unflatten(every[:, -task["variates"] * teacher.future_tokens :], 1, (task["variates"], -1))
    got = {
        "mean": outputs.forecast,
        "affine": torch.cat([loc, scale], dim=-1),
        "mixture_weights": mixture.logits.softmax(-1),
        "student_t": torch.stack([mixture.df, mixture.t_loc, mixture.t_scale], -1),
        "normal": torch.stack([mixture.normal_loc, mixture.normal_scale], -1),
        "negative_binomial": torch.stack([mixture.count, mixture.count_logits], -1),
        "log_normal": torch.stack([mixture.log_loc, mixture.log_scale], -1),
    }
    for name, value in got.items():
        if name in case:
            kit.close(value, case[name])
    for name, value in {"hidden_context": outputs.states, "hidden_future": future}.items():
        torch.testing.assert_close(value, case[name], rtol=0, atol=5e-4)


def test_published_sizes() -> None:
    expected = {"small": 13_827_528, "base": 91_357_728, "large": 310_970_624}
    assert {card.name for card in FRONTEND.cards} == {
        f"moirai{version}-{size}" for version in ("", "-1.0", "-1.1") for size in expected
    }
    for card in FRONTEND.cards:
        assert card.config is not None
        with torch.device("meta"):
            teacher = FRONTEND.build(card.config, lookback=512, horizon=96, variates=1)
        assert parameter_count(teacher) == card.parameters == expected[card.name.rpartition("-")[2]]
        assert teacher.patch_size == 32


def test_names() -> None:
    assert find_card("moirai-small").repo_id == "Salesforce/moirai-1.1-R-small"
    assert find_card("Salesforce/moirai-1.0-R-base").name == "moirai-1.0-base"
    assert not any(card.commercial for card in FRONTEND.cards)


def test_masked_logits_are_their_bias(kit: Any) -> None:
    """The quirk: with a patch of a quarter of the largest, three of the four logits see no state."""
    teacher = tiny(kit, patch_size=4)
    with torch.no_grad():
        logits = [teacher.mixture(series(1, teacher))[0].logits for _ in range(2)]
        bias = teacher.get_parameter("param_proj.proj.weights_logits.bias")[0].reshape(4, 16)[:, :4]
    assert not torch.equal(logits[0][..., 0], logits[1][..., 0])
    for component in (1, 2, 3):
        for one in logits:
            torch.testing.assert_close(one[..., component], bias[component].repeat(5).expand(1, 2, -1))


def test_other_patch_sizes_have_no_effect(kit: Any) -> None:
    teacher = tiny(kit, patch_size=8)
    past = series(2, teacher)
    with torch.no_grad():
        before = teacher(past)
        for name, parameter in teacher.named_parameters():
            if name.startswith(("in_proj.", "param_proj.")):
                parameter[[0, 2]] = torch.nan
        assert torch.equal(teacher(past), before)


@pytest.mark.parametrize("patch", [8, 16, 32, 64, 128])
def test_one_patch_size_is_exact(kit: Any, patch: int) -> None:
    config = {"d_model": 64, "num_layers": 1, "patch_sizes": [8, 16, 32, 64, 128]}
    teacher = tiny(kit, config=config, lookback=100, patch_size=patch)
    smaller_config, state = keep_one_patch_size(teacher.config, teacher.state_dict(), patch)
    smaller = build_teacher(json.loads(json.dumps(smaller_config)))
    assert isinstance(smaller, Moirai) and smaller.patch_size == patch
    smaller.load_state_dict(state, strict=True)
    past = series(2, teacher)
    with torch.no_grad():
        # the same numbers go in; a product with a narrower stored matrix may round otherwise
        kit.close(smaller(past), teacher(past), relative=1e-6, absolute=1e-6)
        kit.close(smaller(past), UpstreamMoirai(smaller, patch).mean(past))
    assert keep_one_patch_size(smaller.config, state, patch)[1].keys() == state.keys()
    with pytest.raises(TeacherError, match="patch_size is 4, expected"):
        build_teacher(smaller_config, patch_size=4)


def test_one_patch_size_of_small() -> None:
    with torch.device("meta"):
        teacher = FRONTEND.build(find_card("moirai-small").config or {}, lookback=512, horizon=96, variates=1)
        config, state = keep_one_patch_size(teacher.config, teacher.state_dict(), 32)
        smaller = FRONTEND.build(config, lookback=512, horizon=96, variates=1)
    smaller.load_state_dict(state, strict=True, assign=True)
    assert parameter_count(smaller) == 10_783_560


def test_without_dead_weights(kit: Any) -> None:
    teacher = tiny(kit, patch_size=8, quantiles="deciles")
    smaller = teacher.without_dead_weights()
    past = series(2, teacher)
    with torch.no_grad():
        kit.close(smaller(past), teacher(past), relative=1e-6, absolute=1e-6)
    assert parameter_count(smaller) < parameter_count(teacher)
    assert smaller.quantile_levels == teacher.quantile_levels
    assert smaller.without_dead_weights() is smaller


@pytest.mark.parametrize(
    ("sizes", "lookback", "default"),
    [([8, 16], 512, 16), ([8, 64], 20, 8), ([64, 128], 512, 64), ([16, 32], 20, 16)],
)
def test_default_patch_size(sizes: list[int], lookback: int, default: int) -> None:
    with torch.device("meta"):
        teacher = FRONTEND.build({**TINY, "patch_sizes": sizes}, lookback=lookback, horizon=8, variates=1)
    assert teacher.patch_size == default


def test_selected_patch_size_has_the_lowest_loss(kit: Any) -> None:
    teacher = tiny(kit)
    windows = torch.randn(6, 2, 60).cumsum(-1)
    losses = {}
    with torch.no_grad():
        for patch in TINY["patch_sizes"]:
            one = tiny(kit, patch_size=patch)
            got, expected = validation_loss(one, windows), UpstreamMoirai(one, patch).loss(windows)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
            losses[patch] = float(expected.mean())
    assert select_patch_size(teacher, windows) == min(losses, key=lambda patch: losses[patch])
    windows[0, 0, 3] = torch.nan  # a broken window does not decide
    assert select_patch_size(teacher, windows) in losses
    with pytest.raises(TeacherError, match=r"shape \[6, 2, 59\], expected \[B, 2, 60\]"):
        select_patch_size(teacher, windows[..., 1:])
    with pytest.raises(TeacherError, match="no window"):
        select_patch_size(teacher, windows[:1])


def test_distribution_functions_agree_with_scipy() -> None:
    df = torch.tensor([2.0, 2.3, 5.0, 40.0, 1e4]).double()[:, None]
    t = torch.linspace(-40, 40, 401).double()[None]
    expected = torch.tensor(scipy.stats.t.cdf(t.numpy(), df.numpy()))
    torch.testing.assert_close(_student_cdf(t, df), expected, rtol=0, atol=1e-7)
    count = torch.tensor([1e-6, 0.2, 1.0, 7.0, 300.0]).double()[:, None, None]
    logits = torch.tensor([-20.0, -1.0, 0.0, 3.0, 12.0]).double()[None, :, None]
    k = torch.tensor([0.0, 1.0, 5.0, 40.0, 1e3, 1e5]).double()[None, None, :]
    got = _beta_ratio(count, k + 1, torch.sigmoid(-logits))
    expected = scipy.stats.nbinom.cdf(k.numpy(), count.numpy(), torch.sigmoid(-logits).numpy())
    torch.testing.assert_close(got, torch.tensor(expected), rtol=0, atol=1e-8)


def test_median_is_that_of_upstreams_samples(kit: Any) -> None:
    teacher = tiny(kit, point="median", quantiles="deciles", patch_size=8)
    past = series(2, teacher)
    with torch.no_grad():
        outputs = teacher.outputs(past)
        samples = UpstreamMoirai(teacher, 8).samples(past, 4000)
    assert outputs.quantiles is not None
    torch.testing.assert_close(outputs.forecast, outputs.quantiles[..., 4], rtol=1e-6, atol=1e-6)
    assert torch.equal(teacher.outputs(past, states=False).forecast, teacher(past))
    assert bool((outputs.quantiles.diff(dim=-1) >= 0).all())
    for i, level in enumerate(teacher.quantile_levels):
        value = outputs.quantiles[..., None, :, i]
        margin = 1e-4 * samples.std()  # of the floats on both sides of the same jump
        at_most, below = (
            (samples <= value + margin).float().mean(2),
            (samples < value - margin).float().mean(2),
        )
        assert float(at_most.min()) > level - 0.04 and float(below.max()) < level + 0.04


def test_quantiles_do_not_depend_on_the_batch(kit: Any) -> None:
    teacher = tiny(kit, quantiles="deciles")
    with torch.no_grad():
        mixture = teacher.mixture(series(5, teacher))[0]
        last = Mixture(*(value[4:] for value in vars(mixture).values()))
        levels = teacher.quantile_levels
        assert torch.equal(mixture.quantile(levels)[4:], last.quantile(levels))


def test_quantiles_of_extreme_parameters() -> None:
    """A log-normal whose mean is infinite in float32, a negative binomial of 1e8, a t with df = 2."""
    one = torch.ones(3)
    mixture = Mixture(
        logits=torch.tensor([[-30.0, -30, -30, 30], [-30, -30, 30, -30], [30, -30, -30, -30]]),
        df=2 * one,
        t_loc=-5 * one,
        t_scale=3 * one,
        normal_loc=0 * one,
        normal_scale=1e-3 * one,
        count=1e-3 * one,
        count_logits=18 * one,
        log_loc=2 * one,
        log_scale=40 * one,
    )
    assert torch.isinf(mixture.mean()[0])
    levels = (0.1, 0.5, 0.9)
    got = mixture.quantile(levels)
    normal = torch.special.ndtri(torch.tensor(levels))
    torch.testing.assert_close(got[0], (2 + 40 * normal).exp(), rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(got[1], torch.zeros(3), rtol=0, atol=1e-6)
    student = torch.tensor(scipy.stats.t.ppf(levels, 2)).float()
    torch.testing.assert_close(got[2], -5 + 3 * student, rtol=1e-5, atol=1e-5)


def test_no_quantiles_unless_asked(kit: Any) -> None:
    teacher = tiny(kit)
    with torch.no_grad():
        assert teacher.outputs(series(1, teacher)).quantiles is None
        assert teacher.outputs(series(1, teacher), states=False).states is None


def test_constants_are_right_after_loading(kit: Any, tmp_path: Path) -> None:
    """A loader may leave buffers that no file holds uninitialised."""
    teacher = tiny(kit, patch_size=8, variates=3)
    save_teacher(teacher, tmp_path)
    loaded, constants = load_teacher(tmp_path), dict(teacher.named_buffers())
    assert constants and not constants.keys() & teacher.state_dict().keys()
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, constants[name])
    past = series(2, teacher)
    with torch.no_grad():
        assert torch.equal(loaded(past), teacher(past))


@pytest.mark.parametrize("variates", [1, 3])
def test_masked_equals_sliced(kit: Any, variates: int) -> None:
    teacher = tiny(kit, variates=variates)
    past = series(2, teacher)
    groups = teacher.structure().groups
    assert {group.kind for group in groups} == {"head", "value", "ffn", "residual"} and len(groups) == 7
    for group in groups:
        most = list(range(0 if group.removable else group.floor, group.units))
        for dead in ([0], [group.units - 1], most):
            for taps in [group.taps] if group.together else [(tap,) for tap in group.taps]:
                masked, sliced = kit.masked_and_sliced(teacher, replace(group, taps=taps), dead, past)
                kit.close(sliced, masked, relative=1e-5)


def test_emptied_branches_export(kit: Any, tmp_path: Path) -> None:
    """No attention in the first layer, no FFN in the last, one head of three values, a thinner stream."""
    layers = "encoder.layers"
    kept = {
        f"{layers}.0.self_attn.heads": [],
        f"{layers}.1.self_attn.heads": [1],
        f"{layers}.1.self_attn.values": [2, 40, 63],
        f"{layers}.1.ffn.units": [],
        "encoder.residual": list(range(3, 120)),
    }
    teacher = tiny(kit, config={"tsfmc": {"kept": kept}}, patch_size=8)
    assert [group.name for group in teacher.structure().groups] == [
        f"{layers}.0.ffn.units",
        f"{layers}.1.self_attn.heads",
        f"{layers}.1.self_attn.values",
        "encoder.residual",
    ]
    kit.assert_exports(teacher, tmp_path / "pruned.onnx")


def test_export(kit: Any, tmp_path: Path) -> None:
    kit.assert_exports(tiny(kit, patch_size=8, variates=3), tmp_path / "model.onnx")


def test_export_takes_hard_windows(kit: Any, tmp_path: Path) -> None:
    """No float64 in the graph, and yet constants and large values come out as in eager."""
    teacher = tiny(kit, config={"num_layers": 1}, lookback=70, patch_size=16, variates=1)
    run = kit.onnx_forecast(teacher, tmp_path / "model.onnx", series(2, teacher))
    for kind in ("walk", *HARD):
        past = series(3, teacher, kind)
        with torch.no_grad():
            kit.close(run(past), teacher(past), absolute=1e-5 + 1e-6 * float(past.abs().max()))


def test_gradients_reach_what_the_mean_uses(kit: Any) -> None:
    teacher = tiny(kit, patch_size=16)
    teacher(series(2, teacher)).square().sum().backward()
    silent = {name for name, parameter in teacher.named_parameters() if parameter.grad is None}
    assert silent == {
        f"param_proj.proj.components.0.{name}.{part}"
        for name in ("df", "scale")
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_dropout_p": 0.1}, "attn_dropout_p=0.1 is not implemented"),
        ({"scaling": False}, "scaling=False is not implemented"),
        ({"d_model": 32}, "d_model is 32, expected an integer of at least 64"),
        ({"d_model": 100}, None),
        ({"d_model": 130}, "d_model is 130, expected a width that splits"),
        ({"patch_sizes": [8, 8]}, "patch_sizes is"),
        ({"patch_sizes": []}, "patch_sizes is"),
        ({"distr_output": {"_target_": "x.NormalOutput"}}, "distr_output 'x.NormalOutput'"),
        ({"distr_output": None}, "distr_output is None, expected an object"),
    ],
)
def test_configurations(change: dict[str, Any], message: str | None) -> None:
    task = {"lookback": 40, "horizon": 20, "variates": 1}
    if message is None:
        build_teacher({**TINY, **change}, **task)
    else:
        with pytest.raises(TeacherError, match=message):
            build_teacher({**TINY, **change}, **task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 32}, "patch_size is 32, expected 16 or 4 or 8"),
        ({"point": "mode"}, "point is 'mode', expected 'mean' or 'median'"),
        ({"samples": 100}, "has no option 'samples'"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher(TINY, lookback=40, horizon=20, variates=1, **options)
