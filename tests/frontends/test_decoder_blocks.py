"""What Time-MoE and Timer share: exact removal of every coupled group, export, and the small helpers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher, save_teacher
from tsfmc.compiler.frontends.blocks.decoder import head_lengths, plan_heads, standardise
from tsfmc.compiler.frontends.blocks.layers import Entry
from tsfmc.compiler.frontends.settings import Settings
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.prunable import Group, Kept, Span, Tap

SIZES = {"hidden_size": 24, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
CONFIGS: Mapping[str, dict[str, Any]] = {
    "time-moe": {
        "model_type": "time_moe",
        **SIZES,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "horizon_lengths": [1, 8, 32, 64],
    },
    "timer": {"model_type": "timer", **SIZES, "input_token_len": 8, "output_token_lens": [8]},
}
LOOKBACKS = {"time-moe": 24, "timer": 48}
FAMILIES = pytest.mark.parametrize("family", CONFIGS)


def tiny(family: str, *, horizon: int = 8, variates: int = 2) -> Teacher:
    teacher = build_teacher(CONFIGS[family], lookback=LOOKBACKS[family], horizon=horizon, variates=variates)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + ("norm" in name))
    return teacher


def series(teacher: Teacher, batch: int = 3) -> Tensor:
    return torch.randn(batch, teacher.variates, teacher.lookback).cumsum(-1)


def indices(spans: Iterable[Span], units: Iterable[int]) -> list[int]:
    return [index for unit in units for span in spans for index in span.indices(unit)]


@contextmanager
def masked(teacher: Teacher, group: Group, units: Iterable[int], tap: int = 0) -> Iterator[None]:
    """Switches units off at one tap of their group, or at all where they act together."""
    units = list(units)
    with ExitStack() as stack:
        for where in group.taps if group.together else (group.taps[tap],):
            stack.callback(mask_at(teacher, group, units, where).remove)
        yield


def mask_at(teacher: Teacher, group: Group, units: list[int], where: Tap) -> RemovableHandle:
    module = teacher.get_submodule(where.module)
    if isinstance(module, nn.Linear):
        channels = module.in_features if where.side == "in" else module.out_features
    else:
        assert isinstance(module, Entry) and where.side == "out"
        channels = module.channels
    mask = next(teacher.parameters()).new_ones(channels)
    mask[indices(where.spans, units)] = 0.0
    if where.side == "in":
        return module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * mask,))
    if group.kind == "expert":
        return module.register_forward_hook(lambda _, __, logits: logits + mask.log())
    return module.register_forward_hook(lambda _, __, output: output * mask)


def sliced(teacher: Teacher, group: Group, units: Iterable[int]) -> Teacher:
    """The teacher without these units, rebuilt from its configuration and loaded strictly."""
    gone, state = set(units), dict(teacher.state_dict())
    for member in group.members:
        tensor = state.pop(member.parameter)
        if member.owner is None:
            drop = set(indices(member.spans, gone))
            keep = [i for i in range(tensor.shape[member.dim]) if i not in drop]
            state[member.parameter] = tensor.index_select(member.dim, torch.tensor(keep, dtype=torch.long))
        elif member.owner not in gone:
            state[member.parameter] = tensor
    own = teacher.config["tsfmc"]
    living = Kept(teacher.config).indices(group.name, group.units)
    kept = {**own.get("kept", {}), group.name: [unit for i, unit in enumerate(living) if i not in gone]}
    smaller = build_teacher({**teacher.config, "tsfmc": {**own, "kept": kept}})
    smaller.to(next(teacher.parameters()).dtype).load_state_dict(state, strict=True)
    return smaller


def assert_same_outputs(
    teacher: Teacher, smaller: Teacher, group: Group, units: list[int], past: Tensor, tolerance: float
) -> None:
    with torch.no_grad():
        got = smaller.outputs(past)
        for tap in range(1 if group.together else len(group.taps)):
            with masked(teacher, group, units, tap):
                expected = teacher.outputs(past)
            states = expected.states
            if group.kind == "residual" and states is not None:
                assert not states[..., units].any()
                states = states[..., [dim for dim in range(group.units) if dim not in units]]
            torch.testing.assert_close(got.forecast, expected.forecast, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(got.states, states, rtol=tolerance, atol=tolerance)


@FAMILIES
def test_groups_cover_every_kind(family: str) -> None:
    kinds = {group.kind for group in tiny(family).structure().groups}
    own = {"expert", "residual"} if family == "time-moe" else set()  # Timer has LayerNorms
    assert kinds == {"head", "value", "rotary", "ffn"} | own


@FAMILIES
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_masked_equals_sliced_again_and_again(family: str, data: st.DataObject) -> None:
    """One kind after the other, on what earlier removals have left; exact up to float64 rounding."""
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    teacher = tiny(family).double()
    for _ in range(3):
        groups = teacher.structure().groups
        kind = data.draw(st.sampled_from(sorted({group.kind for group in groups})))
        group = data.draw(st.sampled_from([group for group in groups if group.kind == kind]))
        most = group.units if group.removable else group.units - group.floor
        units = data.draw(st.lists(st.integers(0, group.units - 1), unique=True, max_size=most))
        smaller = sliced(teacher, group, units)
        assert_same_outputs(teacher, smaller, group, units, series(teacher).double(), 1e-10)
        assert not units or parameter_count(smaller) < parameter_count(teacher)
        teacher = smaller


@FAMILIES
def test_masked_equals_sliced_in_single_precision(family: str) -> None:
    """Every group of the last layer, and the stream, at half its units, on series of unit scale."""
    teacher = tiny(family)
    past = torch.randn(3, teacher.variates, teacher.lookback)
    for group in teacher.structure().groups:
        if group.name.startswith("model.layers.1.") or group.kind == "residual":
            units = list(range(group.units // 2))
            assert_same_outputs(teacher, sliced(teacher, group, units), group, units, past, 1e-5)


@FAMILIES
def test_emptied_branches_export_and_survive_a_save(family: str, tmp_path: Path) -> None:
    """No attention in the first layer, no FFN units in the last, one head and one pair left there.

    Of Time-MoE also experts, units of an expert and dims of the stream.
    """
    teacher = tiny(family)
    layers = "model.layers"
    ffn = f"{layers}.1.ffn_layer" + (".shared_expert" if family == "time-moe" else "") + ".units"
    removals = [(f"{layers}.0.self_attn.heads", 3), (f"{layers}.1.self_attn.heads", 2), (ffn, 12)]
    removals += [(f"{layers}.1.self_attn.rotary", 3)]
    if family == "time-moe":
        removals += [("model.residual", 7)]
        removals += [(f"{layers}.0.ffn_layer.experts", 2), (f"{layers}.1.ffn_layer.experts.2.units", 6)]
    past = torch.randn(3, teacher.variates, teacher.lookback)
    for name, count in removals:
        group = teacher.structure()[name]
        units = list(range(count))
        smaller = sliced(teacher, group, units)
        assert_same_outputs(teacher, smaller, group, units, past, 1e-5)
        teacher = smaller
    if family == "time-moe":
        experts = teacher.get_submodule(f"{layers}.0.ffn_layer.experts")
        assert [name for name, _ in experts.named_children()] == ["2"]
    save_teacher(teacher, tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(load_teacher(tmp_path / "saved")(past), teacher(past))
    assert onnx_difference(teacher, tmp_path / "pruned.onnx") < 1e-4


@pytest.mark.parametrize(("family", "horizon"), [("time-moe", 96), ("timer", 8), ("timer", 20)])
def test_export(family: str, horizon: int, tmp_path: Path) -> None:
    """One pass and roll-out, at batches other than the one it was exported with."""
    assert onnx_difference(tiny(family, horizon=horizon), tmp_path / "model.onnx") < 1e-4


def onnx_difference(teacher: Teacher, path: Path) -> float:
    """Largest difference of torch.export and onnxruntime from eager, over two batch sizes."""
    batch = {"past": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(teacher, (series(teacher, 2),), dynamic_shapes=batch)
        torch.onnx.export(program, (), path, dynamo=True, opset_version=18, verbose=False)
        session = onnxruntime.InferenceSession(path)
        differences = []
        for size in (1, 5):
            past = series(teacher, size)
            expected = teacher(past)
            (got,) = session.run(None, {session.get_inputs()[0].name: past.numpy()})
            differences += [expected - torch.from_numpy(got), expected - program.module()(past)]
    return max(float(difference.abs().max()) for difference in differences)


@pytest.mark.parametrize(
    ("horizon", "steps"),
    [(96, [64, 32]), (100, [64, 32, 1, 1, 1, 1]), (105, [64, 32, 8, 1]), (1, [1]), (7, [1] * 7)],
)
def test_plan_heads_is_greedy(horizon: int, steps: list[int]) -> None:
    assert [taken for _, taken in plan_heads((1, 8, 32, 64), horizon)] == steps


def test_plan_heads_cuts_the_shortest_head() -> None:
    assert plan_heads((96,), 200) == ((0, 96), (0, 96), (0, 8))


@pytest.mark.parametrize("lengths", [None, 64, [], [64, 32], [0, 8], ["a"]])
def test_head_lengths_must_increase(lengths: Any) -> None:
    with pytest.raises(TeacherError, match="horizon_lengths"):
        head_lengths(Settings("time-moe", {"horizon_lengths": lengths}), "horizon_lengths")


def test_standardise_keeps_a_constant_window() -> None:
    windows = torch.stack([torch.full((16,), 3.0), torch.zeros(16), torch.arange(16.0)])
    normalised, mean, std = standardise(windows)
    assert torch.equal(normalised[:2], torch.zeros(2, 16))
    assert torch.equal(mean[:2, 0], torch.tensor([3.0, 0.0])) and torch.equal(std[:2, 0], torch.zeros(2))
    torch.testing.assert_close(std[2], windows[2].std(keepdim=True))


@FAMILIES
def test_a_constant_window_is_forecast_as_the_constant(family: str) -> None:
    teacher = tiny(family, horizon=20)
    past = torch.full((1, 2, teacher.lookback), 4.0)
    with torch.no_grad():
        assert torch.equal(teacher(past), torch.full((1, 2, 20), 4.0))


@FAMILIES
def test_scaling_by_a_power_of_two_scales_the_forecast(family: str) -> None:
    teacher = tiny(family, horizon=20)
    past = series(teacher)
    with torch.no_grad():
        assert torch.equal(teacher(8 * past), 8 * teacher(past))


@FAMILIES
def test_one_evaluation_gives_forecast_and_states(family: str) -> None:
    teacher = tiny(family, horizon=20)
    past = series(teacher)
    with torch.no_grad():
        outputs = teacher.outputs(past)
        assert outputs.quantiles is None and outputs.states is not None
        torch.testing.assert_close(outputs.forecast, teacher(past), rtol=1e-5, atol=1e-5)
        assert torch.equal(outputs.states, teacher.states(past))
        assert teacher.outputs(past, states=False).states is None


@FAMILIES
def test_variates_are_forecast_on_their_own(family: str) -> None:
    teacher = tiny(family, variates=3)
    past = series(teacher)
    with torch.no_grad():
        shuffled = teacher(past[:, [2, 0, 1]])
        torch.testing.assert_close(shuffled, teacher(past)[:, [2, 0, 1]], rtol=1e-5, atol=1e-5)


@FAMILIES
def test_constants_are_right_after_loading(family: str, tmp_path: Path) -> None:
    """A loader may leave buffers that no file holds uninitialised."""
    teacher = tiny(family)
    save_teacher(teacher, tmp_path)
    loaded, constants = load_teacher(tmp_path), dict(teacher.named_buffers())
    assert constants and not constants.keys() & teacher.state_dict().keys()
    for name, buffer in loaded.named_buffers():
        assert torch.isfinite(buffer).all() and torch.equal(buffer, constants[name])
    position, pair = 5, 2
    angle = torch.tensor(position / 10000 ** (2 * pair / 8))
    cosine = loaded.get_buffer("model.layers.1.self_attn.cos")[position, pair]
    torch.testing.assert_close(cosine, angle.cos())


@FAMILIES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not implemented"),
        ({"num_attention_heads": 5}, "hidden_size is 24 and num_attention_heads 5"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"max_position_embeddings": 4}, "max_position_embeddings"),
    ],
)
def test_configurations_that_are_refused(family: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**CONFIGS[family], **change}, lookback=LOOKBACKS[family], horizon=8, variates=1)


@FAMILIES
def test_options_that_are_refused(family: str) -> None:
    task = {"lookback": LOOKBACKS[family], "horizon": 8, "variates": 1}
    with pytest.raises(TeacherError, match="has no option 'patch_size'"):
        build_teacher(CONFIGS[family], **task, patch_size=32)
    with pytest.raises(TeacherError, match="normalize is 'train', expected 'window' or 'none'"):
        build_teacher(CONFIGS[family], **task, normalize="train")
