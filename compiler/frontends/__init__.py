"""Teachers by name: one file per TSFM family, and the loader they share."""

from .checkpoint import save_teacher
from .families import FRONTENDS
from .hub import Licence
from .loading import (
    cards,
    find_card,
    load_teacher,
    open_teacher,
    published_licence,
    revision_notes,
)
from .recognise import build_teacher, rebuild_teacher

__all__ = [
    "FRONTENDS",
    "Licence",
    "build_teacher",
    "cards",
    "find_card",
    "load_teacher",
    "open_teacher",
    "published_licence",
    "rebuild_teacher",
    "revision_notes",
    "save_teacher",
]
