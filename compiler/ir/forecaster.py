"""The one contract of every model in the compiler, teacher or student.

Shapes: B batch, D variates, L lookback, H horizon, Q quantile levels, S teacher positions over
the lookback (special tokens dropped), d the width of a state.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import RecipeError
from ..base.reading import read_toml
from ..data.inputs import InputGroup
from .prunable import PrunableStructure


class Forecaster(nn.Module):
    """A module with ``forward(past [B, D, L]) -> [B, D, H]``, rebuilt from ``config`` and its state dict."""

    config: Mapping[str, Any]
    """JSON-able description from which an equal module (other weights) can be built."""
    lookback: int
    horizon: int
    inputs: tuple[InputGroup, ...] = ()
    """What stands in a row after its lookback; none for a model of the window alone."""

    def forward(self, past: Tensor) -> Tensor:
        """Point forecast ``[B, D, H]`` of ``past [B, D, L]``, in the units of ``past``."""
        raise NotImplementedError


class Student(Forecaster):
    """A variate-wise student; the embedding is what FTA aligns with the teacher's states."""

    embedding_dim: int

    @classmethod
    def preset(cls, kind: str) -> Mapping[str, Any]:
        """What a recipe with this student starts from, over ``base.toml`` and under what the user gives:
        the TOML file beside its module that is named after the kind, where there is one.

        Args:
            kind: the name that the student is registered under.

        Raises:
            RecipeError: the file is not TOML.
        """
        path = Path(inspect.getfile(cls)).with_name(f"{kind}.toml")
        return read_toml(path, what="preset", error=RecipeError, finite=False) if path.is_file() else {}

    def embed(self, past: Tensor) -> Tensor:
        """Variate embeddings ``[B, D, d_S]`` of ``past [B, D, L]``."""
        raise NotImplementedError

    def forecast_and_embedding(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` and ``embed`` in one evaluation: ``([B, D, H], [B, D, d_S])``."""
        raise NotImplementedError

    @classmethod
    def start(cls, **config: Any) -> Student:
        """What is built first, untrained: itself, or the student that a later pass grows it out of."""
        return cls(**config)

    @classmethod
    def options(cls) -> set[str]:
        """Names that ``[student]`` of a recipe may give."""
        return set(inspect.signature(cls).parameters) - {"lookback", "horizon"}

    @property
    def solvable(self) -> bool:
        """Whether ``from_affine`` can make it: an instance-normalised affine map of the window."""
        return False

    @classmethod
    def from_affine(cls, form: Any, arrays: Any, **config: Any) -> Student:
        """The student that is a solved map, in coordinates centred by the window's mean.

        Args:
            form: ``shared``, ``per-variate`` or ``low-rank``.
            arrays: ``[H, L]``, ``[D, H, L]``, or a basis ``[r, L]`` and heads ``[D, H, r]``.
            config: that of the student it replaces.
        """
        raise NotImplementedError(f"{cls.__name__} is not affine")

    def fold(self) -> Forecaster | None:
        """The same function with fewer operators, for inference only; None for a student that has no such
        form.  The class of what is returned stands in ``folded_forms``."""
        return None

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        """What ``fold`` may return, by the ``kind`` in its ``config``, so that it can be rebuilt."""
        return {}


@dataclass(frozen=True)
class TeacherOutputs:
    """What one evaluation of a teacher gives.

    Attributes:
        forecast: ``[B, D, H]``.
        quantiles: ``[B, D, H, Q]``, or None for a family without quantiles.
        states: ``[B, D, S, d]``, or None when they were not asked for.
    """

    forecast: Tensor
    quantiles: Tensor | None = None
    states: Tensor | None = None


class Teacher(Forecaster):
    """A pretrained TSFM with fixed lookback, horizon and number of variates.

    A family implements ``forward`` and ``states``, overrides ``outputs`` where one evaluation can
    give all of them, and ``quantiles`` where it has them.
    """

    quantile_levels: tuple[float, ...] = ()
    variates: int
    options: Mapping[str, Any] = {}
    """The options of its family that it was built with, defaults filled in, but for those that only follow
    from the task."""
    dead_tensors: frozenset[str] = frozenset()
    """Upstream tensors without any effect that this module was built without; a checkpoint may hold them."""

    def states(self, past: Tensor) -> Tensor:
        """Last-layer states over the lookback ``[B, D, S, d]``."""
        raise NotImplementedError

    def quantiles(self, past: Tensor) -> Tensor:
        """Quantile forecasts ``[B, D, H, Q]`` at ``quantile_levels``."""
        raise NotImplementedError(f"{type(self).__name__} has no quantiles")

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Everything the teacher store keeps, in as few evaluations as the family allows."""
        return TeacherOutputs(
            forecast=self(past),
            quantiles=self.quantiles(past) if self.quantile_levels else None,
            states=self.states(past) if states else None,
        )

    def structure(self) -> PrunableStructure:
        """Coupled channel groups (paper A, section A.3); empty for a family that cannot be pruned."""
        return PrunableStructure(())

    def sample_major(self) -> AbstractContextManager[object]:
        """Inside, every activation keeps the samples outermost: ``[B * n, ..., channels]``.

        Per-sample derivatives rely on it.  A family that regroups tokens across samples overrides it.
        """
        return nullcontext()

    def without_dead_weights(self) -> Teacher:
        """The same function, exactly, without weights that cannot act; itself when there are none."""
        return self


def parameter_count(module: nn.Module) -> int:
    """Stored parameters; tied tensors count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def nonzero_count(module: nn.Module) -> int:
    """Parameters that are not exactly zero.  Zeros are never called removed."""
    with torch.no_grad():
        return sum(int(torch.count_nonzero(parameter)) for parameter in module.parameters())
