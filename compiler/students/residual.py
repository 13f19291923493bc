"""A nonlinear student that starts from the exact affine one (residual learning, He et al., CVPR 2016).

    m, s       mean and spread of the window, per variate          x' = x - m
    z = A x'                                                       [B, D, r]
    y = m + affine(x') + gain * s * branch(z / s, log s, v_d)      [B, D, H]

``affine`` is solved and stays as it is: one map, one each, or heads on the basis A.  The branch's last layer
starts at zero, so an untrained student is the affine one.  Everything is shift-equivariant, and scale enters
through log s alone.  ``gain`` is how far the branch is trusted; at 0 the student is affine.

Where a window is constant, s is 0 and so is the branch's share; inside the branch s has a floor, so nothing
is divided by zero and log s is finite: s' = sqrt(s^2 + 1e-5).  z is taken of the centred window, hence
|z| / s' is bounded whatever the window's level.

Branches:
    mlp            gelu layers on [z / s', log s', v_d], v_d a learnt vector a variate
    itransformer   an iTransformer on x' / s'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base.errors import PassError, RecipeError
from ..ir.forecaster import Forecaster, Student
from ..ir.products import product_of_each
from .dlinear import DLinear
from .itransformer import FoldedITransformer, ITransformer
from .normalisation import EPSILON

Branch = Literal["mlp", "itransformer"]
SolvedMaps = Literal["shared", "per-variate", "low-rank"]
START_OPTIONS = ("lookback", "horizon", "variates", "maps", "rank")
"""What a residual student and the affine one that it grows out of have in common."""
LIMITS = ("max_macs", "max_bytes", "max_latency_us", "max_latency_times")
"""Options of the recipe's ``[student]`` that bound what ships, and are not the student's own."""
EMBEDDING = 32
"""Numbers that a branch sees of a window where the affine path has no basis."""
LEVEL_RANGE = 4.0
"""Deviations from its mean that log s is clipped to: a branch says nothing of scales it has never seen."""


def centre(past: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``past [B, D, L]`` to its mean, the centred window, the spread and the spread with its floor."""
    mean = past.mean(dim=-1, keepdim=True)
    centred = past - mean
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return mean, centred, torch.sqrt(variance), torch.sqrt(variance + EPSILON)


class CentredMap(nn.Module):
    """The affine path and the branch's embedding, in coordinates centred by the window's mean.

    Attributes:
        basis: ``[L, r]``, transposed A.
        map: ``[L, H]`` shared, ``[D, L, H]`` per variate, heads ``[D, r, H]`` of low rank.
    """

    def __init__(self, lookback: int, horizon: int, variates: int, maps: SolvedMaps, rank: int) -> None:
        super().__init__()
        self.maps = maps
        shapes = {
            "shared": (lookback, horizon),
            "per-variate": (variates, lookback, horizon),
            "low-rank": (variates, rank, horizon),
        }
        self.basis = nn.Parameter(torch.zeros(lookback, rank), requires_grad=False)
        self.map = nn.Parameter(torch.zeros(shapes[maps]), requires_grad=False)

    def forward(self, centred: Tensor) -> tuple[Tensor, Tensor]:
        """``x' [B, D, L]`` to the forecast less the mean ``[B, D, H]`` and ``z [B, D, r]``."""
        embedding = centred @ self.basis
        if self.maps == "shared":
            return centred @ self.map, embedding
        return product_of_each(embedding if self.maps == "low-rank" else centred, self.map), embedding


class MlpBranch(nn.Module):
    """``layers`` gelu layers on the embedding, the level and a learnt vector a variate."""

    def __init__(
        self,
        variates: int,
        rank: int,
        horizon: int,
        width: int,
        layers: int,
        vector: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.vectors = nn.Parameter(torch.randn(variates, vector) * 0.02)
        self.first = nn.Linear(rank + 1 + vector, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.head = nn.Linear(width, horizon)

    def forward(self, window: Tensor, embedding: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """``embedding [B, D, r]``, ``level [B, D, 1]`` to ``[B, D, H]`` and features ``[B, D, width]``."""
        vectors = self.vectors.expand(embedding.shape[0], -1, -1)
        features = self._layer(self.first, torch.cat([embedding, level, vectors], dim=-1))
        for layer in self.hidden:
            features = self._layer(layer, features)
        return self.head(features), features

    def _layer(self, layer: nn.Module, features: Tensor) -> Tensor:
        return F.dropout(F.gelu(layer(features)), self.dropout, self.training)


class ITransformerBranch(nn.Module):
    """An iTransformer on the window in units of its spread."""

    def __init__(self, lookback: int, horizon: int, **options: Any) -> None:
        super().__init__()
        self.model = ITransformer(lookback, horizon, normalisation="none", **options)

    @property
    def head(self) -> nn.Linear:
        """The last layer, which is the model's: under two names its weights would be exported twice."""
        return self.model.head

    def forward(self, window: Tensor, embedding: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """``window [B, D, L]`` to the correction ``[B, D, H]`` and the encoder's output ``[B, D, width]``."""
        return self.model.forecast_and_embedding(window)


class Residual(Student):
    """The affine student with a branch beside it.

    Args:
        variates: D.
        maps: form of the affine path; ``auto`` leaves it to the solver.
        rank: of a low-rank affine path, whose basis is the branch's embedding too.
        branch: what stands beside the affine path.
        embedding: numbers that the branch sees of a window where the affine path has no basis.
        width, layers, dropout: of the branch.
        vector: numbers learnt of each variate, for ``mlp``.
        heads, ffn: of an ``itransformer``.

    Raises:
        RecipeError: an option out of range.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        variates: int = 1,
        maps: SolvedMaps = "low-rank",
        rank: int = 7,
        branch: Branch = "mlp",
        embedding: int = EMBEDDING,
        width: int = 128,
        layers: int = 2,
        vector: int = 16,
        dropout: float = 0.2,
        heads: int = 4,
        ffn: int = 512,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if branch not in get_args(Branch):
            raise RecipeError(
                f"student.branch={branch!r}", hint=f"expected one of {', '.join(get_args(Branch))}"
            )
        for name, value in (("width", width), ("layers", layers), ("embedding", embedding)):
            if value < 1:
                raise RecipeError(f"student.{name}={value}", hint="expected at least 1")
        self.lookback, self.horizon, self.embedding_dim = lookback, horizon, width
        self.config = {"kind": "residual", **given}
        size = rank if maps == "low-rank" else embedding
        self.affine = CentredMap(lookback, horizon, variates, maps, size)
        self.branch: MlpBranch | ITransformerBranch
        if branch == "mlp":
            self.branch = MlpBranch(variates, size, horizon, width, layers, vector, dropout)
        else:
            self.branch = ITransformerBranch(
                lookback, horizon, width=width, layers=layers, heads=heads, ffn=ffn, dropout=dropout
            )
        nn.init.zeros_(self.branch.head.weight)
        nn.init.zeros_(self.branch.head.bias)
        self.register_buffer("embedding_scale", torch.ones(size))
        self.register_buffer("level_mean", torch.zeros(()))
        self.register_buffer("level_scale", torch.ones(()))
        self.register_buffer("gain", torch.ones(()))
        self.embedding_scale: Tensor
        self.level_mean: Tensor
        self.level_scale: Tensor
        self.gain: Tensor

    @classmethod
    def start(cls, **config: Any) -> Student:
        """The affine student that is solved first; ``add_branch`` grows this one out of it."""
        affine = {name: value for name, value in config.items() if name in START_OPTIONS}
        return DLinear(**{"maps": "auto", **affine})

    @classmethod
    def options(cls) -> set[str]:
        return {*super().options(), *LIMITS}

    @torch.no_grad()
    def restarted(self, arrays: Sequence[Tensor], basis: Tensor, past: Tensor) -> Residual:
        """The same branch beside another affine start.

        Args:
            arrays: ``[H, L]``, ``[D, H, L]``, or a basis ``[r, L]`` and heads ``[D, H, r]``, centred.
            basis: ``[r, L]``, the branch's embedding; that of a low-rank start is its own.
            past: windows ``[N, D, L]`` that embedding and level are brought to unit spread on.
        """
        student = Residual(**{name: value for name, value in self.config.items() if name != "kind"})
        student.load_state_dict(self.state_dict())
        # Centred rows: what is left of a window's mean by rounding stays out.
        student.affine.basis.copy_((basis - basis.mean(dim=1, keepdim=True)).T)
        student.affine.map.copy_(arrays[-1].mT)
        _, centred, _, floored = centre(past)
        embedding = (centred @ student.affine.basis) / floored
        level = torch.log(floored)
        student.embedding_scale.copy_(embedding.flatten(0, 1).std(dim=0).clamp_min(1e-6))
        student.level_mean.copy_(level.mean())
        student.level_scale.copy_(level.std().clamp_min(1e-3))
        return student.eval()

    @torch.no_grad()
    def trusted(self, gain: float) -> Residual:
        """The same student with its branch counted ``gain`` times."""
        student = Residual(**{name: value for name, value in self.config.items() if name != "kind"})
        student.load_state_dict(self.state_dict())
        student.gain.fill_(gain)
        return student.eval()

    @torch.no_grad()
    def affine_start(self) -> Student:
        """The affine student alone."""
        names = ("lookback", "horizon", "variates", "rank")
        config = {name: self.config[name] for name in names}
        arrays = [self.affine.map.mT]
        if self.affine.maps == "low-rank":
            arrays.insert(0, self.affine.basis.T)
        return DLinear.from_affine(self.affine.maps, arrays, **config).eval()

    def parts(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Affine forecast ``[B, D, H]``, the branch's share at gain 1, its features ``[B, D, width]``."""
        mean, centred, spread, floored = centre(past)
        forecast, embedding = self.affine(centred)
        level = (torch.log(floored) - self.level_mean) / self.level_scale
        correction, features = self.branch(
            centred / floored,
            embedding / floored / self.embedding_scale,
            level.clamp(-LEVEL_RANGE, LEVEL_RANGE),
        )
        return forecast + mean, spread * correction, features

    def embed(self, past: Tensor) -> Tensor:
        """The branch's last features, ``[B, D, width]``."""
        return self.parts(past)[2]

    def forecast_and_embedding(self, past: Tensor) -> tuple[Tensor, Tensor]:
        forecast, correction, features = self.parts(past)
        return forecast + self.gain * correction, features

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        return self.forecast_and_embedding(past)[0]

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        return {"folded_residual": FoldedResidual}

    @torch.no_grad()
    def fold(self) -> Forecaster:
        """Scales, the learnt vectors and the gain inside the branch's first and last layer.

        W [e / c, (l - a) / b, v_d] + k  =  (W_e / c) e + (W_l / b) (l - a) + (W_v v_d + k)
        """
        folded = FoldedResidual(**{field.name: self.config[field.name] for field in fields(Shape)})
        folded.affine.load_state_dict(self.affine.state_dict())
        gain = self.gain.double()
        if isinstance(self.branch, ITransformerBranch):
            assert isinstance(folded.branch, FoldedITransformer)
            folded.branch.load_state_dict(self.branch.model.fold().state_dict())
            head = folded.branch.head
            head.weight.copy_(head.weight.double() * gain)
            head.bias.copy_(head.bias.double() * gain)
            return folded
        assert isinstance(folded.branch, FoldedMlp)
        size = len(self.embedding_scale)
        weight = self.branch.first.weight.double()
        vectors = self.branch.vectors.double() @ weight[:, size + 1 :].T
        folded.branch.embedding.copy_((weight[:, :size] / self.embedding_scale).T)
        folded.branch.level.copy_(weight[:, size])
        folded.branch.bias.copy_(vectors + self.branch.first.bias.double())
        folded.branch.level_mean.copy_(self.level_mean)
        folded.branch.level_scale.copy_(self.level_scale)
        folded.branch.hidden.load_state_dict(self.branch.hidden.state_dict())
        folded.branch.head.weight.copy_(self.branch.head.weight.double() * gain)
        folded.branch.head.bias.copy_(self.branch.head.bias.double() * gain)
        return folded


class FoldedMlp(nn.Module):
    """``MlpBranch`` with a bias a variate in the place of concatenated vectors; inference only."""

    def __init__(self, variates: int, rank: int, horizon: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(rank, width))
        self.level = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(variates, width))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.head = nn.Linear(width, horizon)
        self.level_mean = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.level_scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, embedding: Tensor, floored: Tensor) -> Tensor:
        """``z / s' [B, D, r]`` and ``s' [B, D, 1]`` to ``[B, D, H]``."""
        level = (torch.log(floored) - self.level_mean) / self.level_scale
        level = level.clamp(-LEVEL_RANGE, LEVEL_RANGE)
        features = F.gelu(embedding @ self.embedding + level * self.level + self.bias)
        for layer in self.hidden:
            features = F.gelu(layer(features))
        correction: Tensor = self.head(features)
        return correction


@dataclass(frozen=True)
class Shape:
    """What a folded student is built from: the options of ``Residual`` that inference still needs."""

    lookback: int
    horizon: int
    variates: int
    maps: SolvedMaps
    rank: int
    branch: Branch
    embedding: int
    width: int
    layers: int
    heads: int
    ffn: int


class FoldedResidual(Forecaster):
    """What a ``Residual`` folds into: same function, fewer operators.

    Args:
        shape: the fields of ``Shape``.
    """

    def __init__(self, **shape: Any) -> None:
        super().__init__()
        of = Shape(**shape)
        self.lookback, self.horizon = of.lookback, of.horizon
        self.config = {"kind": "folded_residual", **asdict(of)}
        size = of.rank if of.maps == "low-rank" else of.embedding
        self.affine = CentredMap(of.lookback, of.horizon, of.variates, of.maps, size)
        self.branch: FoldedMlp | FoldedITransformer
        if of.branch == "mlp":
            self.branch = FoldedMlp(of.variates, size, of.horizon, of.width, of.layers)
        else:
            self.branch = FoldedITransformer(
                of.lookback, of.horizon, of.width, of.layers, of.heads, of.ffn, "none"
            )

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        mean, centred, spread, floored = centre(past)
        forecast, embedding = self.affine(centred)
        if isinstance(self.branch, FoldedMlp):
            correction = self.branch(embedding / floored, floored)
        else:
            correction = self.branch(centred / floored)
        forecast = forecast + mean
        total: Tensor = forecast + spread * correction
        return total


def grow(solved: Student, basis: Tensor, past: Tensor, **options: Any) -> Residual:
    """A student with an untrained branch beside a solved DLinear: the same function.

    Args:
        solved: what ``solve_affine`` has left.
        basis: ``[r, L]``, the branch's embedding, see ``Residual.restarted``.
        past: training windows ``[N, D, L]``.
        options: of the branch.

    Raises:
        PassError: a student that is not affine.
    """
    if not isinstance(solved, DLinear) or not solved.solvable:
        raise PassError(
            f"{type(solved).__name__} is no solved affine student", hint="put solve_affine before add_branch"
        )
    names = ("lookback", "horizon", "variates", "rank")
    config = {**{name: solved.config[name] for name in names}, **options, "embedding": len(basis)}
    maps = "shared" if solved.maps == "auto" else solved.maps
    student = Residual(**{**config, "maps": maps, "variates": past.shape[1]})
    return student.restarted(solved.centred_arrays(), basis, past)
