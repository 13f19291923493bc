"""Devices by name: which precisions are legal, and what TensorRT-RTX can compile in their place.

TensorRT-RTX compiles for SM75, 80, 86, 89, 120 and 121 only.  Where a device is none of these, a near
architecture stands in (``proxy``): that shows that NVIDIA's compiler takes the model, nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8", "fp8"]

RTX_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")


@dataclass(frozen=True)
class Preset:
    """A family of devices.

    Attributes:
        device: what it is.
        capability: its compute capability.
        precisions: what its hardware and TensorRT take.
        tensorrt: the TensorRT versions to expect, by system software.
        proxy: the compute capability that TensorRT-RTX compiles for instead, its own where it can.
        proxy_precisions: the precisions that TensorRT-RTX compiles for ``proxy``.
    """

    device: str
    capability: str
    precisions: tuple[Precision, ...]
    tensorrt: Mapping[str, str]
    proxy: str
    proxy_precisions: tuple[Precision, ...]

    @property
    def is_native(self) -> bool:
        """Whether TensorRT-RTX compiles for the device itself."""
        return self.proxy == self.capability

    def statement(self) -> str:
        """What a compile check says about this device."""
        if self.is_native:
            return f"{self.capability} is compiled for directly"
        return f"TensorRT-RTX has no {self.capability}: {self.proxy} stands in for {self.device}"


_NO_FP8: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_ALL: tuple[Precision, ...] = (*_NO_FP8, "fp8")
_ANY_TENSORRT = {"Linux or Windows": "10.3 to 11.4"}

PRESETS: Mapping[str, Preset] = {
    "jetson-orin": Preset(
        device="Jetson Orin",
        capability="SM87",
        precisions=_NO_FP8,
        tensorrt={"JetPack 6.2": "10.3", "JetPack 7.2": "10.16", "JetPack 7.2.2": "11.4"},
        proxy="SM86",
        proxy_precisions=_NO_FP8,
    ),
    "jetson-thor": Preset(
        device="Jetson Thor",
        capability="SM110",
        precisions=_ALL,
        tensorrt={"JetPack 7.1": "10.13", "JetPack 7.2": "10.16", "JetPack 7.2.2": "11.4"},
        proxy="SM120",
        proxy_precisions=_ALL,
    ),
    "rtx-40": Preset("GeForce RTX 40", "SM89", _ALL, _ANY_TENSORRT, "SM89", _ALL),
    "rtx-50": Preset("GeForce RTX 50", "SM120", _ALL, _ANY_TENSORRT, "SM120", _ALL),
    "h100": Preset("H100 or H200", "SM90", _ALL, _ANY_TENSORRT, "SM89", _ALL),
    "t4": Preset(
        "T4",
        "SM75",
        _NO_FP8,
        {"Linux or Windows": "10.3 and later, as far as NVIDIA's matrix lists SM75"},
        "SM75",
        ("fp16",),
    ),
}
