"""drop_dead_weights: exact, smaller, and a checkpoint like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_teachers import HAVE_DEAD_WEIGHTS, TINY, tiny_teacher

from tsfmc.compiler.base.errors import PassError, VerificationError
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.frontends import build_teacher, find_card, load_teacher, save_teacher
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.drop_dead_weights import DropDeadWeights
from tsfmc.passes.surgery import slice_teacher, verify_structure


@pytest.mark.parametrize("family", TINY)
def test_the_function_stays(family: str, tmp_path: Path) -> None:
    teacher = tiny_teacher(family)
    smaller = teacher.without_dead_weights()
    assert (smaller is not teacher) == (family in HAVE_DEAD_WEIGHTS)
    past = torch.randn(3, teacher.variates, teacher.lookback).cumsum(-1)
    with torch.no_grad():
        expected = teacher(past)
        assert (smaller(past) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
        if smaller is teacher:
            return
        assert parameter_count(smaller) < parameter_count(teacher)
        assert smaller.without_dead_weights() is smaller
        save_teacher(smaller, tmp_path)
        assert torch.equal(load_teacher(tmp_path)(past), smaller(past))


@pytest.mark.parametrize("family", sorted(HAVE_DEAD_WEIGHTS))
def test_it_composes_with_pruning(family: str) -> None:
    """Dropped first or last, what remains can be pruned and computes the same."""
    teacher = tiny_teacher(family)
    group = next(group for group in teacher.structure().groups if group.kind == "ffn")
    keep = {group.name: range(0, group.units, 2)}
    first = slice_teacher(teacher.without_dead_weights(), keep)
    last = slice_teacher(teacher, keep).without_dead_weights()
    assert verify_structure(first) < 1e-5
    past = torch.randn(3, teacher.variates, teacher.lookback).cumsum(-1)
    with torch.no_grad():
        expected = first(past)
        assert (last(past) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert parameter_count(first) == parameter_count(last)


@pytest.mark.parametrize(
    ("card", "before", "after"),
    [
        ("moirai-small", 13_827_528, 10_777_000),
        # queries, keys, bias table of 6 blocks gone; values and outputs folded into one matrix each
        ("chronos-bolt-small", 47_718_016, 47_718_016 - 6 * 3 * 512 * 512 - 32 * 8),
    ],
)
def test_published_sizes(card: str, before: int, after: int) -> None:
    config = find_card(card).config
    assert config is not None
    teacher = build_teacher(config, lookback=512, horizon=96, variates=1)
    assert parameter_count(teacher) == before
    assert parameter_count(teacher.without_dead_weights()) == pytest.approx(after, rel=1e-3)


def test_bolt_is_not_folded_when_its_factors_are_smaller() -> None:
    teacher = tiny_teacher("chronos-bolt")
    values = {group.name: [0, 1] for group in teacher.structure().groups if "decoder.block" in group.name}
    values = {name: units for name, units in values.items() if name.endswith("0.SelfAttention.values")}
    assert len(values) == 2
    thin = slice_teacher(teacher, values).without_dead_weights()
    assert any(name.endswith("0.SelfAttention.v.weight") for name in thin.state_dict() if "decoder" in name)


def test_the_pass(unit: CompileUnit, tmp_path: Path) -> None:
    after = PassManager([DropDeadWeights()]).run(unit, PassContext(workspace=tmp_path))
    assert after.teacher is unit.teacher and not after.record[0].modified
    with pytest.raises(PassError, match="no teacher"):
        PassManager([DropDeadWeights()]).run(unit.with_(teacher=None), PassContext())


def test_a_family_that_lies_is_caught(unit: CompileUnit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager compares the forecasts on real windows."""
    assert unit.teacher is not None
    group = unit.teacher.structure().groups[0]

    def lie(self: Teacher) -> Teacher:
        return slice_teacher(self, {group.name: [0]})

    monkeypatch.setattr(type(unit.teacher), "without_dead_weights", lie)
    with pytest.raises(VerificationError, match="drop_dead_weights declares that it preserves the function"):
        PassManager([DropDeadWeights()]).run(unit, PassContext())
