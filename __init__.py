"""tsfmc: an edge-deployment compression compiler for time-series foundation models.

>>> import tsfmc
>>> result = tsfmc.compile(teacher="fracast", data="sample", target="onnx", out="out")
>>> forecast = tsfmc.load(result.artifacts["onnx"]).forecast(past)

The attributes below are imported on first use, so ``import tsfmc`` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "compile": "compiler.api",
    "bench": "compiler.api",
    "teach": "compiler.api",
    "update": "compiler.api",
    "load": "compiler.api",
    "load_data": "compiler.data",
    "load_teacher": "compiler.frontends",
    "TsfmcError": "compiler.base.errors",
}

__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'tsfmc' has no attribute {name!r}")
    return getattr(import_module(f".{_FACE[name]}", __name__), name)
