"""Small students of every form, lowered by the c target, for its tests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from required import absent
from torch import nn

from tsfmc.compiler.students import from_config
from tsfmc.targets.base import Payload, Shape, TaskFacts
from tsfmc.targets.c import CTarget
from tsfmc.targets.c.options import COptions

SHAPE = Shape(3, 48, 12)
SIZES = {"lookback": SHAPE.lookback, "horizon": SHAPE.horizon}
EACH = {**SIZES, "variates": SHAPE.variates}
ENCODER = {"width": 16, "layers": 1, "heads": 4, "ffn": 32}
BRANCH = {**ENCODER, "rank": 4, "embedding": 8}
STUDENTS: dict[str, dict[str, Any]] = {
    "dlinear": {"kind": "dlinear", **SIZES},
    "dlinear_last": {"kind": "dlinear", "normalisation": "last", **SIZES},
    "dlinear_each": {"kind": "dlinear", "maps": "per-variate", **EACH},
    "factored": {"kind": "dlinear", "embedding": 8, **SIZES},
    "affine": {"kind": "affine", "bias": True, **SIZES},
    "affine_maps": {"kind": "affine_maps", **EACH},
    "low_rank_map": {"kind": "low_rank_map", "rank": 4, **EACH},
    "itransformer": {"kind": "itransformer", "normalisation": "instance", **SIZES, **ENCODER},
    "folded_itransformer": {"kind": "folded_itransformer", "normalisation": "instance", **SIZES, **ENCODER},
    "residual": {"kind": "residual", "rank": 4, "width": 16, "layers": 2, **EACH},
    "folded_mlp": {"kind": "folded_residual", "maps": "low-rank", "branch": "mlp", **EACH, **BRANCH},
    "folded_branch": {
        "kind": "folded_residual",
        "maps": "per-variate",
        "branch": "itransformer",
        **EACH,
        **BRANCH,
    },
}
TASK = TaskFacts(("load", 'a "b"', "c\\d"), "15min", 900.0, "interpolate", (1.0, -2.0, 0.5), (2.0, 0.5, 1.0))


def windows(shape: Shape = SHAPE) -> np.ndarray:
    """``[16, D, L]`` random walks."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(16, shape.variates, shape.lookback)).cumsum(-1) / 4).astype(np.float32)


def student(name: str) -> nn.Module:
    return filled(STUDENTS[name])


def filled(config: Mapping[str, Any]) -> nn.Module:
    """A student whose empty weights have values."""
    torch.manual_seed(0)
    model = from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.1)
    return model


def lower(
    model: nn.Module, directory: Path, shape: Shape = SHAPE, task: TaskFacts | None = TASK, **options: Any
) -> Payload:
    directory.mkdir(exist_ok=True)
    return CTarget(task).lower_model(
        model, shape, directory, options=COptions(**options), calibration=windows(shape)
    )


def needs(*programs: str) -> None:
    """Ends a test where a program is missing; see ``absent``."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        absent(", ".join(missing))
