"""The TSFM families, by name."""

from __future__ import annotations

from ..registry import Registry

FRONTENDS = Registry(
    "teacher",
    {
        "ttm": "compiler.frontends.ttm:FRONTEND",
        "fracast": "compiler.frontends.fracast:FRONTEND",
        "chronos-bolt": "compiler.frontends.chronos_bolt:FRONTEND",
        "chronos-2": "compiler.frontends.chronos2:FRONTEND",
        "moirai": "compiler.frontends.moirai:FRONTEND",
        "moirai-2": "compiler.frontends.moirai2:FRONTEND",
        "time-moe": "compiler.frontends.time_moe:FRONTEND",
        "timer": "compiler.frontends.timer:FRONTEND",
        "timesfm": "compiler.frontends.timesfm:FRONTEND",
    },
)
"""Family name -> :class:`~.base.Frontend`; plugins join through the entry-point group ``tsfmc.teachers``."""
