"""Data: sources, checks, splits, scaling and windows."""

from .dataset import Dataset, Filled, SpreadWindows, Windows
from .forecast_io import ForecastInput, read_input, write_forecast
from .load import load_data
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
    "ForecastInput",
    "Part",
    "Splits",
    "SpreadWindows",
    "SyntheticData",
    "Windows",
    "known_names",
    "load_data",
    "read_input",
    "synthetic_data",
    "synthetic_windows",
    "write_forecast",
]
