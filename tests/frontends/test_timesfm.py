"""TimesFM 2.5 against transformers' own prediction class and against stored vectors of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from golden import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction

from tsfmc.compiler.base.errors import MissingError, TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher, save_teacher
from tsfmc.compiler.frontends.timesfm import FRONTEND, TimesFm
from tsfmc.compiler.ir.forecaster import parameter_count

TINY: dict[str, Any] = {
    "model_type": "timesfm2_5",
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "output_quantile_len": 128,
    "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
}


def tiny(**arguments: Any) -> TimesFm:
    config = {**TINY, **arguments.pop("config", {})}
    teacher = build_teacher(config, **{"lookback": 96, "horizon": 128, "variates": 1, **arguments})
    assert isinstance(teacher, TimesFm)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + ("norm" in name))
    return teacher


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
    lookback=st.integers(2, 200),
    horizon=st.integers(1, 128),
    variates=st.integers(1, 3),
    extra=st.integers(0, 2),
    flip=st.booleans(),
    level=st.sampled_from([0.0, 30.0]),
    continuous=st.booleans(),
)
def test_parity_with_transformers(
    seed: int,
    lookback: int,
    horizon: int,
    variates: int,
    extra: int,
    flip: bool,
    level: float,
    continuous: bool,
) -> None:
    torch.manual_seed(seed)
    context = -(-lookback // 32) * 32 + 32 * extra
    head = {"use_continuous_quantile_head": continuous}
    teacher = tiny(
        config=head,
        lookback=lookback,
        horizon=horizon,
        variates=variates,
        context=context,
        flip=flip,
        positive="batch",
    )
    upstream = TimesFm2_5ModelForPrediction(TimesFm2_5Config(**TINY | head)).eval()
    upstream.load_state_dict(teacher.state_dict(), strict=True)
    past = torch.randn(2, variates, lookback).cumsum(-1) + level
    with torch.no_grad():
        expected = upstream(
            past_values=list(past.flatten(0, 1)), forecast_context_len=context, force_flip_invariance=flip
        )
        outputs = teacher.outputs(past)
        shape = (2, variates)
        forecast = expected.mean_predictions[:, :horizon].unflatten(0, shape)
        assert_within_rounding(outputs.forecast, forecast, past)
        assert outputs.quantiles is not None and outputs.states is not None
        quantiles = expected.full_predictions[:, :horizon, 1:].unflatten(0, shape)
        assert_within_rounding(outputs.quantiles, quantiles, past)
        patches = -(-lookback // 32)
        states = expected.last_hidden_state[:, -patches:].unflatten(0, shape)
        torch.testing.assert_close(outputs.states, states, rtol=0, atol=5e-4)
        assert torch.equal(teacher(past), outputs.forecast)
        assert torch.equal(teacher.quantiles(past), outputs.quantiles)
        assert torch.equal(teacher.states(past), outputs.states)


@pytest.mark.parametrize("case", cases("timesfm-2.5"))
@pytest.mark.parametrize("horizon", [96, 128])
def test_stored_vectors(case: Case, horizon: int) -> None:
    task = case.settings
    teacher = load_teacher(
        case.checkpoint,
        lookback=task["context"],
        horizon=horizon,
        variates=1,
        context=task["forecast_context_len"],
        flip=task["force_flip_invariance"],
        positive="batch",
    )
    with torch.no_grad():
        outputs = teacher.outputs(case["context"][:, None])
    assert outputs.quantiles is not None and outputs.states is not None
    assert_close_to(outputs.forecast[:, 0], case["point"][:, :horizon])
    assert_close_to(outputs.quantiles[:, 0], case["full_predictions"][:, :horizon, 1:])
    patches = outputs.states.shape[2]
    states = case["last_hidden_state"][:, -patches:]
    torch.testing.assert_close(outputs.states[:, 0], states, rtol=0, atol=5e-4)


def test_published_size() -> None:
    (card,) = FRONTEND.cards
    assert card.config is not None
    with torch.device("meta"):
        teacher = FRONTEND.build(card.config, lookback=512, horizon=96, variates=1)
    assert parameter_count(teacher) == card.parameters == 231_289_280


def test_options_follow_the_configuration() -> None:
    teacher = tiny()
    assert (teacher.context, teacher.flip, teacher.positive) == (96, True, "window")
    teacher = tiny(config={"force_flip_invariance": False, "infer_is_positive": False}, lookback=100)
    assert (teacher.context, teacher.flip, teacher.positive) == (128, False, "off")
    assert teacher.states(torch.randn(3, 1, 100)).shape == (3, 1, 4, 32)


def test_a_window_is_clamped_for_itself() -> None:
    """A forecast does not depend on the other windows of its batch, unless upstream's rule is asked for."""
    by_window, by_batch, free = tiny(positive="window"), tiny(positive="batch"), tiny(positive="off")
    for other in (by_batch, free):
        other.load_state_dict(by_window.state_dict())
    past = torch.randn(2, 1, 96)
    past[0] = past[0].abs()
    with torch.no_grad():
        unclamped = free(past)
        assert unclamped[0].min() < 0 and unclamped[1].min() < 0
        assert torch.equal(by_batch(past), unclamped)
        assert torch.equal(by_window(past)[0], unclamped[0].clamp(min=0))
        assert torch.equal(by_window(past)[1], unclamped[1])
        torch.testing.assert_close(by_batch(past[:1]), by_window(past[:1]))


def test_save_and_load(tmp_path: Path) -> None:
    teacher, past = tiny(flip=False), torch.randn(2, 1, 96)
    save_teacher(teacher, tmp_path)
    loaded = load_teacher(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(past), teacher(past))
    for _, buffer in loaded.named_buffers():
        assert torch.isfinite(buffer).all()


def test_export(tmp_path: Path) -> None:
    teacher = tiny(config={"num_hidden_layers": 1}, lookback=60, horizon=96, variates=2)
    batch = {"past": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(teacher, (torch.randn(2, 2, 60),), dynamic_shapes=batch)
        torch.onnx.export(program, (), tmp_path / "m.onnx", dynamo=True, opset_version=18, verbose=False)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
        for size in (1, 5):
            past = torch.randn(size, 2, 60).cumsum(-1)
            (got,) = session.run(None, {session.get_inputs()[0].name: past.numpy()})
            torch.testing.assert_close(torch.from_numpy(got), teacher(past), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 129}, "horizon is 129, expected at most 128"),
        ({"context": 100}, "context is 100 for lookback 96, expected a multiple of 32"),
        ({"context": 64}, "context is 64 for lookback 96"),
        ({"flip": 3}, "flip is 3, expected True or False"),
        ({"config": {"hidden_size": "wide"}}, "hidden_size"),
        ({"config": {"activation": "gelu9"}}, "gelu9"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        tiny(**arguments)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.timesfm2_5", None)
    with pytest.raises(MissingError, match=r"pip install 'tsfmc\[timesfm\]'"):
        build_teacher(TINY, lookback=96, horizon=96, variates=1)
