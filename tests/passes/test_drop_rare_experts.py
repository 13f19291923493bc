"""drop_rare_experts: routed tokens are counted, the rare leave, and the rest is the teacher without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factory import HORIZON, LOOKBACK
from tiny_teachers import TINY

from tsfmc.compiler.base.errors import PassError
from tsfmc.compiler.data.dataset import SpreadWindows
from tsfmc.compiler.driver.cache import PassCache
from tsfmc.compiler.driver.manager import PassManager
from tsfmc.compiler.frontends import build_teacher
from tsfmc.compiler.ir.forecaster import Teacher, parameter_count
from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit, fingerprint
from tsfmc.passes.drop_rare_experts import DropRareExperts, frequent_experts
from tsfmc.passes.surgery import masked, verify_structure

BIASED = "model.layers.0.ffn_layer"
SHUNNED = 4


@pytest.fixture
def sparse(unit: CompileUnit) -> CompileUnit:
    """Five experts of which two are chosen.  In the first layer the logits are (a, -a, b, -b, 0): two of the
    first four are always above the last, so that no token is ever routed to expert 4.
    """
    torch.manual_seed(0)
    config = {**TINY["time-moe"][0], "num_experts": 5}
    teacher = build_teacher(
        config, lookback=LOOKBACK, horizon=HORIZON, variates=len(unit.task.variates)
    ).eval()
    with torch.no_grad():
        gate = teacher.get_submodule(f"{BIASED}.gate")
        gate.weight[1], gate.weight[3], gate.weight[SHUNNED] = -gate.weight[0], -gate.weight[2], 0.0
    return unit.with_(teacher=teacher)


def drop(unit: CompileUnit, folder: Path, **options: Any) -> CompileUnit:
    step = DropRareExperts(windows=8, **options)
    return PassManager([step]).run(unit, PassContext(seed=0, workspace=folder))


def teacher_of(unit: CompileUnit) -> Teacher:
    assert unit.teacher is not None
    return unit.teacher


def test_every_token_is_counted_top_k_times(sparse: CompileUnit, tmp_path: Path) -> None:
    metrics = drop(sparse, tmp_path, threshold=0.0).record[0].metrics
    for shares in metrics["share"].values():
        assert sum(shares) == pytest.approx(1.0, abs=1e-4)
        assert max(shares) <= 0.5 + 1e-4  # a token chooses an expert once: half of its two choices
    assert metrics["share"][f"{BIASED}.experts"][SHUNNED] == 0


def test_the_rare_expert_leaves_and_the_rest_is_exact(sparse: CompileUnit, tmp_path: Path) -> None:
    after = drop(sparse, tmp_path, threshold=1e-3)
    before, smaller = teacher_of(sparse), teacher_of(after)
    kept = smaller.config["tsfmc"]["kept"]
    assert kept[f"{BIASED}.experts"] == [0, 1, 2, 3]
    assert parameter_count(smaller) < parameter_count(before)
    verify_structure(smaller)
    past = torch.randn(2, before.variates, before.lookback).cumsum(-1)
    with torch.no_grad(), masked(before, kept):
        expected = before(past)
        assert (smaller(past) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_threshold_zero_and_dense_teachers_stay(
    unit: CompileUnit, sparse: CompileUnit, tmp_path: Path
) -> None:
    for given in (sparse, unit):
        after = drop(given, tmp_path, threshold=0.0)
        assert after.teacher is given.teacher and not after.record[0].modified


def test_top_k_experts_stay_whatever_the_threshold(sparse: CompileUnit) -> None:
    group = teacher_of(sparse).structure()[f"{BIASED}.experts"]
    assert frequent_experts(group, torch.tensor([5, 0, 85, 1, 9]), 0.99) == [2, 4]
    assert frequent_experts(group, torch.tensor([5, 0, 85, 1, 9]), 0.02) == [0, 2, 4]
    assert frequent_experts(group, torch.tensor([5, 0, 85, 1, 9]), 0.0) == [0, 1, 2, 3, 4]


def test_after_recording_it_is_refused(taught: CompileUnit, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="already recorded"):
        drop(taught, tmp_path)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_every_window_is_routed_once(sparse: CompileUnit, tmp_path: Path, batch_size: int) -> None:
    seen: list[torch.Tensor] = []
    hook = teacher_of(sparse).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    options = {"windows": 8, "batch_size": batch_size, "threshold": 0.0}
    DropRareExperts(**options).run(sparse, PassContext(workspace=tmp_path))
    hook.remove()
    windows = SpreadWindows(sparse.data.windows("train", LOOKBACK, HORIZON), 8)
    assert torch.equal(torch.cat(seen), windows.batch(range(8))[0])


def test_the_cache_gives_the_smaller_teacher_back(sparse: CompileUnit, tmp_path: Path) -> None:
    def run() -> CompileUnit:
        step = DropRareExperts(windows=8, threshold=1e-3)
        return PassManager([step], cache=PassCache(tmp_path)).run(sparse, PassContext())

    first, second = run(), run()
    assert second.record[0].cached
    assert fingerprint(teacher_of(first)) == fingerprint(teacher_of(second))
