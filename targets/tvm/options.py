"""Options of the tvm target."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..base import TargetOptions

Form = Literal["runtime-free", "vm", "both"]
Precision = Literal["fp32", "int8-weights"]


class TvmOptions(TargetOptions):
    """What ``[targets.tvm]`` of a recipe may say.

    Attributes:
        device: a preset (``host``, ``raspberry-pi-4``, ...), or a TVM target dictionary with ``mtriple``.
        form: the runtime-free library, the virtual machine's library, or both.
        batch: windows of one call.  Any other batch runs as several calls: 1 is as good as dynamic.
        tune: measure other register tiles on this machine and keep those that are faster.
        precision: ``int8-weights`` stores matrices as int8 with a scale per column; arithmetic stays float32.
        time_limit_s: for each child process of the compiler.
        cache: whether an equal program compiled before is taken from the cache.
    """

    device: str | dict[str, Any] = "host"
    form: Form = "runtime-free"
    batch: int = Field(default=1, ge=1, le=4096)
    tune: bool = False
    precision: Precision = "fp32"
    time_limit_s: float = Field(default=900.0, gt=0)
    cache: bool = True
