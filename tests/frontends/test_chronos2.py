"""Chronos-2 against its golden vectors and the package, and through export."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from golden import Case, cases
from tiny_teachers import WHOLE

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import build_teacher, load_teacher, save_teacher
from tsfmc.compiler.frontends.chronos.cards import CHRONOS_2_CARDS
from tsfmc.compiler.ir.forecaster import parameter_count

TINY = WHOLE["chronos-2"][0]
TASK = {"lookback": 40, "horizon": 20, "variates": 3}


@pytest.mark.parametrize("case", cases("chronos-2", skip=["ragged_groups"]))
def test_golden(kit: Any, case: Case) -> None:
    """Grouped series are variates of a window; independent ones are windows, or variates that do not mix."""
    count, length = case["context"].shape
    batch, variates = case.settings.get("batch", count), case.settings.get("variates", 1)
    shapes = [(batch, variates, case.settings.get("joint", True))]
    if case.name == "independent":
        shapes = [(count, 1, True), (1, count, False)]
    for batch, variates, joint in shapes:
        past, horizon = case["context"].reshape(batch, variates, length), case.settings["horizon"]
        teacher = load_teacher(
            case.checkpoint, lookback=length, horizon=horizon, variates=variates, joint=joint
        )
        with torch.no_grad():
            outputs = teacher.outputs(past)
        quantiles = case["quantiles"].reshape(batch, variates, horizon, -1)
        kit.close(outputs.quantiles, quantiles)
        kit.close(outputs.forecast, quantiles[..., quantiles.shape[-1] // 2])
        if "hidden_context" in case:
            kit.close(outputs.states.flatten(0, 1), case["hidden_context"], 0, 5e-4)


def test_the_dummy_checkpoint_of_the_package_loads(shared: Path) -> None:
    teacher = load_teacher(shared / "weights" / "dummy-chronos2-model", lookback=100, horizon=96, variates=3)
    with torch.no_grad():
        assert teacher(torch.randn(1, 3, 100)).isfinite().all()


@pytest.mark.parametrize(("length", "missing"), [(40, 0.0), (37, 0.3), (90, 0.9), (3, 0.0)])
@pytest.mark.parametrize("joint", [True, False])
def test_equals_the_package(kit: Any, length: int, missing: float, joint: bool) -> None:
    upstream = Chronos2Model(Chronos2CoreConfig(**deepcopy(dict(TINY)))).eval()
    kit.randomise(upstream)
    teacher = build_teacher(TINY, lookback=length, horizon=20, variates=3, joint=joint)
    teacher.model.load_state_dict(upstream.state_dict(), strict=True)
    past = torch.randn(2, 3, length).cumsum(-1)
    past[torch.rand(past.shape) < missing] = torch.nan
    groups = torch.tensor([0, 0, 0, 1, 1, 1]) if joint else None
    with torch.no_grad():
        expected = upstream(past.reshape(6, length), group_ids=groups, num_output_patches=3).quantile_preds
        kit.close(teacher.quantiles(past).flatten(0, 1), expected[..., :20].transpose(1, 2))


def test_save_and_load(kit: Any, tmp_path: Path) -> None:
    teacher = kit.tiny_teacher(TINY, **TASK, joint=False)
    upstream = {name.removeprefix("model."): tensor for name, tensor in teacher.state_dict().items()}
    kit.write_checkpoint(tmp_path / "theirs", TINY, upstream)
    save_teacher(teacher, tmp_path / "ours")
    past = torch.randn(2, 3, 40)
    with torch.no_grad():
        kit.close(load_teacher(tmp_path / "theirs", **TASK, joint=False)(past), teacher(past), 0, 0)
        kit.close(load_teacher(tmp_path / "ours")(past), teacher(past), 0, 0)
    assert TINY["chronos_config"]["max_output_patches"] == 4


def test_export(kit: Any, tmp_path: Path) -> None:
    kit.assert_exports(kit.tiny_teacher(TINY, **TASK), tmp_path / "chronos2.onnx")


def test_published_sizes_follow_from_the_configuration() -> None:
    counts = {}
    for card in CHRONOS_2_CARDS:
        if card.config is not None:
            with torch.device("meta"):
                teacher = build_teacher(card.config, lookback=512, horizon=96, variates=7)
            counts[card.name] = parameter_count(teacher)
            assert counts[card.name] == card.parameters
    assert {name: round(count / 1e6, 2) for name, count in counts.items()} == {
        "chronos-2": 119.48,
        "chronos-2-small": 28.26,
    }


@pytest.mark.parametrize(
    ("change", "task", "message"),
    [
        ({}, {"horizon": 33}, "horizon 33 is beyond the 32 steps of one pass"),
        ({"d_model": "12"}, {}, "d_model is '12'"),
        ({"chronos_config": {**TINY["chronos_config"], "use_reg_token": False}}, {}, "use_reg_token=False"),
        ({"chronos_config": {**TINY["chronos_config"], "input_patch_stride": 4}}, {}, "input_patch_stride=4"),
        ({}, {"groups": 2}, "no option 'groups'"),
    ],
)
def test_what_cannot_be_built_is_named(change: dict[str, Any], task: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        build_teacher({**TINY, **change}, **{**TASK, **task})
