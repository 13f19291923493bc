"""The TVM target: scheduled kernels for CPUs, without a runtime on the device.  Start at ``target.py``."""

from .target import TARGET, TvmTarget

__all__ = ["TARGET", "TvmTarget"]
