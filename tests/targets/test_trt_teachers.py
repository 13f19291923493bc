"""A pruned teacher of every family goes through the TensorRT target in fp16 (Time-MoE by dense experts)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_teachers import TINY, tiny_teacher

from tsfmc.passes.surgery import slice_teacher
from tsfmc.targets.base import Shape
from tsfmc.targets.trt import TARGET
from tsfmc.targets.trt.options import TrtOptions

VARIATES = 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", TINY)
def test_a_pruned_teacher_compiles(family: str, tmp_path: Path) -> None:
    teacher = tiny_teacher(family, variates=VARIATES)
    keep = {group.name: range(max(group.floor, group.units - 1)) for group in teacher.structure().groups}
    pruned = slice_teacher(teacher, {name: tuple(units) for name, units in keep.items()}).eval()
    _, lookback, horizon = TINY[family]
    windows = np.random.default_rng(0).normal(size=(8, VARIATES, lookback)).cumsum(-1).astype(np.float32)
    payload = TARGET.lower_model(
        pruned,
        Shape(VARIATES, lookback, horizon),
        tmp_path,
        options=TrtOptions(precision="fp16", batch={"min": 1, "opt": 1, "max": 2}),
        calibration=windows,
    )
    check = payload.details["ladder"]["compiled_proxy"]
    assert check["compute_capabilities"] == ["SM80", "SM86", "SM89", "SM120"]
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in teacher.parameters())
