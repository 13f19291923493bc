"""A forecast as a picture: the end of the window and what follows it, a panel for each variate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ...targets.artifact.device.output import Forecast
from ..base.errors import UsageError
from ..base.sealed import placed
from .page import page
from .palette import LIGHT, PAGE, Palette
from .vega import VERSION, Spec, chart, converter

MAX_PANELS = 12
WIDTH, HEIGHT = 760, 150
SCALE = 2.0
"""Pixels of a PNG for each unit of ``WIDTH``."""
KINDS = (".png", ".svg", ".html")


def save_plot(forecast: Forecast, path: Path, title: str) -> str:
    """Draws ``forecast`` to ``path``, complete or not at all; returns a line about what is not in it, or "".

    Raises:
        UsageError: the name of the file says neither PNG, SVG nor HTML.
        MissingError: the extra ``report`` is not installed.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UsageError(
            f"{path}: a plot is written as {', '.join(KINDS)}", hint="name the file after what it is to be"
        )
    shown = list(range(min(len(forecast.variates), MAX_PANELS)))
    content = _html(forecast, shown, title) if kind == ".html" else _image(forecast, shown, kind)
    try:
        with placed(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    left = len(forecast.variates) - len(shown)
    return f"the plot shows the first {len(shown)} variates, {left} more are in the output" if left else ""


def panel(forecast: Forecast, variate: int, palette: Palette) -> Spec:
    """One variate: past and forecast over time, or over steps where time is unknown."""
    horizon = forecast.values.shape[1]
    past = forecast.history.values[variate][-max(horizon, 24) :]
    ahead = forecast.values[variate]
    at = _positions(forecast, len(past))
    # The forecast's line begins at the last known value.
    rows = [
        *({"x": x, "y": float(y), "part": "past"} for x, y in zip(at, past, strict=False)),
        {"x": at[len(past) - 1], "y": float(past[-1]), "part": "forecast"},
        *({"x": x, "y": float(y), "part": "forecast"} for x, y in zip(at[len(past) :], ahead, strict=True)),
    ]
    timed = isinstance(at[0], str)
    colours = {"domain": ["past", "forecast"], "range": [palette.colours["past"], palette.colours["student"]]}
    return chart(
        palette,
        "The end of the window and the forecast of one variate.",
        {
            "data": {"values": rows},
            "mark": {"type": "line"},
            "encoding": {
                "x": {
                    "field": "x",
                    "type": "temporal" if timed else "quantitative",
                    "title": None if timed else "steps from the end of the window",
                },
                "y": {"field": "y", "type": "quantitative", "title": None, "scale": {"zero": False}},
                "color": {"field": "part", "type": "nominal", "scale": colours, "legend": None},
            },
        },
        height=HEIGHT,
    )


def _positions(forecast: Forecast, past: int) -> list[Any]:
    """Time stamps of the past and the future, or steps: 0 is the end of the window."""
    horizon = forecast.values.shape[1]
    times: Sequence[datetime] | None = forecast.times
    if times is None or horizon < 2:
        return list(range(1 - past, horizon + 1))
    step: timedelta = times[1] - times[0]
    return [(times[0] + step * at).isoformat() for at in range(-past, 0)] + [t.isoformat() for t in times]


def _image(forecast: Forecast, shown: Sequence[int], kind: str) -> bytes:
    panels = []
    for variate in shown:
        spec = panel(forecast, variate, LIGHT)
        spec.pop("autosize")
        style = spec.pop("config")
        panels.append({**spec, "width": WIDTH, "title": forecast.variates[variate]})
    whole = {"vconcat": panels, "config": {**style, "background": "white"}, "padding": 12}
    if kind == ".png":
        image: bytes = converter().vegalite_to_png(whole, vl_version=VERSION, scale=SCALE)
        return image
    text: str = converter().vegalite_to_svg(whole, vl_version=VERSION)
    return text.encode()


def _html(forecast: Forecast, shown: Sequence[int], title: str) -> bytes:
    charts = {f"v{variate}": panel(forecast, variate, PAGE) for variate in shown}
    panels = [
        {
            "id": f"v{variate}",
            "name": forecast.variates[variate],
            "rows": [
                [str(stamp), f"{value:.6g}"]
                for stamp, value in zip(forecast.stamps, forecast.values[variate], strict=True)
            ],
        }
        for variate in shown
    ]
    index = forecast.columns[0]
    return page("plot.html.j2", title=title, panels=panels, index=index, charts=charts).encode()
