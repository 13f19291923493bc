"""Data: sources, checks, splits, scaling and windows."""

from .dataset import Dataset, Filled, SpreadWindows, Windows
from .forecast_io import ForecastInput, read_input, write_forecast
from .load import load_data
from .sources import KNOWN, known_names
from .splits import PARTS, Part, Splits

__all__ = [
    "KNOWN",
    "PARTS",
    "Dataset",
    "Filled",
    "ForecastInput",
    "Part",
    "Splits",
    "SpreadWindows",
    "Windows",
    "known_names",
    "load_data",
    "read_input",
    "write_forecast",
]
