"""Golden vectors of the teacher families: those of this project, and more in ``../shared`` where it is.

A case is what an upstream package gave for an input; ``tests/frontends/vectors`` has the script that made it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).resolve().parent
OWN = HERE / "frontends" / "vectors"
SHARED = HERE.parent.parent / "shared" / "golden"


@dataclass(frozen=True)
class Case:
    """One input of one family, and upstream's outputs for it."""

    folder: Path
    name: str
    settings: dict[str, Any] = field(hash=False)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint directory in upstream's format."""
        return checkpoint(self.folder)

    def __getitem__(self, tensor: str) -> Tensor:
        return _vectors(self.folder)[f"{self.name}.{tensor}"]

    def __contains__(self, tensor: object) -> bool:
        return f"{self.name}.{tensor}" in _vectors(self.folder)


def cases(family: str, *, skip: Iterable[str] = ()) -> list[Any]:
    """Every case of a family as a parameter of a test: the project's own first."""
    found = []
    for root, prefix in ((OWN, ""), (SHARED, "shared-")):
        path = root / family / "meta.json"
        if not path.is_file():
            continue
        for name, case in json.loads(path.read_text())["cases"].items():
            if name not in skip:
                found.append(pytest.param(Case(root / family, name, case["settings"]), id=f"{prefix}{name}"))
    return found


@cache
def checkpoint(folder: Path) -> Path:
    """Where the weights lie: in the folder, or drawn from their names into a temporary one."""
    if (folder / "model.safetensors").is_file():
        return folder
    meta = json.loads((folder / "meta.json").read_text())
    holder = tempfile.TemporaryDirectory(prefix="tsfmc-vectors-")
    _HOLDERS.append(holder)
    written = Path(holder.name)
    (written / "config.json").write_text(json.dumps(meta["config"]))
    kind = getattr(torch, meta["dtype"])
    gain = meta.get("gain", 1.0)
    state = {
        name: torch.from_numpy(_draw(name, shape, gain)).to(kind) for name, shape in meta["tensors"].items()
    }
    save_file(state, written / "model.safetensors")
    return written


_HOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _draw(name: str, shape: list[int], gain: float) -> np.ndarray:
    from frontends.vectors.weights import draw

    drawn: np.ndarray = draw(name, shape, gain)
    return drawn


@cache
def _vectors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "golden.safetensors")
