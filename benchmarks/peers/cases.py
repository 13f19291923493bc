"""What is compared: the forms of student that a compile ships, and a teacher, at the sizes of the tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # workers are started in this folder

import drawn

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
    """The model with drawn weights, in eval mode."""
    if "teacher" in case.config:
        return drawn.teacher(case.config["teacher"], LOOKBACK, HORIZON, case.variates)
    return drawn.student(case.config, LOOKBACK, HORIZON)


def windows(case: Case) -> np.ndarray:
    """``[64, 1, D, L]`` random walks, float32."""
    return drawn.random_walks(WINDOWS, case.variates, LOOKBACK)


def folder(root: Path, case: Case) -> Path:
    """Where a case's files are."""
    return root / case.label
