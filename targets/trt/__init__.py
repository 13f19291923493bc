"""NVIDIA devices through TensorRT.

Engines are bound to the TensorRT version and the GPU, so the artifact carries what a device needs to
build, check and measure its own: see ``device/``.  The compiler proves as much as this machine can.
"""

from __future__ import annotations

from .target import TensorRT

TARGET = TensorRT()
