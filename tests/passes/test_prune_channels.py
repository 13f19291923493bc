"""prune_channels: the schedule, the choice, widths and floors, and a killed run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from factory import write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_teachers import STREAMS, TINY, tiny_teacher
from torch import Tensor

from tsfmc.compiler.base.errors import PassError, VerificationError
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.data import load_data
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.prunable import Group, PrunableStructure
from tsfmc.compiler.ir.unit import CompileUnit, Task, fingerprint
from tsfmc.passes.prune_channels import (
    Candidate,
    PruneChannels,
    PruneOptions,
    choose,
    kept_units,
    least_units,
    removals,
)

ANY = 1e9
"""A tolerance that accepts every candidate: the last one, the smallest, is chosen."""


def prune(unit: CompileUnit, folder: Path, **options: Any) -> CompileUnit:
    step = PruneChannels(**{"tolerance": ANY, "epochs": 2, **options})
    return PassManager([step]).run(unit, PassContext(seed=3, workspace=folder))


def teacher_of(unit: CompileUnit) -> Teacher:
    assert unit.teacher is not None
    return unit.teacher


def widths(unit: CompileUnit) -> dict[str, int]:
    return {group.name: group.units for group in teacher_of(unit).structure().groups}


@pytest.mark.parametrize("nothing", [{"max_ratio": 0.0}, {"rho": 0.0}, {"epochs": 0}, {"kinds": ("head",)}])
def test_ratio_zero_is_the_identity(unit: CompileUnit, tmp_path: Path, nothing: dict[str, Any]) -> None:
    after = prune(unit, tmp_path, **nothing)
    assert after.teacher is unit.teacher and not after.record[0].modified


def test_channels_really_leave(unit: CompileUnit, tmp_path: Path) -> None:
    before = fingerprint(teacher_of(unit))
    after = prune(unit, tmp_path, rho=0.6)
    assert fingerprint(teacher_of(unit)) == before
    assert after.original_teacher is unit.teacher
    assert parameter_count(teacher_of(after)) < 0.8 * parameter_count(teacher_of(unit))
    metrics = after.record[0].metrics
    assert metrics["parameters"] == parameter_count(teacher_of(after))
    assert metrics["parameters_before"] == parameter_count(teacher_of(unit))
    sizes = [candidate["parameters"] for candidate in metrics["candidates"]]
    assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("family", STREAMS)
def test_residual_dims_leave_on_demand(family: str, tmp_path: Path) -> None:
    """Every kind together; without being asked for, the streams stay as wide as they are."""
    _, lookback, horizon = TINY[family]
    data = load_data(write_series(tmp_path / "s.csv", 400, 2), lookback=lookback, horizon=horizon)
    task = Task(lookback, horizon, data.variates, data.frequency)
    unit = CompileUnit(task, data, teacher=tiny_teacher(family))
    options = {"rho": 1.0, "epochs": 1, "score_windows": 64, "validation_windows": 16}
    usual = prune(unit, tmp_path / "usual", **options)
    more = prune(unit, tmp_path / "more", kinds=(*PruneOptions().kinds, "residual"), **options)
    streams = {group.name for group in teacher_of(unit).structure().groups if group.kind == "residual"}
    before, untouched, after = widths(unit), widths(usual), widths(more)
    assert streams and all(untouched[name] == before[name] for name in streams)
    assert all(after[name] == before[name] or after[name] % 8 == 0 for name in streams)
    assert any(after[name] < before[name] for name in streams)
    assert any(after.get(name, 0) < before[name] for name in before.keys() - streams)
    assert parameter_count(teacher_of(more)) < parameter_count(teacher_of(unit))


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_kept_widths_obey_round_to_and_floor(unit: CompileUnit, tmp_path: Path, round_to: int) -> None:
    before, after = widths(unit), widths(prune(unit, tmp_path, rho=1.0, round_to=round_to, floor=5))
    assert after != before
    for name, units in after.items():
        assert units == before[name] or (units % round_to == 0 and units >= 5), name


def test_the_share_that_survives(unit: CompileUnit, tmp_path: Path) -> None:
    """About exp(-rho) an epoch, and never less than max_ratio allows."""
    loose = {"round_to": 1, "floor": 1, "epochs": 2, "batch_size": 4}
    total = sum(widths(unit).values())
    left = sum(widths(prune(unit, tmp_path / "a", rho=0.3, **loose)).values())
    assert left / total == pytest.approx(2.718281828 ** (-0.6), abs=0.01)
    left = sum(widths(prune(unit, tmp_path / "b", rho=2.0, max_ratio=0.25, **loose)).values())
    assert total - left == int(0.25 * total)


def test_per_layer_takes_the_same_share_of_each(unit: CompileUnit, tmp_path: Path) -> None:
    options = {"round_to": 1, "floor": 1, "rho": 0.7, "epochs": 1}
    before = widths(unit)
    after = widths(prune(unit, tmp_path / "layer", scope="per_layer", **options))
    shares = [after[name] / before[name] for name in before]
    assert max(shares) - min(shares) < 0.1
    after = widths(prune(unit, tmp_path / "global", **options))
    shares = [after[name] / before[name] for name in before]
    assert max(shares) - min(shares) > 0.2


def test_whole_branches_may_die(unit: CompileUnit, tmp_path: Path) -> None:
    options = {"rho": 1.5, "epochs": 3, "max_ratio": 1.0, "round_to": 1}
    assert min(widths(prune(unit, tmp_path / "kept", **options)).values()) == 8
    pruned = prune(unit, tmp_path / "dead", remove_branches=True, **options)
    assert min(widths(pruned).values()) == 0


def test_the_unpruned_model_is_a_candidate(unit: CompileUnit, tmp_path: Path) -> None:
    """Without tolerance a pruned model has to be better; patience ends the search."""
    after = prune(unit, tmp_path, tolerance=0.0, rho=3.0, epochs=9)
    losses = [candidate["validation"] for candidate in after.record[0].metrics["candidates"]]
    chosen = after.record[0].metrics["chosen"]
    assert losses[chosen] == min(losses)
    assert len(losses) < 10 and (after.teacher is unit.teacher) == (chosen == 0)


def test_options_change_the_result(unit: CompileUnit, tmp_path: Path) -> None:
    base = {"rho": 0.5, "round_to": 1, "epochs": 1}
    variants: list[dict[str, Any]] = [
        {},
        {"order": 1},
        {"abs": "after_ema"},
        {"alpha": 1.0},
        {"scope": "per_layer"},
        {"accumulation": 3},
    ]
    # Steep derivatives, so that the square of the second order decides between units.
    steep = copy.deepcopy(teacher_of(unit))
    with torch.no_grad():
        for parameter in steep.head.parameters():
            parameter.mul_(10)
    unit = unit.with_(teacher=steep)
    prints = [
        fingerprint(teacher_of(prune(unit, tmp_path / str(at), **base, **variant)))
        for at, variant in enumerate(variants)
    ]
    assert len(set(prints)) == len(variants)


def test_equal_runs_are_equal(unit: CompileUnit, tmp_path: Path) -> None:
    one, two = (prune(unit, tmp_path / name, rho=0.5) for name in "ab")
    assert fingerprint(teacher_of(one)) == fingerprint(teacher_of(two))
    assert one.record[0].metrics == two.record[0].metrics


class Killed(Exception):
    pass


class Kill(Silent):
    """Stops the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= bool(note)
        if self.left == 0:
            raise Killed

    @contextmanager
    def task(self, title: str, total: int) -> Any:
        yield self


@pytest.mark.parametrize("after", [1, 5, 13, 17])
def test_a_killed_run_goes_on(
    unit: CompileUnit, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsfmc.passes.prune_channels.CHECKPOINT_SECONDS", 0.0)
    step = PruneChannels(rho=0.5, epochs=2, tolerance=ANY)
    whole = step.run(unit, PassContext(3, tmp_path / "whole"))
    with pytest.raises(Killed):
        step.run(unit, PassContext(3, tmp_path / "killed", Kill(after)))
    assert (tmp_path / "killed" / "prune.safetensors").is_file()
    resumed = step.run(unit, PassContext(3, tmp_path / "killed"))
    assert resumed.metrics == whole.metrics
    assert fingerprint(teacher_of(resumed.unit)) == fingerprint(teacher_of(whole.unit))


def test_the_cache_gives_the_pruned_teacher_back(unit: CompileUnit, tmp_path: Path) -> None:
    def run() -> CompileUnit:
        manager = PassManager([PruneChannels(rho=0.5, tolerance=ANY)], cache=PassCache(tmp_path))
        return manager.run(unit, PassContext())

    first, second = run(), run()
    assert second.record[0].cached and second.original_teacher is unit.teacher
    assert fingerprint(teacher_of(first)) == fingerprint(teacher_of(second))


def test_refusals(unit: CompileUnit, taught: CompileUnit, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no teacher to prune"):
        prune(unit.with_(teacher=None), tmp_path)
    with pytest.raises(PassError, match="already recorded"):
        prune(taught, tmp_path)
    teacher_of(unit).structure = lambda: PrunableStructure(())  # type: ignore[method-assign]
    with pytest.raises(PassError, match="Ttm declares no prunable structure"):
        prune(unit, tmp_path)


def test_a_broken_structure_is_refused_before_any_work(unit: CompileUnit, tmp_path: Path) -> None:
    teacher = teacher_of(unit)
    first, *rest = teacher.structure().groups
    broken = Group(first.name, first.kind, first.units, first.members[:2], first.taps)
    teacher.structure = lambda: PrunableStructure((broken, *rest))  # type: ignore[method-assign]
    with pytest.raises(VerificationError, match=r"fc2\.weight"):
        prune(unit, tmp_path)


def candidate(epoch: int, parameters: int, validation: float) -> Candidate:
    return Candidate(epoch, {}, 100 - parameters, parameters, validation)


def test_choice() -> None:
    found = [candidate(0, 100, 1.0), candidate(1, 80, 0.98), candidate(2, 60, 0.99), candidate(3, 40, 1.2)]
    assert [choose(found, tolerance).epoch for tolerance in (0.0, 0.02, 0.5)] == [1, 2, 3]
    assert choose([candidate(0, 100, 1.0), candidate(1, 100, 1.0)], 0.0).epoch == 0


@settings(max_examples=60, deadline=None)
@given(
    units=st.integers(1, 70),
    round_to=st.sampled_from([1, 4, 8, 16]),
    kind=st.sampled_from(["ffn", "head", "value", "expert"]),
    seed=st.integers(0, 99),
)
def test_kept_units_are_legal(units: int, round_to: int, kind: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    alive, score = torch.rand(units, generator=generator) < 0.5, torch.rand(units, generator=generator)
    options = PruneOptions(round_to=round_to)
    kept = kept_units(Group("g", kind, units, (), ()), alive, score, options)
    assert set(alive.nonzero().flatten().tolist()) <= set(kept)
    step = 1 if kind in ("head", "expert") else round_to
    assert len(kept) == units or (len(kept) % step == 0 and len(kept) - int(alive.sum()) < step)
    revived = [unit for unit in kept if not alive[unit]]
    left = [unit for unit in range(units) if unit not in kept]
    assert not revived or not left or min(score[revived]) >= max(score[left])


def fresh(groups: Mapping[str, Group]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    scores = {name: 1.0 + torch.arange(group.units) for name, group in groups.items()}
    alive = {name: torch.ones(group.units, dtype=torch.bool) for name, group in groups.items()}
    return scores, alive


def test_removal_is_global_ascending_and_respects_floors() -> None:
    groups = {name: Group(name, "ffn", 10, (), ()) for name in "ab"}
    scores, alive = fresh(groups)
    scores["b"] += 0.5
    picked = list(removals(groups, scores, alive, 99, PruneOptions(floor=7)))
    assert picked == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    alive["a"][:3] = False
    assert list(removals(groups, scores, alive, 2, PruneOptions(floor=7))) == [("b", 0), ("b", 1)]


def test_units_of_a_dead_expert_are_not_ranked() -> None:
    structure = tiny_teacher("time-moe").structure()
    groups = {group.name: group for group in structure.groups}
    scores, alive = fresh(groups)
    experts, inside = "model.layers.0.ffn_layer.experts", "model.layers.0.ffn_layer.experts.1.units"
    scores[inside].zero_()
    options = PruneOptions(floor=1)
    assert next(removals(groups, scores, alive, 1, options)) == (inside, 0)  # a dead branch goes first
    alive["model.residual"][3] = False  # every parameter has lost a dim: that is no sign of a dead expert
    assert next(removals(groups, scores, alive, 1, options)) == (inside, 0)
    alive[experts][1] = False
    assert inside not in {name for name, _ in removals(groups, scores, alive, 10_000, options)}


def test_least_units() -> None:
    ffn, head, router = (
        Group("g", kind, 12, (), (), removable=kind != "expert") for kind in ("ffn", "head", "expert")
    )
    assert [least_units(group, PruneOptions()) for group in (ffn, head, router)] == [8, 1, 1]
    dying = PruneOptions(remove_branches=True)
    assert [least_units(group, dying) for group in (ffn, head, router)] == [0, 0, 1]
    assert least_units(ffn, PruneOptions(kinds=("head",))) == 12


def test_a_batch_of_one_window_is_the_smallest() -> None:
    assert PruneChannels(batch_size=1).options.batch_size == 1
    with pytest.raises(ValidationError, match="batch_size"):
        PruneChannels(batch_size=0)
