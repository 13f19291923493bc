"""Names, colours and strokes of what is drawn, the same in every chart.

Hues are those of Okabe and Ito, "Color Universal Design", which people with any colour vision tell apart; a
stroke of its own says the same without colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LABELS: Mapping[str, str] = {
    "past": "past",
    "truth": "truth",
    "student": "artifact",
    "model": "model before lowering",
    "teacher": "teacher",
    "supervised": "without teacher",
    "seasonal_naive": "seasonal naive",
}
STROKES: Mapping[str, list[int]] = {
    "past": [1, 0],
    "truth": [1, 0],
    "student": [1, 0],
    "model": [8, 2],
    "teacher": [6, 3],
    "supervised": [8, 3, 2, 3],
    "seasonal_naive": [2, 3],
}


@dataclass(frozen=True)
class Palette:
    """Colours by name of the series; ``ink`` is that of text, axes and truth."""

    ink: str
    colours: Mapping[str, str]

    def scale(self, names: Iterable[str]) -> dict[str, list[str]]:
        """A Vega-Lite colour scale over the labels of ``names``."""
        known = list(names)
        return {
            "domain": [LABELS[name] for name in known],
            "range": [self.colours.get(name, self.ink) for name in known],
        }


LIGHT = Palette(
    "#1c2128",
    {
        "past": "#1c2128",
        "truth": "#1c2128",
        "student": "#0072b2",
        "model": "#56b4e9",
        "teacher": "#d55e00",
        "supervised": "#009e73",
        "seasonal_naive": "#767676",
    },
)
PAGE = Palette("currentColor", {name: f"var(--{name.replace('_', '-')})" for name in LIGHT.colours})
"""For a page: its style sheet gives light, dark and print their own values."""


def strokes(names: Iterable[str]) -> dict[str, list[object]]:
    """A Vega-Lite scale of dashes over the labels of ``names``."""
    known = list(names)
    return {"domain": [LABELS[name] for name in known], "range": [STROKES[name] for name in known]}
