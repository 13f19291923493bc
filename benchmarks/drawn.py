"""Models and windows with drawn numbers, for benchmarks of time: a forecast costs the same with any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def student(config: Mapping[str, Any], lookback: int, horizon: int) -> Any:
    """A student, folded or not, in eval mode; weights that start at zero are drawn too."""
    import torch

    from tsfmc.compiler.students import from_config

    torch.manual_seed(0)
    model = from_config({**config, "lookback": lookback, "horizon": horizon}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.05)
    return model


def teacher(name: str, lookback: int, horizon: int, variates: int) -> Any:
    """A published teacher's architecture, in eval mode."""
    import torch

    from tsfmc.compiler.frontends import build_teacher, find_card

    torch.manual_seed(0)
    sizes = {"lookback": lookback, "horizon": horizon, "variates": variates}
    return build_teacher(find_card(name).config, **sizes).eval()


def random_walks(count: int, variates: int, lookback: int) -> np.ndarray:
    """``[count, 1, D, L]`` float32."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(count, 1, variates, lookback)).cumsum(-1) / 8).astype(np.float32)
