"""Options of the c target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..base import TargetOptions

Precision = Literal["fp32", "int8-weights", "int8"]


class COptions(TargetOptions):
    """What ``[target_options.c]`` of a recipe may say.

    Attributes:
        device: ``host``, or a name of ``devices.py``: what the Makefile and the measurements are for.  The C
            file is the same for all.
        precision: ``int8-weights`` stores matrices as int8 with a scale per column; arithmetic stays float32.
            ``int8`` multiplies them in integers, with rows of int16: for cores without a floating-point unit.
        time_limit_s: for each run of a compiler or an emulator.
    """

    device: str = "host"
    precision: Precision = "fp32"
    time_limit_s: float = Field(default=120.0, gt=0)
