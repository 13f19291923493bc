"""The TSFM families, by name."""

from __future__ import annotations

from pathlib import Path

from ..registry import Registry

_FAMILIES = {
    "ttm": "compiler.frontends.ttm:FRONTEND",
    "fracast": "compiler.frontends.fracast:FRONTEND",
    "chronos-bolt": "compiler.frontends.chronos_bolt:FRONTEND",
    "chronos-2": "compiler.frontends.chronos2:FRONTEND",
    "moirai": "compiler.frontends.moirai:FRONTEND",
    "moirai-2": "compiler.frontends.moirai2:FRONTEND",
    "time-moe": "compiler.frontends.time_moe:FRONTEND",
    "timer": "compiler.frontends.timer:FRONTEND",
    "timesfm": "compiler.frontends.timesfm:FRONTEND",
}


def _written(where: str) -> bool:
    return Path(__file__).with_name(where.split(".")[2].split(":")[0] + ".py").is_file()


FRONTENDS = Registry("teacher", {name: where for name, where in _FAMILIES.items() if _written(where)})
"""Family name -> :class:`~.base.Frontend`; plugins join through the entry-point group ``tsfmc.teachers``."""
