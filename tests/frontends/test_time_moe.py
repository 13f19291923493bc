"""Time-MoE against the authors' code (as sktime carries it) and against stored vectors of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import Case, cases
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sktime.libs.timemoe.timemoe import TimeMoeForPrediction
from sktime.libs.timemoe.timemoe_config import TimeMoeConfig
from torch import Tensor

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher
from tsfmc.compiler.frontends.time_moe import FRONTEND, TimeMoe
from tsfmc.compiler.ir.forecaster import parameter_count

TINY: dict[str, Any] = {
    "model_type": "time_moe",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "horizon_lengths": [1, 8, 32, 64],
    "max_position_embeddings": 256,
}


def tiny(**arguments: Any) -> TimeMoe:
    teacher = build_teacher(TINY, **{"lookback": 32, "horizon": 8, "variates": 1, **arguments})
    assert isinstance(teacher, TimeMoe)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter) + ("norm" in name))
    return teacher


def upstream(teacher: TimeMoe) -> TimeMoeForPrediction:
    """Constructed and filled: from_pretrained of transformers 5 would leave its rotary tables undefined."""
    fields = {name: value for name, value in TINY.items() if name != "model_type"}
    model = TimeMoeForPrediction(TimeMoeConfig(**fields, attn_implementation="eager")).eval()
    model.load_state_dict(teacher.state_dict(), strict=True)
    return model


def upstream_passes(
    model: TimeMoeForPrediction, past: Tensor, forecast: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Upstream's roll-out without a cache, on series as they are.

    Each pass continues ``forecast``, the teacher's own, and not upstream's of the pass before: rounding
    would grow from pass to pass.

    Returns:
        The forecast of all passes, the states of the first, and the smallest gap between the probabilities
        of the second and the third expert.
    """
    routers: list[Tensor] = []
    for layer in model.model.layers:
        layer.ffn_layer.gate.register_forward_hook(
            lambda _, __, logits: routers.append(logits.softmax(-1).topk(3).values)
        )
    passes: list[Tensor] = []
    states: list[Tensor] = []
    horizon = forecast.shape[1]
    while (left := horizon - sum(steps.shape[1] for steps in passes)) > 0:
        output = model(
            torch.cat([past, forecast[:, : horizon - left]], dim=-1).unsqueeze(-1),
            use_cache=False,
            output_hidden_states=True,
            max_horizon_length=left,
        )
        passes.append(output.logits[:, -1])
        states.append(output.hidden_states[-1])
    gap = min(float((top[:, 1] - top[:, 2]).min()) for top in routers)
    return torch.cat(passes, dim=-1), states[0], gap


def assert_close_to(got: Tensor, expected: Tensor) -> None:
    """The tolerance of the stored vectors for forecasts."""
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.std()) + 1e-5


def assert_within_rounding(got: Tensor, expected: Tensor, past: Tensor) -> None:
    """1e-5 of the largest value that went in or came out; drawn forecasts may be too few for a deviation."""
    largest = max(float(past.abs().max()), float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= 1e-5 * largest


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    lookback=st.integers(2, 40),
    horizon=st.sampled_from([1, 7, 33, 96, 105]),
    variates=st.integers(1, 3),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    experts=st.sampled_from(["sparse", "dense"]),
)
def test_parity_with_the_authors_code(
    seed: int, lookback: int, horizon: int, variates: int, scale: float, experts: str
) -> None:
    torch.manual_seed(seed)
    teacher = tiny(lookback=lookback, horizon=horizon, variates=variates, experts=experts, normalize="none")
    past = scale * torch.randn(2, variates, lookback).cumsum(-1)
    with torch.no_grad():
        got = teacher(past)
        forecast, states, gap = upstream_passes(upstream(teacher), past.flatten(0, 1), got.flatten(0, 1))
        assume(gap > 1e-5)  # the choice of experts jumps; nearer than this, rounding may decide it
        assert_within_rounding(got, forecast.unflatten(0, (2, variates)), past)
        torch.testing.assert_close(
            teacher.states(past), states.unflatten(0, (2, variates)), rtol=0, atol=5e-4
        )


def test_the_window_recipe_of_the_authors() -> None:
    """(x - mean) / std with unbiased std, undone on the forecast."""
    teacher, raw = tiny(variates=3), tiny(variates=3, normalize="none")
    raw.load_state_dict(teacher.state_dict())
    past = 5 * torch.randn(2, 3, 32).cumsum(-1) + 7
    mean, std = past.mean(-1, keepdim=True), past.std(-1, keepdim=True)
    with torch.no_grad():
        expected = raw((past - mean) / std) * std + mean
        torch.testing.assert_close(teacher(past), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("experts", ["sparse", "dense"])
@pytest.mark.parametrize("case", cases("timemoe"))
def test_stored_vectors(case: Case, experts: str) -> None:
    task = case.settings
    arguments = {"lookback": task["context"], "horizon": task["horizon"], "variates": 1, "experts": experts}
    raw = load_teacher(case.checkpoint, **arguments, normalize="none")
    teacher = load_teacher(case.checkpoint, **arguments)
    past, normed = case["context"][:, None], case["normed"][:, None]
    with torch.no_grad():
        assert_close_to(teacher(past)[:, 0], case["forecast"])
        assert_close_to(raw(normed)[:, 0], case["forecast_normed"])
        states = teacher.states(past)[:, 0]
        torch.testing.assert_close(states, case["hidden"], rtol=0, atol=5e-4)
        head = raw.get_submodule("lm_heads.3")(raw.states(normed)[:, 0, -8:])
        assert_close_to(head, case["first_head_last8"])


def test_published_sizes() -> None:
    for card, millions in zip(FRONTEND.cards, (113.4, 453.2), strict=True):
        assert card.config is not None
        with torch.device("meta"):
            teacher = FRONTEND.build(card.config, lookback=512, horizon=96, variates=1)
        assert parameter_count(teacher) == card.parameters
        assert round(card.parameters / 1e6, 1) == millions


def test_sparse_equals_dense_with_gradients() -> None:
    sparse, dense = tiny(variates=3, experts="sparse"), tiny(variates=3, experts="dense")
    dense.load_state_dict(sparse.state_dict())
    past = torch.randn(2, 3, 32)
    for teacher in (sparse, dense):
        teacher(past).square().sum().backward()
    torch.testing.assert_close(sparse(past), dense(past), rtol=1e-5, atol=1e-5)
    for name, parameter in sparse.named_parameters():
        other = dense.get_parameter(name)
        if parameter.grad is None or other.grad is None:  # heads that this horizon does not use
            assert parameter.grad is other.grad is None and name.startswith("lm_heads")
        else:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_only_routed_experts_are_evaluated_outside_export() -> None:
    teacher = tiny()
    tokens: list[int] = []
    for expert in teacher.get_submodule("model.layers.0.ffn_layer.experts").children():
        expert.register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0].shape[0]))
    with torch.no_grad():
        teacher(torch.randn(3, 1, 32))
    assert len(tokens) == 8 and sum(tokens) == 2 * 3 * 32


def test_the_roll_out_only_computes_new_tokens() -> None:
    teacher = tiny(horizon=105)
    lengths: list[int] = []
    teacher.get_submodule("model.embed_layer").register_forward_hook(
        lambda _, inputs, __: lengths.append(inputs[0].shape[1])
    )
    with torch.no_grad():
        teacher(torch.randn(1, 1, 32))
    assert lengths == [32, 64, 32, 8]


def test_a_bfloat16_file_is_cast(tmp_path: Path) -> None:
    teacher = tiny()
    state = {name: tensor.bfloat16() for name, tensor in teacher.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    loaded = load_teacher(tmp_path, lookback=32, horizon=8, variates=1)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, state[name].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dense": True}, "use_dense=True is not implemented"),
        ({"input_size": 2}, "input_size=2 is not implemented"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2 is not implemented"),
        ({"num_experts": 0}, "num_experts is 0"),
        ({"horizon_lengths": [64, 8]}, "horizon_lengths is"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**TINY, **change}, lookback=32, horizon=8, variates=1)


def test_lookbacks_that_are_refused() -> None:
    with pytest.raises(TeacherError, match="expected at most 256"):
        build_teacher(TINY, lookback=161, horizon=96, variates=1)
    with pytest.raises(TeacherError, match="expected at least 2 steps"):
        build_teacher(TINY, lookback=1, horizon=8, variates=1)
    build_teacher(TINY, lookback=1, horizon=8, variates=1, normalize="none")
