"""Factorized temporal alignment, FTA (paper B, section 2.1).

    Hhat_{b,d,s} = W_out phi((W_s h_{b,d}) * E_s)
    L_FTA = 1/(B D S) sum_{b,d,s} || Hhat_{b,d,s} - H_{b,d,s} ||^2

    h [B, D, d_S]     the student's variate embedding
    H [B, D, S, d_T]  the teacher's states over the lookback, each feature normalised over training
    W_s [u, d_S], E [S, u] ~ N(0, 1)/sqrt(u), W_out [d_T, u], phi = GELU

``reduction = "mean"`` divides the squared norm by d_T, as the release's per-element mean does: with
normalised features an aligner that knows nothing then has a loss of 1, whatever the teacher's width.
The aligner is trained with the student and dropped before lowering: it adds no parameter to the
artifact.

With phi = identity and the mean reduction the term is a regression of the states on the embedding, and
``solve_affine`` solves it exactly for a basis of low rank, with an aligner of as many factors as it takes
(section 2.1.3) in the place of one of ``factors``: see ``learning/state_targets.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..compiler.base.errors import PassError
from ..compiler.ir.forecaster import Student
from ..compiler.ir.objective import Batch, LossTerm
from ..compiler.ir.passes import Pass, PassContext, PassOptions, PassResult
from ..compiler.ir.unit import CompileUnit

Reduction = Literal["paper", "mean"]


class Aligner(nn.Module):
    """``h [B, D, d_S]`` to ``Hhat [B, D, S, d_T]`` through ``u`` factors."""

    def __init__(
        self,
        embedding: int,
        positions: int,
        width: int,
        factors: int,
        phi: Literal["gelu", "identity"] = "gelu",
    ) -> None:
        super().__init__()
        self.config = {
            "embedding": embedding,
            "positions": positions,
            "width": width,
            "factors": factors,
            "phi": phi,
        }
        self.project = nn.Linear(embedding, factors, bias=False)
        self.positions = nn.Parameter(torch.randn(positions, factors) / math.sqrt(factors))
        self.out = nn.Linear(factors, width, bias=False)
        self.phi = nn.GELU() if phi == "gelu" else nn.Identity()

    def forward(self, embedding: Tensor) -> Tensor:
        """All positions at once."""
        factors = self.project(embedding).unsqueeze(-2) * self.positions
        aligned: Tensor = self.out(self.phi(factors))
        return aligned


class FTA(LossTerm):
    """The alignment loss; its aligner's parameters belong to the optimizer."""

    name = "fta"
    needs_states = True

    def __init__(self, aligner: Aligner, reduction: Reduction = "paper") -> None:
        super().__init__()
        self.aligner, self.reduction = aligner, reduction
        self.target = "states" if aligner.config["phi"] == "identity" and reduction == "mean" else None

    def forward(self, batch: Batch) -> Tensor:
        if batch.teacher_states is None or batch.embedding is None:
            raise ValueError("the batch has no states or no embedding")
        squared = (self.aligner(batch.embedding) - batch.teacher_states).square()
        loss: Tensor = squared.mean() if self.reduction == "mean" else squared.sum(dim=-1).mean()
        return loss

    @property
    def config(self) -> Mapping[str, Any]:
        return {**self.aligner.config, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FTA:
        fields = dict(config)
        reduction = fields.pop("reduction")
        return cls(Aligner(**fields), reduction)

    def describe(self) -> str:
        positions, factors = self.aligner.positions.shape
        width = self.aligner.out.out_features
        return f"fta ({self.reduction}) to {positions} positions of width {width} through {factors} factors"


class AlignTemporal(Pass):
    """Adds the FTA term and its aligner."""

    name = "align_temporal"
    reads = frozenset({"student", "teacher_store", "teacher_states", "objective"})
    writes = frozenset({"objective"})
    needs_teacher = True
    summary = "add factorized temporal alignment of the student's embedding with the teacher's states"

    class Options(PassOptions):
        """``factors`` is u of the paper (256 in its release).

        The default reduction is the mean: the sum over d_T makes lambda_fta = 1 mean another weight for
        every teacher, and at d_T = 192 it drowns the other terms.
        """

        lambda_fta: float = 1.0
        factors: int = 256
        phi: Literal["gelu", "identity"] = "gelu"
        reduction: Reduction = "mean"

    def requires(self, unit: CompileUnit) -> None:
        if not isinstance(unit.student, Student):
            raise PassError("there is no student to align", hint="put build_student before it")
        if self._embedding(unit.student) == 0:
            raise PassError(
                "this student has no embedding to align",
                hint="set student.embedding, e.g. --set student.embedding=256, or drop align_temporal",
            )
        if unit.teacher_store is None or unit.teacher_store.state_shape[0] == 0:
            raise PassError("there are no teacher states", hint="write the teacher store with states")

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        assert isinstance(unit.student, Student) and unit.teacher_store is not None  # requires() ran
        positions, width = unit.teacher_store.state_shape
        embedding = self._embedding(unit.student)
        aligner = Aligner(embedding, positions, width, self.options.factors, self.options.phi)
        objective = unit.objective.put(self.options.lambda_fta, FTA(aligner, self.options.reduction))
        parameters = sum(p.numel() for p in aligner.parameters())
        return PassResult(unit.with_(objective=objective), True, {"aligner_parameters": parameters})

    def _embedding(self, student: Student) -> int:
        """Width of what is aligned; a form that is still open has one where a solver makes it low rank."""
        solved = self.options.phi == "identity" and self.options.reduction == "mean"
        if solved and student.solvable and student.config.get("maps") == "auto":
            return int(student.config["rank"])
        return student.embedding_dim
