"""The TSFM families, by name."""

from __future__ import annotations

from ..base.registry import Registry

FRONTENDS = Registry(
    "teacher",
    {
        "ttm": "compiler.frontends.ttm.ttm:FRONTEND",
        "fracast": "compiler.frontends.fracast:FRONTEND",
        "chronos-bolt": "compiler.frontends.chronos.bolt:FRONTEND",
        "chronos-2": "compiler.frontends.chronos.chronos2:FRONTEND",
        "moirai": "compiler.frontends.moirai.moirai1:FRONTEND",
        "moirai-2": "compiler.frontends.moirai.moirai2:FRONTEND",
        "time-moe": "compiler.frontends.time_moe:FRONTEND",
        "timer": "compiler.frontends.timer:FRONTEND",
        "timesfm": "compiler.frontends.timesfm:FRONTEND",
    },
    contract="compiler.frontends.base:Frontend",
)
"""Family name -> :class:`~.base.Frontend`; plugins join through the entry-point group ``tsfmc.teachers``."""
