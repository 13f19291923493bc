"""Timer against the authors' code (as sktime carries it) and against stored vectors of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from sktime.libs.timer.configuration_timer import TimerConfig
from sktime.libs.timer.modeling_timer import TimerForPrediction
from torch import Tensor

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher
from tsfmc.compiler.frontends.timer import FRONTEND, Timer
from tsfmc.compiler.ir.forecaster import parameter_count

TINY: dict[str, Any] = {
    "model_type": "timer",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "input_token_len": 96,
    "output_token_lens": [96],
    "max_position_embeddings": 32,
}


def tiny(**arguments: Any) -> Timer:
    config = {**TINY, **arguments.pop("config", {})}
    teacher = build_teacher(config, **{"lookback": 192, "horizon": 96, "variates": 1, **arguments})
    assert isinstance(teacher, Timer)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + ("norm" in name and "weight" in name))
    return teacher


def upstream_passes(teacher: Timer, past: Tensor, forecast: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream's generate without a cache: the whole series, normalised anew, in every pass.

    Each pass continues ``forecast``, the teacher's own, and not upstream's of the pass before: rounding
    would grow from pass to pass, by a thousand in unlucky draws.  The model is constructed and filled;
    from_pretrained of transformers 5 would leave its rotary tables undefined.

    Returns:
        The forecast of all passes and the states of the first.
    """
    fields = {name: value for name, value in teacher.config.items() if name not in ("model_type", "tsfmc")}
    model = TimerForPrediction(TimerConfig(**fields)).eval()
    model.load_state_dict(teacher.state_dict(), strict=True)
    passes: list[Tensor] = []
    states: list[Tensor] = []
    while (left := teacher.horizon - sum(steps.shape[1] for steps in passes)) > 0:
        output = model(
            torch.cat([past, forecast[:, : teacher.horizon - left]], dim=-1),
            use_cache=False,
            revin=True,
            max_output_length=left,
            output_hidden_states=True,
            return_dict=True,
        )
        passes.append(output.logits)
        states.append(output.hidden_states[-1])
    return torch.cat(passes, dim=-1), states[0]


def assert_close_to(got: Tensor, expected: Tensor) -> None:
    """The tolerance of the stored vectors for forecasts."""
    assert float((got - expected).abs().max()) <= 1e-4 * float(expected.std()) + 1e-5


def assert_within_rounding(got: Tensor, expected: Tensor, past: Tensor) -> None:
    """1e-5 of the largest value that went in or came out; drawn forecasts may be too few for a deviation."""
    largest = max(float(past.abs().max()), float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= 1e-5 * largest


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    tokens=st.integers(1, 8),
    horizon=st.integers(1, 300),
    variates=st.integers(1, 3),
    scale=st.sampled_from([0.01, 1.0, 300.0]),
    lengths=st.sampled_from([[96], [96, 192]]),
)
def test_parity_with_the_authors_code(
    seed: int, tokens: int, horizon: int, variates: int, scale: float, lengths: list[int]
) -> None:
    torch.manual_seed(seed)
    teacher = tiny(
        config={"output_token_lens": lengths}, lookback=96 * tokens, horizon=horizon, variates=variates
    )
    past = scale * torch.randn(2, variates, 96 * tokens).cumsum(-1) + scale
    with torch.no_grad():
        got = teacher(past)
        forecast, states = upstream_passes(teacher, past.flatten(0, 1), got.flatten(0, 1))
        assert_within_rounding(got, forecast.unflatten(0, (2, variates)), past)
        torch.testing.assert_close(
            teacher.states(past), states.unflatten(0, (2, variates)), rtol=0, atol=5e-4
        )


@pytest.mark.parametrize("case", cases("timer"))
def test_stored_vectors(case: Case) -> None:
    task = case.settings
    arguments = {"lookback": task["context"], "horizon": task["horizon"], "variates": 1}
    teacher = load_teacher(case.checkpoint, **arguments)
    raw = load_teacher(case.checkpoint, **arguments, normalize="none")
    past = case["context"][:, None]
    normed = (past - past.mean(-1, keepdim=True)) / past.std(-1, keepdim=True)
    with torch.no_grad():
        assert_close_to(teacher(past)[:, 0], case["forecast"])
        assert_close_to(raw(normed)[:, 0], case["forecast_normed"])
        states = teacher.states(past)[:, 0]
        torch.testing.assert_close(states, case["hidden"], rtol=0, atol=5e-4)


def test_published_size() -> None:
    (card,) = FRONTEND.cards
    assert card.config is not None
    with torch.device("meta"):
        teacher = FRONTEND.build(card.config, lookback=480, horizon=96, variates=1)
    assert parameter_count(teacher) == card.parameters == 84_142_080


def test_a_token_has_one_state() -> None:
    teacher = tiny(lookback=480, variates=2)
    assert teacher.states(torch.randn(3, 2, 480)).shape == (3, 2, 5, 32)


@pytest.mark.parametrize(
    ("lookback", "nearest"), [(512, "use 480 or 576"), (95, "use 96"), (97, "use 96 or 192")]
)
def test_a_context_must_be_whole_tokens(lookback: int, nearest: str) -> None:
    with pytest.raises(TeacherError, match=rf"lookback is {lookback}, .* multiple of 96 .*{nearest}"):
        build_teacher(TINY, lookback=lookback, horizon=96, variates=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout=0.1 is not implemented"),
        ({"rope_theta": 500}, "rope_theta=500 is not implemented"),
        ({"output_token_lens": [50]}, "cannot roll out to horizon 96"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**TINY, **change}, lookback=192, horizon=96, variates=1)
