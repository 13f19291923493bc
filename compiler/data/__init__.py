"""Data: sources, checks, splits, scaling and windows."""

from .dataset import Dataset, Filled, SpreadWindows, Windows
from .load import load_data
from .load_panel import load_panel
from .panel import Panel, PanelWindows
from .scaling import Scaling
from .sources import KNOWN, known_names
from .splits import PARTS, Part, Splits
from .synthetic import synthetic_windows
from .synthetic_data import SYNTHETIC, SyntheticData, synthetic_data

__all__ = [
    "KNOWN",
    "PARTS",
    "SYNTHETIC",
    "Dataset",
    "Filled",
    "Panel",
    "PanelWindows",
    "Part",
    "Scaling",
    "Splits",
    "SpreadWindows",
    "SyntheticData",
    "Windows",
    "known_names",
    "load_data",
    "load_panel",
    "synthetic_data",
    "synthetic_windows",
]
