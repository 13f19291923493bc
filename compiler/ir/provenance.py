"""Where a teacher comes from: what the manifest says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Overlap = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class TeacherInfo:
    """Provenance of a loaded teacher, carried into the manifest.

    Attributes:
        name: short name, hub id or name of the directory.
        family: name of the frontend.
        parameters: stored ones.
        sha256: of the weights file.
        licence: of the weights.
        commercial: whether it is known to allow commercial use.
        source: where the weights came from, in words.
        pretraining_overlap: whether pre-training may have seen the data, for a teacher without a card.
        revision: what the hub was asked for; empty for local files and packages.
        commit: the hub's commit that was read; empty where that is not known.
    """

    name: str
    family: str
    parameters: int
    sha256: str
    licence: str
    commercial: bool
    source: str
    pretraining_overlap: Overlap = "unknown"
    revision: str = ""
    commit: str = ""
