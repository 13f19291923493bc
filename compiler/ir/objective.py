"""The objective: a list of named, weighted loss terms that passes collect and ``distill`` trains.

    L = sum_k weight_k * term_k(batch)

The default terms are those of paper B, equation for L in section B.1: ``supervised``, ``kd`` (uniform
until ``weight_horizons`` gives it weights) and ``fta`` (added by ``align_temporal``).  A term of
weight 0 is never evaluated, so it cannot change a single bit of the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """What a loss term may read.

    Attributes:
        forecast: the student's forecast ``[B, D, H]``.
        target: the truth ``[B, D, H]``, scaled.
        embedding: the student's variate embeddings ``[B, D, d_S]``, or None.
        teacher_forecast: ``[B, D, H]``, or None when no term needs it.
        teacher_states: normalised states ``[B, D, S, d_T]``, or None when no term needs them.
    """

    forecast: Tensor
    target: Tensor
    embedding: Tensor | None = None
    teacher_forecast: Tensor | None = None
    teacher_states: Tensor | None = None


class LossTerm(nn.Module):
    """A scalar loss of a batch.

    A term with parameters of its own (an aligner) is trained together with the student.
    """

    name: str = "term"
    needs_teacher: bool = False
    needs_states: bool = False
    target: str | None = None
    """``"truth"`` or ``"teacher"`` for a mean of squared differences from it, which is quadratic in an affine
    student; ``"states"`` for one between them and a linear map of the embedding; None for any other loss."""
    tau: float = 0.0
    """Growth of a quadratic term's weights over the horizon."""

    def forward(self, batch: Batch) -> Tensor:
        """The unweighted loss, a scalar."""
        raise NotImplementedError

    def describe(self) -> str:
        """One stable line for the printed unit."""
        return self.name

    @property
    def config(self) -> Mapping[str, Any]:
        """JSON-able arguments from which ``from_config`` builds an equal term (other weights)."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LossTerm:
        """A term as ``config`` describes it."""
        return cls(**config)


@dataclass(frozen=True)
class Objective:
    """Ordered ``(weight, term)`` pairs; names are unique."""

    terms: tuple[tuple[float, LossTerm], ...] = field(default_factory=tuple)

    def put(self, weight: float, term: LossTerm) -> Objective:
        """Adds a term, or replaces the one of the same name in its place."""
        if any(old.name == term.name for _, old in self.terms):
            return Objective(
                tuple((weight, term) if old.name == term.name else (w, old) for w, old in self.terms)
            )
        return Objective((*self.terms, (weight, term)))

    def active(self) -> tuple[tuple[float, LossTerm], ...]:
        """The terms that take part in training: weight other than 0."""
        return tuple((weight, term) for weight, term in self.terms if weight != 0)

    def __iter__(self) -> Iterator[tuple[float, LossTerm]]:
        return iter(self.terms)

    def weight(self, name: str) -> float:
        """Weight of a term, 0 when the objective does not have it."""
        return next((weight for weight, term in self.terms if term.name == name), 0.0)

    @property
    def needs_teacher(self) -> bool:
        """Whether an active term reads the teacher's forecasts."""
        return any(term.needs_teacher for _, term in self.active())

    @property
    def needs_states(self) -> bool:
        """Whether an active term reads the teacher's states."""
        return any(term.needs_states for _, term in self.active())

    def lines(self) -> list[str]:
        """Stable text, a line a term."""
        return [f"{weight:g} * {term.describe()}" for weight, term in self.terms] or ["(empty)"]
