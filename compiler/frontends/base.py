"""What a TSFM family gives the compiler: cards, a builder, and how to recognise its config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..ir.forecaster import Teacher
from ..ir.provenance import Overlap

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class TeacherCard:
    """A published teacher.

    Attributes:
        name: short name on the command line.
        family: name of the frontend.
        repo_id: hub repository, or None when the weights come with a package.
        revision: hub revision: a commit where a public source gives it, else the branch under which the
            checkpoint is published (see ``pinned``).
        parameters: stored parameters at the published size.
        context: longest lookback in steps.
        licence: SPDX id of the weights' licence.
        commercial: whether the licence allows commercial use.
        quantiles: whether its forecasts have quantiles; or the option that asks for them, where they have
            none without it.
        overlap: data set name -> whether pre-training may have seen it; absent means ``unknown``.
        extra: the optional dependency that has to be installed, or None.
        config: the published architecture configuration where it is known, so that sizes can be
            checked without weights.
    """

    name: str
    family: str
    repo_id: str | None
    revision: str | None
    parameters: int
    context: int
    licence: str
    commercial: bool
    quantiles: bool | str
    overlap: Mapping[str, Overlap] = field(default_factory=dict)
    extra: str | None = None
    config: Mapping[str, Any] | None = None

    @property
    def pinned(self) -> bool:
        """Whether its weights are always the same: a commit of the hub, or a package's own."""
        return self.revision is None or COMMIT.fullmatch(self.revision) is not None


class Frontend:
    """A family.  One instance per family lives in the registry.

    Most families only set ``family`` and ``cards`` and implement ``recognises`` and ``build``;
    strict loading of ``config.json`` + ``model.safetensors`` is shared (``checkpoint.py``).
    """

    family: ClassVar[str]
    cards: ClassVar[tuple[TeacherCard, ...]] = ()
    licence: ClassVar[str] = "unknown"
    """Licence assumed for a local checkpoint of this family."""
    commercial: ClassVar[bool] = False

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a ``config.json`` belongs to this family."""
        raise NotImplementedError

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Teacher:
        """A module with untrained weights; its ``options`` say what the options came to.

        Raises:
            TeacherError: an option of ``config`` that is not implemented, or a lookback or horizon
                that the family cannot take; the message names field, value and what is possible.
        """
        raise NotImplementedError

    def rename(self, state: dict[str, Any]) -> dict[str, Any]:
        """Maps upstream tensor names to the module's own; the identity unless names differ."""
        return state

    def load_package(
        self, name: str, *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> tuple[Teacher, Path]:
        """For weights that come inside a package: the teacher and the weights file (for its sha256).

        Raises:
            MissingError: the package is not installed; the hint names the extra.
        """
        raise NotImplementedError
