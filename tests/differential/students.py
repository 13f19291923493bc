"""Drawing students: every form, folded and not, lookback 1 to 720, horizon 1 to 336, 1 to 64 variates."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tsfmc.compiler.ir.forecaster import Student
from tsfmc.compiler.students import from_config
from tsfmc.targets.base import Shape

LOOKBACK, HORIZON, VARIATES = 720, 336, 64
MOST_CELLS = 2_000_000
"""Weights of a drawn student: more take long and show nothing else."""


@dataclass(frozen=True)
class Drawn:
    """A drawn student.

    Attributes:
        name: its form, for the table.
        model: float32, in eval mode.
        shift, scale, permute: which equivariances it has exactly, but for rounding.
        affine: whether it is an affine map of its window.
    """

    name: str
    model: nn.Module
    shape: Shape
    shift: bool
    scale: bool
    permute: bool
    affine: bool


def draw_student(rng: random.Random) -> Drawn:
    """A student with drawn sizes, form and weights."""
    while True:
        shape = Shape(_size(rng, VARIATES), _size(rng, LOOKBACK), _size(rng, HORIZON))
        form = rng.choice(sorted(FORMS))
        config = FORMS[form](rng, shape)
        if _cells(config, shape) <= MOST_CELLS:
            break
    torch.manual_seed(rng.randrange(1 << 30))
    student = from_config({"lookback": shape.lookback, "horizon": shape.horizon, **config}).eval()
    _fill(student, rng)
    assert isinstance(student, Student)
    model: nn.Module = student
    folded = rng.random() < 0.6 and student.fold()
    if folded:
        model = folded.eval()
    return Drawn(
        f"{form}{', folded' if folded else ''}",
        model,
        shape,
        shift=config.get("normalisation", "instance") != "none",
        scale=form in AFFINE and config.get("normalisation", "instance") == "instance" and bool(folded),
        permute=config.get("maps", "shared") == "shared" and form != "residual mlp",
        affine=form in AFFINE,
    )


def _size(rng: random.Random, most: int) -> int:
    """Small sizes as likely as large ones, the ends among them."""
    return rng.choice(
        [1, 2, most, round(most ** rng.random()), round(most ** rng.random()), rng.randint(1, most)]
    )


def _cells(config: dict[str, Any], shape: Shape) -> int:
    maps = shape.variates if config.get("maps") == "per-variate" else 1
    width = config.get("width", 0)
    cells = maps * shape.lookback * shape.horizon + width * (shape.lookback + shape.horizon)
    return cells + shape.variates * shape.horizon * (config.get("rank", 0) + 1)


def _dlinear(rng: random.Random, shape: Shape, **options: Any) -> dict[str, Any]:
    kernel = rng.choice([1, 3, 25, 2 * rng.randint(0, shape.lookback) + 1])
    return {"kind": "dlinear", "kernel": kernel, "variates": shape.variates, **options}


def _shared(rng: random.Random, shape: Shape) -> dict[str, Any]:
    embedding = rng.choice([0, 0, 1, 8, 33])
    return _dlinear(rng, shape, normalisation=rng.choice(["none", "instance", "last"]), embedding=embedding)


def _per_variate(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return _dlinear(rng, shape, maps="per-variate")


def _low_rank(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return _dlinear(rng, shape, maps="low-rank", rank=min(shape.lookback, rng.choice([1, 2, 8, 31, 48])))


def _itransformer(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return {
        "kind": "itransformer",
        **_encoder(rng),
        "normalisation": rng.choice(["none", "instance", "last"]),
    }


def _encoder(rng: random.Random) -> dict[str, Any]:
    heads = rng.choice([1, 2, 4])
    return {
        "heads": heads,
        "width": heads * rng.choice([2, 4, 8]),
        "layers": rng.choice([1, 2]),
        "ffn": rng.choice([3, 16, 32]),
    }


def _residual(rng: random.Random, shape: Shape, **options: Any) -> dict[str, Any]:
    maps = rng.choice(["shared", "per-variate", "low-rank"])
    rank = min(shape.lookback, rng.choice([1, 8, 24]))
    return {
        "kind": "residual",
        "variates": shape.variates,
        "maps": maps,
        "rank": rank,
        "embedding": rng.choice([1, 8, 32]),
        **options,
    }


def _residual_mlp(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return _residual(
        rng,
        shape,
        branch="mlp",
        width=rng.choice([1, 8, 64]),
        layers=rng.choice([1, 2, 3]),
        vector=rng.choice([1, 16]),
    )


def _residual_itransformer(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return _residual(rng, shape, branch="itransformer", **_encoder(rng))


FORMS = {
    "dlinear shared": _shared,
    "dlinear per-variate": _per_variate,
    "dlinear low-rank": _low_rank,
    "itransformer": _itransformer,
    "residual mlp": _residual_mlp,
    "residual itransformer": _residual_itransformer,
}
AFFINE = ("dlinear shared", "dlinear per-variate", "dlinear low-rank")


@torch.no_grad()
def _fill(model: nn.Module, rng: random.Random) -> None:
    """Weights of the size that a sum over its inputs stands; in some students a few are much larger."""
    tail = rng.choice([0.0, 0.0, 0.0, 1.0, 2.0])
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.randn_like(tensor) * torch.exp(tail * torch.randn_like(tensor))
        if name.endswith(("embedding_scale", "level_scale")) or ("norm" in name and name.endswith("weight")):
            drawn = 1 + 0.3 * drawn.abs()
        elif name.endswith("gain"):
            drawn = torch.ones_like(tensor)
        elif tensor.ndim > 1:
            # [outputs, inputs] in linear layers; a residual's own maps are stored transposed.
            inputs = tensor.shape[-2] if name.startswith("affine.") else tensor.shape[-1]
            drawn = drawn / max(1, inputs) ** 0.5
        else:
            drawn = 0.3 * drawn
        tensor.copy_(drawn)
    for name, tensor in model.state_dict().items():
        if name == "affine.basis":  # what every residual student has: rows that do not see the mean
            tensor.sub_(tensor.mean(dim=0, keepdim=True))
