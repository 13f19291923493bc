"""The charts of a report: what is known goes in, a Vega-Lite specification comes out.

Text that others chose (variates, data sets, artifacts) stands in data alone, never in an expression or a name
of a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..driver.evaluation import Curve
from .palette import LABELS, PAGE, Palette, strokes
from .vega import Spec, chart

ROW_HEIGHT = 34
ORDER = ("student", "model", "teacher", "supervised", "seasonal_naive")
PERCENTILES = ("p50_us", "p90_us", "p99_us")
LOG_AXIS: Mapping[str, Any] = {"format": "~s", "tickCount": 4}
DAY = 86_400
MOST_DAYS = 14


def known(names: Iterable[str]) -> list[str]:
    """Those rows that charts know, in their order."""
    given = set(names)
    return [name for name in ORDER if name in given]


def error_bars(rows: Mapping[str, Curve], palette: Palette = PAGE) -> Spec:
    """A bar of the error for each forecaster, with the interval of its level."""
    names = known(rows)
    values = [
        {
            "name": LABELS[name],
            "mse": rows[name].mse,
            "text": f"{rows[name].mse:.4f}",
            **_ends(rows[name].interval),
        }
        for name in names
    ]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"ticks": False}}
    x = {"field": "mse", "type": "quantitative", "title": "mean squared error, scaled data"}
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "height": 16, "cornerRadiusEnd": 2},
            "encoding": {
                "x": x,
                "color": {"field": "name", "scale": palette.scale(names), "legend": None},
            },
        },
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 1.6, "opacity": 0.75},
            "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
        },
    ]
    return chart(
        palette,
        "Test error of each forecaster; a line is the 95 % interval of its level.",
        {"data": {"values": values}, "encoding": {"y": y}, "layer": layers},
        height=ROW_HEIGHT * len(values),
    )


def differences(comparisons: Mapping[str, Mapping[str, Any]], palette: Palette = PAGE) -> Spec:
    """The artifact against each other forecaster in per cent of its error, paired; left of zero is better."""
    names = known(comparisons)
    values = [
        {
            "name": f"against {LABELS[name]}",
            "percent": 100 * comparisons[name]["relative"],
            **_ends(comparisons[name].get("relative_interval"), 100),
        }
        for name in names
    ]
    layers: list[Spec] = [
        {
            "data": {"values": [{"zero": 0}]},
            "mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.6},
            "encoding": {"x": {"field": "zero", "type": "quantitative"}},
        },
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 2.5, "color": palette.colours["student"]},
            "encoding": {
                "y": {"field": "name", "type": "nominal", "sort": None},
                "x": {"field": "low", "type": "quantitative"},
                "x2": {"field": "high"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "color": palette.colours["student"]},
            "encoding": {
                "y": {
                    "field": "name",
                    "type": "nominal",
                    "sort": None,
                    "title": None,
                    "axis": {"ticks": False},
                },
                "x": {
                    "field": "percent",
                    "type": "quantitative",
                    "title": "change of the error, % (left: better)",
                },
            },
        },
    ]
    return chart(
        palette,
        "Difference of the artifact's error from each other forecaster, in per cent, with 95 % interval.",
        {"data": {"values": values}, "layer": layers},
        height=ROW_HEIGHT * max(2, len(values)),
    )


def horizon_curves(rows: Mapping[str, Curve], palette: Palette = PAGE) -> Spec:
    """Error by step ahead."""
    names = known(rows)
    values = [
        {"name": LABELS[name], "step": step, "mse": value}
        for name in names
        for step, value in enumerate(rows[name].steps, start=1)
    ]
    return chart(
        palette,
        "Mean squared error by step ahead, a line for each forecaster.",
        {
            "data": {"values": values},
            **_lines(names, palette, {"field": "step", "type": "quantitative", "title": "step ahead"}),
        },
    )


def time_curves(rows: Mapping[str, Curve], times: Sequence[str], palette: Palette = PAGE) -> Spec:
    """Error over the test split."""
    names = known(rows)
    stamped = bool(times) and not times[0].isdecimal()
    values = [
        {"name": LABELS[name], "time": at if stamped else int(at), "mse": value}
        for name in names
        for at, value in zip(times, rows[name].times, strict=True)
    ]
    x = {
        "field": "time",
        "type": "temporal" if stamped else "quantitative",
        "title": "start of the forecast" if stamped else "test window",
    }
    return chart(
        palette,
        "Mean squared error of neighbouring windows over the test split, a line for each forecaster.",
        {"data": {"values": values}, **_lines(names, palette, x)},
    )


def example_frame(names: Iterable[str], palette: Palette = PAGE) -> Spec:
    """Past, truth and forecasts of one window.  The page fills in ``step``, ``name`` and ``value``."""
    order = ["past", "truth", *known(names)]
    x = {"field": "step", "type": "quantitative", "title": "steps from the start of the forecast"}
    body = _lines(order, palette, x, y="value", title=None)
    body["encoding"]["y"]["scale"] = {"zero": False}
    body["encoding"]["y"]["axis"] = {"format": "~s"}
    body["encoding"]["color"]["legend"] = body["encoding"]["strokeDash"]["legend"] = None
    return chart(
        palette,
        "Past, truth and forecasts of one window in the units of the data.",
        {"data": {"name": "values", "values": []}, **body},
        height=210,
    )


def latency_ranges(rows: Sequence[Mapping[str, Any]], palette: Palette = PAGE) -> Spec:
    """For each candidate its p50, p90 and p99, as far as the sample supports them; time on a log scale."""
    values = [
        {
            "name": row["label"],
            "kind": LABELS[row["kind"]],
            "low": row.get("p50_us", row.get("median_us")),
            "high": max(row[name] for name in (*PERCENTILES, "median_us") if row.get(name)),
        }
        for row in rows
        if row.get("p50_us") or row.get("median_us")
    ]
    points = [
        {"name": row["label"], "kind": LABELS[row["kind"]], "us": row[name], "what": name.removesuffix("_us")}
        for row in rows
        for name in (PERCENTILES if row.get("p50_us") else ("median_us",))
        if row.get(name)
    ]
    kinds = known({row["kind"] for row in rows})
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"ticks": False}}
    scale = {"type": "log", "nice": True}
    colour = {"field": "kind", "type": "nominal", "scale": palette.scale(kinds), "legend": None}
    return chart(
        palette,
        "Latency of artifact and teacher in microseconds: p50, p90 and p99, log scale.",
        {
            "encoding": {"y": y, "color": colour},
            "layer": [
                {
                    "data": {"values": values},
                    "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.5},
                    "encoding": {
                        "x": {"field": "low", "type": "quantitative", "scale": scale},
                        "x2": {"field": "high"},
                    },
                },
                {
                    "data": {"values": points},
                    "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                    "encoding": {
                        "x": {
                            "field": "us",
                            "type": "quantitative",
                            "scale": scale,
                            "title": "microseconds a forecast, log scale",
                            "axis": LOG_AXIS,
                        },
                        "shape": {
                            "field": "what",
                            "type": "nominal",
                            "sort": None,
                            "scale": {
                                "domain": ["p50", "p90", "p99", "median"],
                                "range": ["circle", "square", "triangle-up", "diamond"],
                            },
                            "legend": {
                                "values": sorted({point["what"] for point in points}),
                                "symbolFillColor": palette.ink,
                                "symbolStrokeColor": palette.ink,
                            },
                        },
                    },
                },
            ],
        },
        height=ROW_HEIGHT * max(2, len(values)),
    )


def latency_histogram(rows: Sequence[Mapping[str, Any]], palette: Palette = PAGE) -> Spec:
    """Where the samples lie, for rows with a ``histogram`` of ``edges_us`` and ``counts``."""
    values = []
    for row in rows:
        edges, counts = row["histogram"]["edges_us"], row["histogram"]["counts"]
        total = sum(counts) or 1
        values += [
            {"kind": LABELS[row["kind"]], "low": low, "high": high, "share": 100 * count / total}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
            if count
        ]
    kinds = known({row["kind"] for row in rows})
    return chart(
        palette,
        "Distribution of the latency samples in microseconds, log scale.",
        {
            "data": {"values": values},
            "mark": {"type": "rect", "opacity": 0.75},
            "encoding": {
                "x": {
                    "field": "low",
                    "type": "quantitative",
                    "scale": {"type": "log"},
                    "title": "microseconds a forecast, log scale",
                    "axis": LOG_AXIS,
                },
                "x2": {"field": "high"},
                "y": {"field": "share", "type": "quantitative", "title": "% of calls"},
                "y2": {"datum": 0},
                "color": {"field": "kind", "type": "nominal", "scale": palette.scale(kinds), "title": None},
            },
        },
        height=140,
    )


def pareto(points: Sequence[Mapping[str, Any]], field: str, title: str, palette: Palette = PAGE) -> Spec:
    """Error against a cost.  Points have ``name``, ``kind``, ``mse``, ``front`` and the cost, ``field``."""
    values = [
        {
            "name": point["name"],
            "kind": LABELS[point["kind"]],
            "mse": point["mse"],
            "cost": point[field],
            "front": "yes" if point["front"] else "no",
        }
        for point in points
    ]
    kinds = known({point["kind"] for point in points})
    x = {
        "field": "cost",
        "type": "quantitative",
        "scale": {"type": "log", "nice": True, "padding": 30},
        "title": title,
        "axis": LOG_AXIS,
    }
    y = {
        "field": "mse",
        "type": "quantitative",
        "scale": {"zero": False, "padding": 24},
        "title": "mean squared error",
    }
    return chart(
        palette,
        "Test error of everything in this folder against its cost; below and to the left is better.",
        {
            "data": {"values": values},
            "encoding": {"x": x, "y": y},
            "layer": [
                {
                    "transform": [{"filter": "datum.front == 'yes'"}],
                    "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.4, "strokeWidth": 1.2},
                    "encoding": {"color": {"value": palette.ink}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                    "encoding": {
                        "color": {
                            "field": "kind",
                            "type": "nominal",
                            "scale": palette.scale(kinds),
                            "legend": None,
                        },
                        "shape": {
                            "field": "kind",
                            "type": "nominal",
                            "scale": {
                                "domain": [LABELS[kind] for kind in kinds],
                                "range": ["circle", "diamond", "square", "triangle-up", "cross"][
                                    : len(kinds)
                                ],
                            },
                            "legend": None,
                        },
                    },
                },
                {
                    "mark": {"type": "text", "dy": -13, "fontSize": 11, "limit": 150},
                    "encoding": {"text": {"field": "name", "type": "nominal"}},
                },
            ],
        },
        height=260,
    )


def lag_profile(profile: Sequence[float], step_seconds: float | None, palette: Palette = PAGE) -> Spec:
    """Mean size of the weights by lag; thin lines are whole days."""
    count = len(profile)
    values = [{"lag": count - place, "weight": weight} for place, weight in enumerate(profile)]
    layers: list[Spec] = [
        {
            "data": {"values": values},
            "mark": {"type": "area", "line": {"strokeWidth": 1}, "interpolate": "step", "fillOpacity": 0.25}
            | {"color": palette.colours["student"]},
            "encoding": {
                "x": {
                    "field": "lag",
                    "type": "quantitative",
                    "scale": {"reverse": True, "nice": False, "domain": [1, count]},
                    "axis": {"grid": False},
                    "title": "steps before the forecast",
                },
                "y": {
                    "field": "weight",
                    "type": "quantitative",
                    "scale": {"type": "sqrt"},
                    "stack": None,
                    "axis": {"tickCount": 5},
                    "title": "mean size of a weight, root scale",
                },
            },
        }
    ]
    day = DAY / step_seconds if step_seconds else 0
    if day > 1 and 1 <= count / day <= MOST_DAYS * 8:
        unit = day if count / day <= MOST_DAYS * 2 else 7 * day
        layers.append(
            {
                "data": {"values": [{"lag": unit * n} for n in range(1, int(count / unit) + 1)]},
                "mark": {"type": "rule", "opacity": 0.35, "strokeDash": [2, 3]},
                "encoding": {"x": {"field": "lag", "type": "quantitative"}},
            }
        )
    return chart(
        palette,
        "Mean size of the student's weights by lag: which steps of the past matter.",
        {"layer": layers},
        height=180,
    )


def _lines(
    names: Sequence[str], palette: Palette, x: Spec, y: str = "mse", title: str | None = "mean squared error"
) -> Spec:
    return {
        "mark": {"type": "line"},
        "encoding": {
            "x": x,
            "y": {"field": y, "type": "quantitative", "title": title},
            "color": {"field": "name", "type": "nominal", "scale": palette.scale(names)}
            | {"legend": {"columns": 2}},
            "strokeDash": {"field": "name", "type": "nominal", "scale": strokes(names)},
        },
    }


def _ends(interval: Sequence[float] | None, factor: float = 1) -> dict[str, float]:
    return {"low": factor * interval[0], "high": factor * interval[1]} if interval else {}
