"""Cost: three numbers of size, multiply-accumulates by hand, and the table of every pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_teachers import TINY, tiny_teacher

from tsfmc.compiler.data.dataset import SpreadWindows
from tsfmc.compiler.driver.costing import CostInstrument
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.driver.summary import pass_table
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning.cost import cost_of, multiply_accumulates, validation_mse
from tsfmc.compiler.students import build_student
from tsfmc.passes.drop_dead_weights import DropDeadWeights
from tsfmc.passes.prune_channels import PruneChannels
from tsfmc.passes.surgery import slice_teacher


def test_zeros_are_not_removed() -> None:
    teacher = tiny_teacher("ttm")
    before = cost_of(teacher, 2)
    assert before.size_bytes == 4 * before.parameters == 4 * before.nonzero_parameters
    weight = teacher.get_parameter("head.base_forecast_block.weight")
    with torch.no_grad():
        weight.zero_()
    after = cost_of(teacher, 2)
    assert after.nonzero_parameters == before.nonzero_parameters - weight.numel()
    assert (after.parameters, after.macs) == (before.parameters, before.macs)


def test_macs_of_a_linear_map() -> None:
    student = build_student("dlinear", lookback=48, horizon=12)
    assert multiply_accumulates(student, 5, 48) == 5 * 2 * 48 * 12


@pytest.mark.parametrize("family", TINY)
def test_removing_channels_removes_macs(family: str) -> None:
    """Also those of attention, whose products belong to no layer."""
    teacher = tiny_teacher(family)
    for kind in ("ffn", "head"):
        groups = [group for group in teacher.structure().groups if group.kind == kind]
        smaller = slice_teacher(teacher, {group.name: range(group.units // 2) for group in groups})
        got, before = (multiply_accumulates(model, 2, teacher.lookback) for model in (smaller, teacher))
        assert (got < before) == bool(groups)


def test_spread_windows(unit: CompileUnit) -> None:
    windows = unit.data.windows("train", 48, 12)
    some = SpreadWindows(windows, 5)
    assert len(some) == 5 and len(SpreadWindows(windows, 0)) == len(windows)
    expected, _ = windows.batch([0, len(windows) - 1])
    assert torch.equal(some.batch([0, 4])[0], expected)
    assert len(SpreadWindows(windows, 10**6)) == len(windows)


def test_validation_does_not_depend_on_the_batch(unit: CompileUnit) -> None:
    assert unit.teacher is not None
    losses = [validation_mse(unit.teacher, unit, batch_windows=size) for size in (1, 7, 64)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.fixture
def pruned(unit: CompileUnit, tmp_path: Path) -> CompileUnit:
    passes = [DropDeadWeights(), PruneChannels(rho=0.5, epochs=1, tolerance=1e9)]
    return PassManager(passes, [CostInstrument(latency_s=0.2)]).run(unit, PassContext(0, tmp_path))


def test_the_record_says_what_a_pass_bought(unit: CompileUnit, pruned: CompileUnit) -> None:
    assert unit.teacher is not None and pruned.teacher is not None
    untouched, record = pruned.record
    assert "cost" not in untouched.metrics
    cost: Any = record.metrics["cost"]
    assert cost["before"]["parameters"] == cost_of(unit.teacher, 3).parameters
    assert cost["after"]["macs"] == cost_of(pruned.teacher, 3).macs < cost["before"]["macs"]
    assert cost["after"]["validation_mse"] == pytest.approx(
        validation_mse(pruned.teacher, pruned, windows=512), rel=1e-6
    )
    assert cost["speedup_interval"][0] <= cost["speedup"] <= cost["speedup_interval"][1]
    assert {"before", "after"} == set(cost["latency_us"])


def test_the_table_of_the_summary(pruned: CompileUnit) -> None:
    """One row as loaded, one a pass; a pass that changed nothing has its seconds only."""
    entries = [
        {"name": entry.name, "cached": False, "seconds": entry.seconds, "metrics": entry.metrics}
        for entry in pruned.record
    ]
    head, loaded, untouched, changed = pass_table({"passes": entries})
    cost = pruned.record[1].metrics["cost"]
    assert head.split()[:5] == ["passes", "seconds", "stored", "non-zero", "bytes"]
    assert loaded.split()[2:4] == [f"{cost['before'][key]:,}" for key in ("parameters", "nonzero_parameters")]
    assert untouched.split()[0] == "drop_dead_weights" and len(untouched.split()) == 2
    assert changed.split()[2] == f"{cost['after']['parameters']:,}"
    assert changed.endswith(f"{cost['speedup']:.2f}x")
