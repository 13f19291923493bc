"""Small students of every form, lowered by the TVM target, for its tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tsfmc.compiler.students import from_config
from tsfmc.targets.base import Payload, Shape
from tsfmc.targets.measure.parity import check_parity, hard_windows
from tsfmc.targets.tvm import TARGET, job, target, worker
from tsfmc.targets.tvm.options import TvmOptions

SHAPE = Shape(3, 48, 12)
SIZES = {"lookback": SHAPE.lookback, "horizon": SHAPE.horizon}
ENCODER = {"width": 16, "layers": 1, "heads": 4, "ffn": 32, "normalisation": "instance"}
STUDENTS: dict[str, dict[str, Any]] = {
    "dlinear": {"kind": "dlinear", **SIZES},
    "factored": {"kind": "dlinear", "embedding": 8, **SIZES},
    "itransformer": {"kind": "itransformer", **SIZES, **ENCODER},
    "affine": {"kind": "affine", "bias": True, **SIZES},
    "affine_maps": {"kind": "affine_maps", "variates": SHAPE.variates, **SIZES},
    "low_rank_map": {"kind": "low_rank_map", "variates": SHAPE.variates, "rank": 4, **SIZES},
    "wide_itransformer": {"kind": "itransformer", **SIZES, **ENCODER, "width": 256, "ffn": 256},
    "folded_itransformer": {"kind": "folded_itransformer", **SIZES, **ENCODER},
}


@contextmanager
def worker_here() -> Iterator[None]:
    """Lowers without a new interpreter for the worker, which takes seconds to import torch and TVM."""

    def run(task: job.Job, work: Path, time_limit_s: float, progress: Any = print) -> dict[str, Any]:
        (work / "job.json").write_text(json.dumps(asdict(task)))
        worker.main(work / "job.json", work / "answer.json")
        return job.read_answer(work / "answer.json")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "run_child", run)
        yield


def windows() -> np.ndarray:
    """``[16, D, L]`` random walks."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(16, SHAPE.variates, SHAPE.lookback)).cumsum(-1) / 4).astype(np.float32)


def student(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = from_config(STUDENTS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


def lower(model: nn.Module, directory: Path, lines: list[str] | None = None, **options: Any) -> Payload:
    directory.mkdir(exist_ok=True)
    return TARGET.lower(
        model,
        SHAPE,
        directory,
        options=TvmOptions(**options),
        calibration=windows(),
        progress=(lines if lines is not None else []).append,
    )


def reference(model: nn.Module) -> Any:
    def call(past: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(past)).numpy()  # type: ignore[no-any-return]

    return call


def assert_parity(model: nn.Module, directory: Path, payload: Payload) -> None:
    engine = TARGET.load(directory, payload, threads=1)
    parity = check_parity(engine, reference(model), hard_windows(windows()), 1e-5)
    assert parity.passed, parity.describe()
