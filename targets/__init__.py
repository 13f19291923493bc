"""Targets: where a compiled forecaster runs."""

from ..compiler.base.registry import Registry

TARGETS = Registry(
    "target",
    {
        "c": "targets.c:TARGET",
        "onnx": "targets.onnx:TARGET",
        "trt": "targets.trt:TARGET",
        "tvm": "targets.tvm:TARGET",
    },
    contract="targets.base:Target",
)
"""Kind -> :class:`~tsfmc.targets.base.Target`; plugins join through ``tsfmc.targets``."""
