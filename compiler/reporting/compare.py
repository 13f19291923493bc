"""``tsfmc compare``: artifacts side by side, each held against the first.

accuracy   every artifact on the same test windows, each difference paired (``learning/compare.py``)
quantiles  of those that have the first's levels: weighted quantile loss and coverage, paired as well
latency    all artifacts in one interleaved run, in one scenario
size, parity, provenance    from the manifests

An artifact regresses against the first when

    error      the whole interval of its relative change lies above +0.05 %, below which errors are rounding;
               likewise of the weighted quantile loss
    latency    the whole interval of its time over the first's lies above 1.05

Where the test split is too short for an interval nothing is concluded from it.  A noisy run is no proof that
nothing got slower: it fails, too, unless it is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...targets.artifact.device.rounds import SCENARIOS, STREAM
from ...targets.artifact.open import Forecaster, open_artifact
from ...targets.measure.latency import measure
from ..base.errors import BudgetError, TsfmcError, UsageError, unknown_name
from ..base.progress import Progress
from ..data import Dataset, known_names
from ..data.as_compiled import load_as_compiled
from ..driver.verdict import NO_CHANGE, signed
from ..learning.compare import Comparison, block_windows, compare
from ..learning.evaluate import Accuracy, Predict, evaluate, naive_scale
from ..learning.quantiles import PredictQuantiles, QuantileAccuracy, evaluate_quantiles
from .figures import bytes_words, figure, ratio_with_interval

SLOWER = 1.05
WINDOWS = 64
FACTS = {
    "teacher": ("teacher", "sha256"),
    "data": ("data", "sha256"),
    "split": ("data", "split"),
    "student": ("student", "name"),
    "target": ("target", "kind"),
    "lookback": ("task", "lookback"),
    "packages": ("environment",),
}
"""What two artifacts may differ in, and where it stands in the manifest."""
COLUMNS = ("artifact", "MSE", "against the first", "median us", "time over the first", "bytes", "parity")


@dataclass(frozen=True)
class Speed:
    """One artifact in the common run; ``ratio`` is its median time over the first's, with its interval."""

    median_us: float
    ratio: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Quantiles:
    """One artifact's quantiles on the common windows; ``loss`` and ``coverage`` are against the first's."""

    row: QuantileAccuracy
    loss: Comparison | None = None
    coverage: Comparison | None = None

    def words(self) -> str:
        """``WQL 0.3329 (+0.4 % [...]), coverage 0.823 (-0.010 [...]), 0.800 expected``."""
        row = self.row
        loss, coverage = f"WQL {row.wql:.4f}", f"coverage {row.coverage:.3f}"
        if self.loss is not None and self.coverage is not None:
            loss += f" ({signed(self.loss.relative, self.loss.relative_interval)})"
            ends = self.coverage.difference_interval
            interval = f" [{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else ""
            coverage += f" ({self.coverage.difference:+.3f}{interval})"
        return f"{loss}, {coverage}, {row.nominal:.3f} expected"

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found = self.row.to_dict()
        if self.loss is not None and self.coverage is not None:
            ends = self.coverage.difference_interval
            found["change"] = self.loss.to_dict()
            found["coverage_change"] = self.coverage.difference
            found["coverage_change_interval"] = ends and list(ends)
        return found


@dataclass(frozen=True)
class Side:
    """One artifact.

    Attributes:
        accuracy: on the common windows, None where there was no data.
        change: against the first; None for the first itself.
        speed: None where no latency was measured.
        quantiles: None where it has not the levels of the first.
        differs: what of its provenance is not the first's, in words.
    """

    name: str
    manifest: Mapping[str, Any]
    accuracy: Accuracy | None = None
    change: Comparison | None = None
    speed: Speed | None = None
    differs: tuple[str, ...] = ()
    quantiles: Quantiles | None = None

    def regressions(self) -> Iterator[str]:
        """Why it is worse than the first, a line each."""
        if self.change is not None and self.change.relative_interval is not None:
            low, _ = self.change.relative_interval
            if low > NO_CHANGE:
                yield f"{self.name}: error {signed(self.change.relative, self.change.relative_interval)}"
        loss = None if self.quantiles is None else self.quantiles.loss
        if loss is not None and loss.relative_interval is not None and loss.relative_interval[0] > NO_CHANGE:
            yield f"{self.name}: quantile loss {signed(loss.relative, loss.relative_interval)}"
        if self.speed is not None and self.speed.interval[0] > SLOWER:
            words = ratio_with_interval(self.speed.ratio, self.speed.interval)
            yield f"{self.name}: {words} the time of the first"

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found: dict[str, Any] = {
            "name": self.name,
            "payload_bytes": self.manifest.get("size", {}).get("payload_bytes"),
            "parity": self.manifest.get("parity"),
            "level": self.manifest["level"],
            "differs": list(self.differs),
            "regressions": list(self.regressions()),
        }
        if self.accuracy is not None:
            found["accuracy"] = self.accuracy.to_dict()
        if self.change is not None:
            found["change"] = self.change.to_dict()
        if self.quantiles is not None:
            found["quantiles"] = self.quantiles.to_dict()
        if self.speed is not None:
            found["latency"] = {
                "median_us": self.speed.median_us,
                "ratio": self.speed.ratio,
                "ratio_interval": list(self.speed.interval),
            }
        return found


@dataclass(frozen=True)
class Outcome:
    """All artifacts, the first of which the others are held against.

    Attributes:
        notes: what was not compared and why, and what limits the comparison.
        methods: how, in words.
        noisy: whether the latency run was.
    """

    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = field(default_factory=tuple)
    noisy: bool = False

    def rows(self) -> list[tuple[Any, ...]]:
        """For a table with ``COLUMNS``."""
        return [_row(side, place == 0) for place, side in enumerate(self.sides)]

    def quantile_lines(self) -> list[str]:
        """What the quantiles of each are worth, and against the first's."""
        return [f"{side.name}: {side.quantiles.words()}" for side in self.sides if side.quantiles is not None]

    def regressions(self, *, allow_noisy: bool = False) -> list[str]:
        """Everything that makes the comparison fail."""
        found = [line for side in self.sides[1:] for line in side.regressions()]
        if self.noisy and not allow_noisy:
            found.append("the latency run is noisy and proves nothing (--allow-noisy, --no-latency)")
        return found

    def check(self, *, allow_noisy: bool = False) -> None:
        """Raises ``BudgetError`` (exit code 4) for a regression."""
        found = self.regressions(allow_noisy=allow_noisy)
        if found:
            raise BudgetError("; ".join(found))

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "artifacts": [side.to_dict() for side in self.sides],
            "notes": list(self.notes),
            "methods": list(self.methods),
            "noisy": self.noisy,
            "regressions": self.regressions(),
        }

    def markdown(self, *, allow_noisy: bool = False) -> str:
        """A comment for a pull request."""
        found = self.regressions(allow_noisy=allow_noisy)
        lines = [
            f"**tsfmc compare**: {'fails' if found else 'no regression'} against {_cell(self.sides[0].name)}"
        ]
        lines += ["", *(f"- {_cell(line)}" for line in found)] if found else []
        lines += ["", _line(COLUMNS), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_line(["-" if cell is None else str(cell) for cell in row]) for row in self.rows()]
        if quantiles := self.quantile_lines():
            lines += ["", *(f"- {_cell(line)}" for line in quantiles)]
        remarks = [*self.notes, *(f"{side.name}: {line}" for side in self.sides for line in side.differs)]
        remarks += self.methods
        if remarks:
            lines += ["", "<details><summary>Method and provenance</summary>", ""]
            lines += [*(f"- {_cell(remark)}" for remark in remarks), "", "</details>"]
        return "\n".join(lines)


def run(
    paths: Sequence[Path],
    *,
    data: str | None = None,
    latency: bool = True,
    scenario: str = STREAM,
    threads: int = 1,
    duration_s: float = 5.0,
    progress: Progress,
) -> Outcome:
    """Compares artifacts, each with the first.

    Args:
        data: where the test windows come from; by default the data set that the first manifest names, where
            it is a known one.  The split is the first artifact's.
        scenario: of the latency, one of ``SCENARIOS``.

    Raises:
        UsageError: an unknown scenario, fewer than two artifacts, or other variates or another horizon than
            the first's.
    """
    if scenario not in SCENARIOS:
        raise unknown_name("scenario", scenario, SCENARIOS)
    if len(paths) < 2:
        raise UsageError("compare takes two artifacts or more", hint="tsfmc compare A B")
    models = [open_artifact(path, threads=threads) for path in paths]
    for path, model in zip(paths[1:], models[1:], strict=True):
        _require_same_task(paths[0], models[0], path, model)
    names = [str(path) for path in paths]
    series, notes = _series(models, data)
    rows = (
        []
        if series is None
        else [_accuracy(model, series, name, progress) for model, name in zip(models, names, strict=True)]
    )
    speeds: list[Speed] = []
    methods: list[str] = []
    noisy = False
    if latency and len({model.lookback for model in models}) > 1:
        notes.append("latency not compared: the lookbacks differ, so the windows do")
    elif latency:
        progress.line(f"latency of all, interleaved: {scenario}")
        windows = models[0].example_windows(WINDOWS) if series is None else _windows(models[0], series)
        speeds, method, noisy = side_by_side(models, windows, threads, duration_s, scenario)
        methods.append(f"latency: {method}")
    quantiles = [] if series is None else _quantiles(models, series, progress)
    sides = []
    for place, (name, model) in enumerate(zip(names, models, strict=True)):
        change = None
        if rows and series is not None and place:
            block = block_windows(series, models[0].lookback, models[0].horizon)
            change = compare(rows[place].window_mse, rows[0].window_mse, block)
            methods.append(f"accuracy: {change.method}")
        sides.append(
            Side(
                name,
                model.manifest,
                rows[place] if rows else None,
                change,
                speeds[place] if speeds else None,
                tuple(_differs(models[0].manifest, model.manifest)) if place else (),
                quantiles[place] if quantiles else None,
            )
        )
    return Outcome(tuple(sides), tuple(notes), tuple(dict.fromkeys(methods)), noisy)


def side_by_side(
    models: Sequence[Forecaster], windows: np.ndarray, threads: int, duration_s: float, scenario: str = STREAM
) -> tuple[list[Speed], str, bool]:
    """All in one run: the speed of each, the method, and whether the run was noisy."""
    names = [f"artifact {place}" for place in range(1, len(models) + 1)]
    report = measure(
        {name: model.engine for name, model in zip(names, models, strict=True)},
        windows,
        scenario=scenario,
        threads=threads,
        duration_s=duration_s,
    )
    speeds = []
    for name in names:
        ratio = report.ratio(name, names[0])
        speeds.append(Speed(report.rows[name].median_us, ratio.value, (ratio.low, ratio.high)))
    return speeds, report.method, report.noisy


def _require_same_task(first: Path, one: Forecaster, path: Path, other: Forecaster) -> None:
    for what, mine, its in (
        ("variates", one.variates, other.variates),
        ("horizon", one.horizon, other.horizon),
        ("step", one.manifest["task"].get("frequency"), other.manifest["task"].get("frequency")),
    ):
        if mine != its:
            raise UsageError(
                f"{path} has {what} {its}, {first} has {mine}",
                hint="only forecasts of the same steps and variates can be compared",
            )


def _series(models: Sequence[Forecaster], data: str | None) -> tuple[Dataset | None, list[str]]:
    """The data of the first artifact with its split, or why there is none."""
    first = models[0].manifest
    known = first.get("data") or {}
    named = str(known.get("name", ""))
    if data is None and named not in known_names():  # a manifest names no file of this machine
        return None, [f"accuracy not compared: {named or 'the data'} is no known data set; give --data"]
    try:
        series = load_as_compiled(
            data or named,
            first["task"],
            lookback=max(model.lookback for model in models),
            horizon=models[0].horizon,
            split=str(known.get("split", "ltsf")).replace("/", ","),
        )
    except TsfmcError as error:
        if data is not None:
            raise
        return None, [f"accuracy not compared: {error.what}; give --data"]
    notes = []
    for model in models:
        its = model.manifest.get("data") or {}
        if its.get("sha256") != series.sha256:
            notes.append(f"{model.manifest['target']['kind']} was compiled on other data than these windows")
        elif its.get("split") != str(series.splits):
            notes.append("an artifact was compiled with another split and may have seen test windows")
    return series, list(dict.fromkeys(notes))


def _accuracy(model: Forecaster, series: Dataset, name: str, progress: Progress) -> Accuracy:
    windows = series.windows("test", model.lookback, model.horizon)
    return evaluate(
        _predictor(model, series), windows, naive_scale(series), progress=progress, title=f"test {name}"
    )


def _predictor(model: Forecaster, series: Dataset) -> Predict:
    """In the scale of the data, whatever the artifact's own is."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        forecast = model.point(series.scaling.unscale(past.double().numpy()))
        return torch.from_numpy(np.asarray(series.scaling.scale(forecast)))

    return predict


def _quantiles(models: Sequence[Forecaster], series: Dataset, progress: Progress) -> list[Quantiles | None]:
    """Of each that has the levels of the first; nothing where that one has none."""
    first = models[0]
    levels = first.quantile_levels
    if not levels:
        return []
    block = block_windows(series, first.lookback, first.horizon)
    found: list[Quantiles | None] = []
    base: QuantileAccuracy | None = None
    for model in models:
        if model.quantile_levels != levels:
            found.append(None)
            continue
        windows = series.windows("test", model.lookback, model.horizon)
        row = evaluate_quantiles(
            _quantile_predictor(model, series), windows, levels, progress=progress, title="quantiles"
        )
        if base is None:
            base = row
            found.append(Quantiles(row))
            continue
        loss = compare(row.window_pinball, base.window_pinball, block)
        found.append(Quantiles(row, loss, compare(row.window_coverage, base.window_coverage, block)))
    return found


def _quantile_predictor(model: Forecaster, series: Dataset) -> PredictQuantiles:
    """In the scale of the data, as ``_predictor``."""

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        forecast = model.forecast(series.scaling.unscale(past.double().numpy()))
        batch, variates, horizon, levels = forecast.shape
        flat = series.scaling.scale(forecast.reshape(batch, variates, horizon * levels))
        return torch.from_numpy(np.asarray(flat)).reshape(batch, variates, horizon, levels)

    return predict


def _windows(model: Forecaster, series: Dataset) -> np.ndarray:
    return series.windows("test", model.lookback, model.horizon).spread(WINDOWS)


def _differs(first: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name, path in FACTS.items():
        mine, its = _at(first, path), _at(other, path)
        if isinstance(mine, Mapping) and isinstance(its, Mapping):
            for key in sorted({*mine, *its}):
                if mine.get(key) != its.get(key):
                    yield f"{key}: {its.get(key)}, the first has {mine.get(key)}"
        elif mine != its:
            yield f"{name}: {_brief(its)}, the first has {_brief(mine)}"


def _at(manifest: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = manifest
    for part in path:
        value = (value or {}).get(part)
    return value


def _brief(value: Any) -> str:
    """Hashes by their first digits."""
    text = str(value)
    return text[:16] if len(text) == 64 else text


def _row(side: Side, first: bool) -> tuple[Any, ...]:
    parity = side.manifest.get("parity")
    return (
        side.name,
        None if side.accuracy is None else figure(side.accuracy.mse),
        None if side.change is None else signed(side.change.relative, side.change.relative_interval),
        None if side.speed is None else figure(side.speed.median_us, 1),
        None if side.speed is None or first else ratio_with_interval(side.speed.ratio, side.speed.interval),
        bytes_words(side.manifest.get("size", {}).get("payload_bytes")),
        None if parity is None else f"{parity['max_rel']:.1e}",
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text that neither ends a cell of a Markdown table nor is read as HTML."""
    for character, escaped in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "\\`"}.items():
        text = text.replace(character, escaped)
    return " ".join(text.split())
