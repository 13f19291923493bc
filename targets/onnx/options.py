"""Options of the onnx target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...compiler.base.errors import RecipeError
from ..base import TargetOptions

Precision = Literal["fp32", "int8", "int8-per-tensor"]


class OnnxOptions(TargetOptions):
    """What ``[target_options.onnx]`` of a recipe may say.

    Attributes:
        batch: a fixed batch size; by default the batch stays symbolic.
        static: one window at a time, every size known and plain operators alone, for tool chains of
            microcontrollers and NPUs; the payload then holds calibration windows and vectors, too.
        precision: ``int8`` has a scale for each output channel of a weight, ``int8-per-tensor`` one for all.
            Both are static.
    """

    batch: int | None = Field(default=None, ge=1)
    static: bool = False
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _one_window(self) -> OnnxOptions:
        if self.is_static and self.batch not in (None, 1):
            raise RecipeError(
                f"targets.onnx has batch={self.batch} and static={self.static}, precision={self.precision}",
                hint="a static program takes one window: leave batch out",
            )
        return self

    @property
    def is_static(self) -> bool:
        """Whether every size must be known."""
        return self.static or self.precision != "fp32"

    @property
    def fixed_batch(self) -> int | None:
        """The batch of the program, None for a symbolic one."""
        return 1 if self.is_static else self.batch
