"""Chronos-Bolt against its golden vectors, against chronos-forecasting, and through pruning and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from golden import SHARED, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, find_card, load_teacher, rebuild_teacher, save_teacher
from tsfmc.compiler.frontends.chronos.bolt import relative_buckets
from tsfmc.compiler.frontends.chronos.cards import BOLT_CARDS
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count

TINY: Mapping[str, Any] = {
    "architectures": ["ChronosBoltModelForForecasting"],
    "chronos_config": {
        "context_length": 64,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "prediction_length": 12,
        "quantiles": [0.1, 0.5, 0.9],
        "use_reg_token": True,
    },
    "model_type": "t5",
    "d_model": 16,
    "d_ff": 24,
    "d_kv": 6,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "decoder_start_token_id": 0,
    "dense_act_fn": "relu",
    "feed_forward_proj": "relu",
    "is_gated_act": False,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "dropout_rate": 0.1,
    "initializer_factor": 0.05,
    "is_encoder_decoder": True,
    "pad_token_id": 0,
    "vocab_size": 2,
}
TASK = {"lookback": 40, "horizon": 20, "variates": 2}


@pytest.mark.parametrize("case", cases("chronos-bolt", skip=["h96_pipeline"]))
def test_golden(kit: Any, case: Case) -> None:
    context, horizon = case["context"][:, None], case.settings["horizon"]
    teacher = load_teacher(case.checkpoint, lookback=context.shape[-1], horizon=horizon, variates=1)
    with torch.no_grad():
        outputs = teacher.outputs(context)
        kit.close(teacher.states(context), outputs.states, 0, 0)
        kit.close(teacher(context), outputs.forecast, 0, 0)
    kit.close(outputs.quantiles[:, 0], case["quantiles"])
    kit.close(outputs.forecast[:, 0], case["point"])
    if case.name == "const" and case.folder.is_relative_to(SHARED):
        kit.close(outputs.quantiles[:, 0], case["quantiles"], 1e-8, 1e-6)
    if "hidden" in case:
        kit.close(outputs.states[:, 0], case["hidden"], 0, 5e-4)


def test_the_pipeline_rolls_out_another_way(shared: Path, kit: Any) -> None:
    """Equal in the first 64 steps; beyond, the pipeline follows all nine quantiles (module docstring)."""
    directory = shared / "golden" / "chronos-bolt"
    golden = load_file(directory / "golden.safetensors")
    context = golden["h96_pipeline.context"][:, None]
    teacher = load_teacher(directory, lookback=512, horizon=96, variates=1)
    with torch.no_grad():
        quantiles = teacher.quantiles(context)[:, 0]
    kit.close(quantiles[:, :64], golden["h96_pipeline.quantiles"][:, :64])
    assert (quantiles - golden["h96_pipeline.quantiles"])[:, 64:].abs().max() > 1


def test_the_dummy_checkpoint_of_the_package_loads(shared: Path) -> None:
    directory = shared / "weights" / "dummy-chronos-bolt-model"
    teacher = load_teacher(directory, lookback=100, horizon=96, variates=3)
    assert teacher(torch.randn(1, 3, 100)).isfinite().all()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_equals_the_package(kit: Any, data: st.DataObject) -> None:
    chronos = {**TINY["chronos_config"], "use_reg_token": data.draw(st.booleans())}
    config = {
        **TINY,
        "chronos_config": chronos,
        "num_layers": data.draw(st.integers(1, 2)),
        "num_decoder_layers": data.draw(st.integers(1, 2)),
        "num_heads": data.draw(st.integers(1, 3)),
        "relative_attention_num_buckets": data.draw(st.sampled_from([4, 8, 32])),
    }
    upstream = ChronosBoltModelForForecasting(T5Config(**config)).eval()
    kit.randomise(upstream)
    length = data.draw(st.integers(1, 80))
    past = torch.randn(2, 2, length).cumsum(-1) * data.draw(st.sampled_from([1e-3, 1.0, 1e4]))
    past[torch.rand(past.shape) < data.draw(st.sampled_from([0.0, 0.2, 0.95]))] = torch.nan
    teacher = build_teacher(upstream.config.to_dict(), lookback=length, horizon=12, variates=2)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    state = {name: tensor for name, tensor in upstream.state_dict().items() if name not in tied}
    teacher.load_state_dict(state, strict=True)
    with torch.no_grad():
        expected = upstream(context=past.reshape(4, length)).quantile_preds.transpose(1, 2)
        kit.close(teacher.quantiles(past).reshape(4, 12, 3), expected)
        hidden = upstream.encode(past.reshape(4, length))[0]
        hidden = hidden[:, :-1] if chronos["use_reg_token"] else hidden
        kit.close(teacher.states(past).flatten(0, 1), hidden, 1e-4, 5e-5)


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 200),
    buckets=st.sampled_from([8, 16, 32, 64]),
    furthest=st.integers(20, 200),
)
def test_relative_buckets(length: int, buckets: int, furthest: int) -> None:
    at = torch.arange(length)
    expected = T5Attention._relative_position_bucket(
        at[None, :] - at[:, None], bidirectional=True, num_buckets=buckets, max_distance=furthest
    )
    assert torch.equal(relative_buckets(length, buckets, furthest), expected)


def test_buffers_that_no_file_holds_are_real_after_loading(kit: Any, tmp_path: Path) -> None:
    save_teacher(kit.tiny_teacher(TINY, **TASK), tmp_path)
    loaded = load_teacher(tmp_path)
    assert torch.equal(loaded.encoder.buckets, relative_buckets(8, 8, 6))  # 52 steps: 7 patches and REG
    assert loaded.encoder.block[0]["layer"][0].SelfAttention.head_indices.tolist() == [0, 1, 2]
    assert loaded(torch.randn(1, 2, 40)).isfinite().all()


def test_published_sizes_follow_from_the_configuration() -> None:
    millions = {"tiny": 8.65, "mini": 21.24, "small": 47.72, "base": 205.29}
    for card in BOLT_CARDS:
        with torch.device("meta"):
            teacher = build_teacher(card.config, lookback=512, horizon=96, variates=7)
        assert parameter_count(teacher) == card.parameters
        assert round(card.parameters / 1e6, 2) == millions[card.name.rsplit("-", 1)[1]]


def test_dead_weights_are_dead(kit: Any, tmp_path: Path) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK)
    past = torch.randn(3, 2, 40).cumsum(-1)
    lean = rebuild_teacher(teacher, drop_dead=True)
    kit.close(lean.quantiles(past), teacher.quantiles(past), 0, 0)
    assert parameter_count(teacher) - parameter_count(lean) == 2 * 2 * 16 * 18 + 8 * 3
    save_teacher(teacher, tmp_path / "whole")
    kit.close(load_teacher(tmp_path / "whole", drop_dead=True)(past), teacher(past), 0, 0)
    save_teacher(lean, tmp_path / "lean")
    kit.close(load_teacher(tmp_path / "lean")(past), teacher(past), 0, 0)
    with torch.device("meta"):
        small = build_teacher(find_card("chronos-bolt-small").config, **TASK, drop_dead=True)
    assert parameter_count(small) == 47_718_016 - 6 * 2 * 512 * 512 - 32 * 8


def test_tied_copies_of_the_embedding_are_accepted(kit: Any, tmp_path: Path) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK)
    state = dict(teacher.state_dict())
    state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()
    kit.write_checkpoint(tmp_path, TINY, state)
    assert load_teacher(tmp_path, **TASK)(torch.randn(1, 2, 40)).isfinite().all()
    state["decoder.embed_tokens.weight"] = state["shared.weight"] + 1
    kit.write_checkpoint(tmp_path, TINY, state)
    with pytest.raises(TeacherError, match=r"1 unexpected: decoder\.embed_tokens\.weight"):
        load_teacher(tmp_path, **TASK)


SELF, CROSS = "encoder.block.1.layer.0.SelfAttention", "decoder.block.0.layer.1.EncDecAttention"


@pytest.mark.parametrize(
    ("name", "dead"),
    [
        ("encoder.block.0.layer.0.SelfAttention.heads", [1]),
        (f"{SELF}.heads", [0, 2]),
        (f"{SELF}.heads", [0, 1, 2]),
        (f"{SELF}.values", [0, 3]),
        (f"{SELF}.values", [0, 1, 2, 3, 4, 5]),
        (f"{SELF}.dims", [1, 2, 5]),
        (f"{CROSS}.heads", [1]),
        (f"{CROSS}.values", [5]),
        (f"{CROSS}.dims", [0]),
        ("decoder.block.1.layer.0.SelfAttention.values", [0, 7, 8, 17]),
        ("decoder.block.1.layer.0.SelfAttention.values", list(range(18))),
        ("encoder.block.1.layer.1.DenseReluDense", [0, 3, 4, 23]),
        ("encoder.block.1.layer.1.DenseReluDense", list(range(24))),
        ("input_patch_embedding.units", [2, 3]),
        ("output_patch_embedding.units", [0, 20]),
        ("encoder.residual", [0, 3, 15]),
        ("decoder.residual", [1, 2, 7, 8]),
    ],
)
def test_masked_equals_sliced(kit: Any, name: str, dead: list[int]) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK)
    past = torch.randn(2, 2, 40).cumsum(-1)
    past[0, 0, :11] = torch.nan
    masked, sliced = kit.masked_and_sliced(teacher, teacher.structure()[name], dead, past)
    assert not torch.allclose(masked, teacher(past), atol=1e-4)
    kit.close(sliced, masked, 1e-5, 1e-5)


def pruned(kit: Any) -> Teacher:
    """Every kind of group pruned at once, some branches gone."""
    kept = {
        "encoder.block.0.layer.0.SelfAttention.heads": [0, 2],
        "encoder.block.0.layer.0.SelfAttention.values": [1, 2, 4],
        f"{SELF}.heads": [],
        f"{CROSS}.heads": [1],
        f"{CROSS}.dims": [0, 1, 5],
        "decoder.block.1.layer.0.SelfAttention.values": [],
        "encoder.block.1.layer.1.DenseReluDense": [],
        "decoder.block.1.layer.2.DenseReluDense": [3, 9],
        "input_patch_embedding.units": [1, 2, 3],
        "encoder.residual": [0, 1, 2, 5, 6, 9, 11, 12, 14],
        "decoder.residual": [1, 2, 3, 4, 5, 6, 7, 15],
    }
    teacher: Teacher = kit.tiny_teacher({**TINY, "tsfmc": {"kept": kept}}, **TASK, drop_dead=True)
    return teacher


def test_groups_compose(kit: Any) -> None:
    """A head removed where others are gone already: the position bias follows the original heads."""
    teacher = pruned(kit)
    past = torch.randn(2, 2, 40).cumsum(-1)
    name = "encoder.block.0.layer.0.SelfAttention.heads"
    assert teacher.structure()[name].units == 2
    masked, sliced = kit.masked_and_sliced(teacher, teacher.structure()[name], [0], past)
    assert not torch.allclose(masked, teacher(past), atol=1e-4)
    kit.close(sliced, masked, 1e-5, 1e-5)
    names = {group.name for group in teacher.structure().groups}
    assert f"{SELF}.heads" not in names and "encoder.block.1.layer.1.DenseReluDense" not in names


def test_save_and_load_a_pruned_teacher(kit: Any, tmp_path: Path) -> None:
    teacher = pruned(kit)
    save_teacher(teacher, tmp_path)
    past = torch.randn(2, 2, 40)
    kit.close(load_teacher(tmp_path).quantiles(past), teacher.quantiles(past), 0, 0)


def test_export_with_dead_branches(kit: Any, tmp_path: Path) -> None:
    kit.assert_exports(pruned(kit), tmp_path / "dead.onnx")


def test_export_with_missing_values(kit: Any, tmp_path: Path) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK)
    past = torch.randn(5, 2, 40).cumsum(-1)
    run = kit.onnx_forecast(teacher, tmp_path / "bolt.onnx", past[:2])
    with torch.no_grad():
        kit.close(run(past), teacher(past), 1e-4, 1e-4)
    past[0, 0, :17] = torch.nan
    past[1, 1] = torch.nan
    with torch.no_grad():
        kit.close(run(past), teacher(past), 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_gated_act": True}, "is_gated_act=True"),
        ({"dense_act_fn": "gelu_new"}, "dense_act_fn='gelu_new'"),
        ({"d_model": None}, "d_model is None"),
        ({"chronos_config": None}, "chronos_config is None"),
        ({"chronos_config": {**TINY["chronos_config"], "input_patch_stride": 4}}, "input_patch_stride=4"),
        ({"chronos_config": {**TINY["chronos_config"], "quantiles": [0.1, 0.9]}}, "quantiles lacks 0.5"),
        (
            {"chronos_config": {**TINY["chronos_config"], "quantiles": [0.5, 0.1]}},
            "ascending quantile levels",
        ),
    ],
)
def test_what_cannot_be_built_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**TINY, **change}, **TASK)
