"""Data: sources, checks, splits, scaling and windows."""

from .dataset import Dataset, Filled, SpreadWindows, Windows
from .load import load_data
from .scaling import Scaling
from .sources import KNOWN, known_names
from .splits import PARTS, Part, Splits

__all__ = [
    "KNOWN",
    "PARTS",
    "Dataset",
    "Filled",
    "Part",
    "Scaling",
    "Splits",
    "SpreadWindows",
    "Windows",
    "known_names",
    "load_data",
]
