"""The ONNX target: one ``model.onnx`` that onnxruntime executes on any CPU."""

from .target import TARGET, OnnxTarget

__all__ = ["TARGET", "OnnxTarget"]
