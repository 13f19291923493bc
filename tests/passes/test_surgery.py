"""Masked equals sliced, for every family; a structure that forgets a reader or writer is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_teachers import TINY, tiny_teacher
from torch import Tensor

from tsfmc.compiler.base.errors import PassError, VerificationError
from tsfmc.compiler.data import Dataset, load_data
from tsfmc.compiler.frontends import load_teacher, save_teacher
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.prunable import Group, PrunableStructure
from tsfmc.passes.surgery import Keep, masked, removed_units, slice_teacher, verify_structure

FAMILIES = pytest.mark.parametrize("family", TINY)


def random_past(teacher: Teacher) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, teacher.variates, teacher.lookback, generator=generator).cumsum(-1)


@cache
def sample() -> Dataset:
    return load_data("sample", lookback=48, horizon=20)


def real_past(teacher: Teacher) -> Tensor:
    windows = sample().windows("train", teacher.lookback, teacher.horizon)
    past, _ = windows.batch([0, 1000, 2000])
    return past[:, : teacher.variates]


def assert_masked_is_sliced(teacher: Teacher, keep: Keep, past: Tensor, tap: int = 0) -> Teacher:
    """To 1e-5 of the largest value in float32, and to 1e-10 in float64: what is left is rounding alone."""
    smaller = slice_teacher(teacher, keep)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        whole, cut = copy.deepcopy(teacher).to(dtype), copy.deepcopy(smaller).to(dtype)
        with torch.no_grad():
            with masked(whole, keep, lambda group: min(tap, len(group.taps) - 1)):
                expected = whole.outputs(past.to(dtype))
            got = cut.outputs(past.to(dtype))
        assert got.states is not None and expected.states is not None
        living, dead = states_dims(teacher, keep)
        assert not expected.states[..., dead].any()
        for one, other in ((got.forecast, expected.forecast), (got.states, expected.states[..., living])):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max()))
    return smaller


def states_dims(teacher: Teacher, keep: Keep) -> tuple[list[int], list[int]]:
    """The dims of the states that stay and those that leave; the first residual group is their stream."""
    for group in teacher.structure().groups:
        if group.kind == "residual":
            gone = removed_units(group, keep)
            return [unit for unit in range(group.units) if unit not in gone], gone
    return list(range(teacher.outputs(random_past(teacher)).states.shape[-1])), []  # type: ignore[union-attr]


def draw_keep(data: st.DataObject, teacher: Teacher) -> dict[str, list[int]]:
    """Any legal choice: each group whole, thinned, at its floor, or emptied where that is allowed."""
    keep = {}
    for group in teacher.structure().groups:
        how = data.draw(st.sampled_from(["whole", "thinned", "floor", "emptied"]))
        floor = min(group.floor, group.units)
        least = 0 if how == "emptied" and group.removable else floor
        if how != "whole" and group.units:
            count = least if how in ("floor", "emptied") else data.draw(st.integers(floor, group.units))
            keep[group.name] = sorted(data.draw(st.permutations(range(group.units)))[:count])
    return keep


@FAMILIES
def test_structures_are_sound(family: str) -> None:
    assert verify_structure(tiny_teacher(family)) < 1e-5


@FAMILIES
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_masked_equals_sliced_for_any_masks(family: str, data: st.DataObject) -> None:
    """Two removals, one after the other, at a drawn tap, on random and on real windows."""
    teacher = tiny_teacher(family, seed=data.draw(st.integers(0, 2**16)))
    for past in (random_past(teacher), real_past(teacher)):
        keep, tap = draw_keep(data, teacher), data.draw(st.integers(0, 1))
        smaller = assert_masked_is_sliced(teacher, keep, past, tap)
        assert parameter_count(smaller) <= parameter_count(teacher)
        teacher = smaller


def extreme(teacher: Teacher, kind: str, count: int) -> dict[str, list[int]]:
    """Every group of a kind keeps its last ``count`` units."""
    return {
        group.name: list(range(group.units - count, group.units))
        for group in teacher.structure().groups
        if group.kind == kind
    }


@FAMILIES
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("ffn", 0),
        ("ffn", 1),
        ("head", 0),
        ("head", 1),
        ("value", 1),
        ("rotary", 1),
        ("expert", 1),
        ("residual", 8),
    ],
)
def test_extremes_survive_a_save(family: str, kind: str, count: int, tmp_path: Path) -> None:
    """FFN or attention emptied everywhere, one head, one expert left; on disk and back."""
    teacher = tiny_teacher(family)
    keep = extreme(teacher, kind, count)
    if not keep:
        assert kind not in {group.kind for group in teacher.structure().groups}
        return
    past = random_past(teacher)
    smaller = assert_masked_is_sliced(teacher, keep, past)
    assert_masked_is_sliced(teacher, keep, real_past(teacher))
    assert parameter_count(smaller) < parameter_count(teacher)
    save_teacher(smaller, tmp_path / "pruned")
    back = load_teacher(tmp_path / "pruned")
    with torch.no_grad():
        assert torch.equal(back(past), smaller(past))
    assert verify_structure(back) < 1e-5


@FAMILIES
def test_the_teacher_stays_as_it_was(family: str) -> None:
    teacher = tiny_teacher(family)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    verify_structure(teacher)
    slice_teacher(teacher, {teacher.structure().groups[0].name: [0]})
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@FAMILIES
def test_keeping_everything_changes_nothing(family: str) -> None:
    teacher = tiny_teacher(family)
    past = random_past(teacher)
    same = slice_teacher(teacher, {group.name: range(group.units) for group in teacher.structure().groups})
    with torch.no_grad():
        assert torch.equal(same(past), teacher(past))
    assert same.config == teacher.config


def test_kept_indices_are_the_original_ones() -> None:
    teacher = tiny_teacher("timer")
    name = "model.layers.1.self_attn.rotary"
    once = slice_teacher(teacher, {name: [1, 3]})
    twice = slice_teacher(once, {name: [1]})
    assert once.config["tsfmc"]["kept"] == {name: [1, 3]}
    assert twice.config["tsfmc"]["kept"] == {name: [3]}


def test_a_dead_branch_keeps_its_bias() -> None:
    teacher = tiny_teacher("ttm")
    name = "decoder.decoder_block.mixers.0.feature_mixer.mlp"
    smaller = slice_teacher(teacher, {name: []})
    bias = smaller.get_parameter(f"{name}.fc2.bias")
    assert torch.equal(bias, teacher.get_parameter(f"{name}.fc2.bias")) and bias.abs().max() > 0
    past = random_past(teacher)
    with torch.no_grad():
        before = smaller(past)
        bias.add_(1.0)
        assert (smaller(past) - before).abs().max() > 1e-3


def test_an_expert_takes_its_units_along() -> None:
    teacher = tiny_teacher("time-moe")
    experts, units = "model.layers.0.ffn_layer.experts", "model.layers.0.ffn_layer.experts.0.units"
    thinner = slice_teacher(teacher, {units: [0, 2]})
    smaller = slice_teacher(thinner, {experts: [1, 2]})
    assert smaller.config["tsfmc"]["kept"] == {experts: [1, 2]}
    assert not [name for name in smaller.state_dict() if ".0.ffn_layer.experts.0." in name]


def with_structure(teacher: Teacher, name: str, change: object) -> Teacher:
    """The teacher, whose group ``name`` goes through ``change``."""
    groups = tuple(
        change(group) if group.name == name else group  # type: ignore[operator]
        for group in teacher.structure().groups
    )
    teacher.structure = lambda: PrunableStructure(groups)  # type: ignore[method-assign]
    return teacher


@FAMILIES
def test_every_member_is_needed(family: str) -> None:
    """A structure without any one of its members is refused, and the place is named."""
    teacher = tiny_teacher(family)
    for group in {group.kind: group for group in teacher.structure().groups}.values():
        for forgotten in group.members:

            def drop(group: Group, forgotten: object = forgotten) -> Group:
                return replace(group, members=tuple(m for m in group.members if m != forgotten))

            broken = with_structure(copy.deepcopy(teacher), group.name, drop)
            with pytest.raises(VerificationError) as caught:
                verify_structure(broken)
            place = forgotten.parameter if forgotten.owner is None else group.name
            assert place in str(caught.value)


def test_a_tap_at_the_wrong_layer_is_refused() -> None:
    """The shapes fit; only the numbers can tell: a reader is not covered by the tap."""
    teacher = tiny_teacher("ttm")
    name = "decoder.decoder_block.mixers.0.feature_mixer.mlp"
    other = teacher.structure()[
        "backbone.encoder.mlp_mixer_encoder.mixers.1.mixer_layers.0.feature_mixer.mlp"
    ]
    with pytest.raises(VerificationError, match=f"group {name}") as caught:
        verify_structure(with_structure(teacher, name, lambda group: replace(group, taps=other.taps)))
    assert f"{name}.fc1" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, taps=()), "no tap"),
        (lambda g: replace(g, taps=(replace(g.taps[0], module="nowhere"),)), "no linear layer"),
        (lambda g: replace(g, members=(replace(g.members[0], parameter="x"),)), "does not exist"),
        (lambda g: replace(g, units=g.units + 1), "share indices or leave"),
    ],
)
def test_a_structure_that_points_nowhere_is_refused(change: object, message: str) -> None:
    name = "decoder.decoder_block.mixers.0.feature_mixer.mlp"
    with pytest.raises(VerificationError, match=message):
        verify_structure(with_structure(tiny_teacher("ttm"), name, change))


def test_impossible_removals_are_refused() -> None:
    teacher = tiny_teacher("time-moe")
    with pytest.raises(PassError, match="no group 'nothing'"):
        slice_teacher(teacher, {"nothing": []})
    with pytest.raises(PassError, match="would keep 0 units, expected at least 1"):
        slice_teacher(teacher, {"model.layers.0.ffn_layer.experts": []})
    with pytest.raises(PassError, match=r"units 0\.\.2"):
        slice_teacher(teacher, {"model.layers.0.self_attn.heads": [0, 7]})
