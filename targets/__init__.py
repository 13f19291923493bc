"""Targets: where a compiled forecaster runs."""

from ..compiler.base.registry import Registry

TARGETS = Registry(
    "target",
    {
        "onnx": "targets.onnx:TARGET",
        "trt": "targets.trt:TARGET",
        "tvm": "targets.tvm:TARGET",
    },
)
