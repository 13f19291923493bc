"""Vega-Lite: specifications are plain dictionaries; ``vl-convert`` checks, draws and carries the library."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ..base.errors import MissingError
from .palette import Palette

if TYPE_CHECKING:
    from types import ModuleType

Spec = dict[str, Any]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
VERSION = "6.4"


def converter() -> ModuleType:
    """``vl_convert``.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import vl_convert  # type: ignore[import-untyped]
    except ImportError:
        raise MissingError("charts need vl-convert", hint="pip install 'tsfmc[report]'") from None
    module: ModuleType = vl_convert
    return module


@cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script of about 0.9 MB, which loads nothing."""
    script: str = converter().javascript_bundle(vl_version=VERSION)
    if "</script" in script.lower():
        raise ValueError("the charting library cannot stand inside a page")
    return script


def config(palette: Palette) -> Spec:
    """How every chart looks."""
    ink = palette.ink
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "mark": {"aria": False},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": ink,
            "gridOpacity": 0.12,
            "domain": False,
            "tickColor": ink,
            "tickOpacity": 0.35,
            "labelOverlap": True,
        },
        "legend": {**text, "orient": "top", "title": None, "symbolStrokeWidth": 2.5, "symbolSize": 220},
        "title": {"color": ink, "anchor": "start", "fontSize": 13, "fontWeight": 600},
        "header": {"labelColor": ink, "labelFontSize": 12, "labelFontWeight": 600, "title": None},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
        "line": {"strokeWidth": 1.8},
    }


def chart(palette: Palette, description: str, body: Mapping[str, Any], *, height: int = 240) -> Spec:
    """A whole specification as wide as what it stands in."""
    return {
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": config(palette),
        **body,
    }
