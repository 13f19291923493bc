"""TTM against its golden vectors, against sktime's vendored copy, and through pruning and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import SHARED, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from sktime.libs.granite_ttm import TinyTimeMixerConfig, TinyTimeMixerForPrediction

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, find_card, load_teacher
from tsfmc.compiler.frontends.ttm.cards import CARDS, context_and_horizon
from tsfmc.compiler.ir.forecaster import parameter_count

TINY: Mapping[str, Any] = {
    "model_type": "tinytimemixer",
    "architectures": ["TinyTimeMixerForPrediction"],
    "context_length": 48,
    "prediction_length": 12,
    "patch_length": 8,
    "patch_stride": 8,
    "d_model": 24,
    "num_layers": 2,
    "adaptive_patching_levels": 2,
    "expansion_factor": 2,
    "decoder_d_model": 12,
    "decoder_num_layers": 1,
    "scaling": "std",
    "loss": "mse",
}
TASK = {"lookback": 48, "horizon": 12, "variates": 3}


@pytest.mark.parametrize("case", cases("ttm"))
def test_golden(kit: Any, case: Case) -> None:
    past = case["past"].transpose(1, 2).contiguous()
    real = case.name == "real_etth1"
    directory = SHARED.parent / "weights/ttm-r2-512-96" if real else case.checkpoint
    task = case.settings
    teacher = load_teacher(
        directory, lookback=task["context"], horizon=task["horizon"], variates=past.shape[1]
    )
    with torch.no_grad():
        outputs = teacher.outputs(past)
        kit.close(teacher(past), outputs.forecast, 0, 0)
        kit.close(teacher.states(past), outputs.states, 0, 0)
    kit.close(outputs.forecast.transpose(1, 2), case["forecast"])
    kit.close(outputs.states, case["backbone_hidden_state"], 5e-4, 0)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_equals_the_vendored_model(kit: Any, data: st.DataObject) -> None:
    patch = data.draw(st.sampled_from([4, 6]))
    context = patch * data.draw(st.integers(2, 5)) + data.draw(st.integers(0, patch - 1))
    config = {
        **TINY,
        "context_length": context,
        "patch_length": patch,
        "patch_stride": patch,
        "prediction_length": data.draw(st.integers(1, 9)),
        "d_model": data.draw(st.sampled_from([8, 16, 24])),
        "num_layers": data.draw(st.integers(1, 2)),
        "adaptive_patching_levels": data.draw(st.integers(0, 3)),
        "expansion_factor": data.draw(st.integers(1, 3)),
        "gated_attn": data.draw(st.booleans()),
        "use_decoder": data.draw(st.booleans()),
        "decoder_d_model": data.draw(st.sampled_from([8, 12])),
        "decoder_adaptive_patching_levels": data.draw(st.integers(0, 1)),
        "scaling": data.draw(st.sampled_from(["std", True])),
    }
    upstream = TinyTimeMixerForPrediction(TinyTimeMixerConfig(**config)).eval()
    kit.randomise(upstream)
    variates = data.draw(st.integers(1, 3))
    horizon = data.draw(st.integers(1, config["prediction_length"]))
    teacher = build_teacher(upstream.config.to_dict(), lookback=context, horizon=horizon, variates=variates)
    teacher.load_state_dict(upstream.state_dict(), strict=True)
    past = torch.randn(2, variates, context).cumsum(-1) * data.draw(st.sampled_from([1e-2, 1.0, 1e3]))
    with torch.no_grad():
        expected = upstream(past_values=past.transpose(1, 2))
        kit.close(teacher(past), expected.prediction_outputs.transpose(1, 2)[..., :horizon])
        kit.close(teacher.states(past), expected.backbone_hidden_state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution_prefix_tuning", True),
        ("register_tokens", 2),
        ("fft_length", 4),
        ("multi_quantile_head", True),
        ("mode", "mix_channel"),
        ("decoder_mode", "mix_channel"),
        ("enable_forecast_channel_mixing", True),
        ("norm_mlp", "BatchNorm"),
        ("self_attn", True),
        ("use_positional_encoding", True),
        ("scaling", "mean"),
        ("loss", "nll"),
        ("decompose", True),
        ("multi_scale", True),
        ("gate_mode", "glu"),
        ("patch_stride", 4),
        ("prediction_channel_indices", [0]),
        ("categorical_vocab_size_list", [3]),
    ],
)
def test_an_option_that_is_not_implemented_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TeacherError, match=f"{field}={value!r}".replace("[", r"\[").replace("]", r"\]")):
        build_teacher({**TINY, field: value}, **TASK)


@pytest.mark.parametrize(("field", "value"), [("d_model", None), ("num_layers", "2"), ("patch_length", 0)])
def test_a_field_of_the_wrong_kind_is_named(field: str, value: object) -> None:
    with pytest.raises(TeacherError, match=f"{field} is {value!r}"):
        build_teacher({**TINY, field: value}, **TASK)


def test_another_lookback_names_the_revision_that_has_it() -> None:
    with pytest.raises(TeacherError, match="lookback 48 only, got 1024") as caught:
        build_teacher(TINY, lookback=1024, horizon=96, variates=1)
    assert "ttm-r2-1024-96" in caught.value.hint


def test_a_longer_horizon_names_the_revision_that_has_it() -> None:
    config = find_card("ttm-r2").config
    assert config is not None
    with pytest.raises(TeacherError, match="at most 96 steps, got horizon 97") as caught:
        build_teacher(config, lookback=512, horizon=97, variates=1)
    assert "ttm-r2-512-192" in caught.value.hint


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TeacherError, match="no option 'patch_size'"):
        build_teacher(TINY, **TASK, patch_size=8)


def test_published_sizes_follow_from_the_configuration() -> None:
    sized = [card for card in CARDS if card.config is not None]
    assert {card.name for card in sized} >= {"ttm-r1", "ttm-r2", "ttm-r2-512-96", "ttm-r1-1024-96"}
    for card in sized:
        lookback, horizon = context_and_horizon(card)
        with torch.device("meta"):
            teacher = build_teacher(card.config, lookback=lookback, horizon=horizon, variates=7)
        assert parameter_count(teacher) == card.parameters
    assert find_card("ttm-r2").parameters == 805_280


def test_every_published_revision_has_a_name() -> None:
    names = {card.name for card in CARDS}
    assert {f"ttm-r2-{c}-{h}" for c in (512, 1024, 1536) for h in (96, 192, 336, 720)} <= names
    assert find_card("ttm-r2-1536-720").revision == "1536-720-r2"
    assert find_card("ttm-r2-512-96").revision == find_card("ttm-r2").revision
    assert all(
        card.licence == "Apache-2.0" and card.context == context_and_horizon(card)[0] for card in CARDS
    )


def test_masked_equals_sliced(kit: Any) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK)
    past = torch.randn(2, 3, 48).cumsum(-1)
    groups = {group.name: group for group in teacher.structure().groups}
    assert len(groups) == 2 * 2 * 2 + 2  # two levels of two layers with two mixers, one decoder layer
    for name in (
        "backbone.encoder.mlp_mixer_encoder.mixers.0.mixer_layers.1.patch_mixer.mlp",
        "backbone.encoder.mlp_mixer_encoder.mixers.1.mixer_layers.0.feature_mixer.mlp",
        "decoder.decoder_block.mixers.0.feature_mixer.mlp",
    ):
        group = groups[name]
        some = [unit for unit in range(group.units) if unit % 3 == 0]
        for dead in (some, list(range(group.units))):
            masked, sliced = kit.masked_and_sliced(teacher, group, dead, past)
            assert not torch.allclose(masked, teacher(past), atol=1e-3)
            kit.close(sliced, masked, 0, 1e-5)


def test_a_pruned_teacher_reports_what_lives(kit: Any) -> None:
    name = "decoder.decoder_block.mixers.0.feature_mixer.mlp"
    teacher = build_teacher({**TINY, "tsfmc": {"kept": {name: [0, 5, 23]}}}, **TASK)
    group = teacher.structure()[name]
    assert group.units == 3
    assert teacher.state_dict()[f"{name}.fc2.weight"].shape == (12, 3)
    assert parameter_count(teacher) == parameter_count(build_teacher(TINY, **TASK)) - 21 * (12 + 1 + 12)


def test_export(kit: Any, tmp_path: Path) -> None:
    kit.assert_exports(kit.tiny_teacher(TINY, **TASK), tmp_path / "ttm.onnx")


def test_export_with_dead_branches(kit: Any, tmp_path: Path) -> None:
    whole = kit.tiny_teacher(TINY, **TASK)
    kept = {group.name: [] for group in whole.structure().groups[:2]}
    pruned = kit.tiny_teacher({**TINY, "tsfmc": {"kept": kept}}, **TASK)
    kit.assert_exports(pruned, tmp_path / "dead.onnx")
