"""Options of ``[targets.trt]``, checked before anything is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ...compiler.base.errors import RecipeError
from ..base import TargetOptions
from .presets import PRESETS, RTX_CAPABILITIES, Precision, Preset

Level = Literal["exported", "parsed", "compiled_proxy", "device_built", "executed"]
LADDER: tuple[Level, ...] = ("exported", "parsed", "compiled_proxy", "device_built", "executed")
"""What has been shown about an artifact, from the least to the most; a level stands for all below it."""


class BatchProfile(BaseModel):
    """Batch sizes of one engine: smallest, the one to tune for, largest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: PositiveInt = 1
    opt: PositiveInt = 1
    max: PositiveInt = 32

    @model_validator(mode="after")
    def _ordered(self) -> BatchProfile:
        if not self.min <= self.opt <= self.max:
            raise RecipeError(
                f"targets.trt.batch has min={self.min}, opt={self.opt}, max={self.max}",
                hint="they have to satisfy min <= opt <= max",
            )
        return self

    @property
    def is_static(self) -> bool:
        """Whether the program has one batch size."""
        return self.min == self.max


class TrtOptions(TargetOptions):
    """What to build for an NVIDIA device.

    Attributes:
        preset: a device family, see ``presets.py``; None for any.
        precision: of the linear layers; it is written into the graph.
        batch: one size, or ``{min, opt, max}``.
        require: the level that has to be reached, or the compilation ends with exit code 3.
        compute_capabilities: what TensorRT-RTX compiles for, e.g. ``["SM86", "SM89"]``; by default the
            preset's own or its stand-in, without a preset every one that takes the precision.
        time_limit_s: for each child process that runs NVIDIA's compiler.
    """

    preset: Literal["jetson-orin", "jetson-thor", "rtx-40", "rtx-50", "h100", "t4"] | None = None
    precision: Precision = "fp32"
    batch: BatchProfile = Field(default_factory=BatchProfile)
    require: Level = "exported"
    compute_capabilities: tuple[str, ...] = ()
    time_limit_s: PositiveFloat = 600.0

    @field_validator("batch", mode="before")
    @classmethod
    def _one_size(cls, value: object) -> object:
        return {"min": value, "opt": value, "max": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _legal(self) -> TrtOptions:
        chosen = self.chosen
        if chosen is not None and self.precision not in chosen.precisions:
            fits = [name for name, other in PRESETS.items() if self.precision in other.precisions]
            raise RecipeError(
                f"targets.trt.precision={self.precision} is not possible on {chosen.device}"
                f" ({chosen.capability})",
                hint=f"use {', '.join(chosen.precisions)}, or one of the presets {', '.join(fits)}",
            )
        for name in self.compute_capabilities:
            if name not in RTX_CAPABILITIES:
                raise RecipeError(
                    f"targets.trt.compute_capabilities has {name!r}; TensorRT-RTX cannot compile for it",
                    hint=f"it knows {', '.join(RTX_CAPABILITIES)}; a preset chooses a stand-in",
                )
        return self

    @property
    def fixed_batch(self) -> int | None:
        """The program's one batch size, or None for a symbolic one."""
        return self.batch.max if self.batch.is_static else None

    @property
    def chosen(self) -> Preset | None:
        """The preset's table entry."""
        return PRESETS[self.preset] if self.preset else None

    def check_capabilities(self) -> tuple[str, ...]:
        """What the compile check names; empty where TensorRT-RTX cannot compile this for the preset."""
        if self.compute_capabilities:
            return self.compute_capabilities
        if self.chosen is not None:
            return (self.chosen.proxy,) if self.precision in self.chosen.proxy_precisions else ()
        return ("SM89", "SM120") if self.precision == "fp8" else ("SM80", "SM86", "SM89", "SM120")
