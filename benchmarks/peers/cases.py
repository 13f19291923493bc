"""What is compared: the forms of student that a compile ships, and a teacher, at the sizes of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LOOKBACK, HORIZON, WINDOWS = 512, 96, 64


@dataclass(frozen=True)
class Case:
    """A model and the number of variates; ``wanted`` is the ratio to the best peer that is aimed at."""

    name: str
    config: dict[str, Any]
    variates: int
    wanted: float | None = None

    @property
    def label(self) -> str:
        """For the table and the folder."""
        return f"{self.name}-D{self.variates}"


def _encoder(width: int) -> dict[str, Any]:
    heads = 8 if width > 256 else 4
    return {"kind": "itransformer", "width": width, "layers": 1, "heads": heads, "ffn": 4 * width}


def cases() -> list[Case]:
    """Every student at 1, 7 and 21 variates, then the teacher."""
    found = []
    for variates in (1, 7, 21):
        found += [
            Case("shared", {"kind": "affine", "bias": False}, variates, 0.5),
            Case("low-rank", {"kind": "low_rank_map", "rank": 23, "variates": variates}, variates, 0.5),
            Case("itransformer-128", _encoder(128), variates, 0.6),
            Case("itransformer-512", _encoder(512), variates, 0.8),
        ]
    return [*found, Case("ttm-r2", {"teacher": "ttm-r2"}, 7)]


def build(case: Case) -> Any:
    """The model with drawn weights, in eval mode: what a forecast costs does not depend on them."""
    import torch

    from tsfmc.compiler.students import from_config

    torch.manual_seed(0)
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON}
    if "teacher" in case.config:
        from tsfmc.compiler.frontends import build_teacher, find_card

        config = find_card(case.config["teacher"]).config
        return build_teacher(config, **sizes, variates=case.variates).eval()
    model = from_config({**case.config, **sizes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().sum() == 0:
                parameter.normal_(std=0.05)
    return model


def windows(case: Case) -> np.ndarray:
    """``[64, 1, D, L]`` random walks, float32."""
    rng = np.random.default_rng(0)
    shape = (WINDOWS, 1, case.variates, LOOKBACK)
    return (rng.normal(size=shape).cumsum(-1) / 8).astype(np.float32)


def folder(root: Path, case: Case) -> Path:
    """Where a case's files are."""
    return root / case.label
