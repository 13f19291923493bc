"""``bench``: artifacts by the one latency rule, alone, against the teacher, or against another artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...targets.artifact.open import Forecaster, open_artifact
from ...targets.measure.latency import Call, LatencyReport, github_action_benchmark, measure, torch_candidate
from ..base.errors import BudgetError, UsageError
from ..base.progress import Progress

COLUMNS = ("artifact", "candidate", "p50 us", "p90 us", "n", "noisy", "speed-up", "interval")
WINDOWS = 64
TEACHER = "teacher"


@dataclass(frozen=True)
class Report:
    """One artifact's run; ``other`` names what it was compared with, or is None."""

    name: str
    other: str | None
    latency: LatencyReport

    @property
    def speedup(self) -> float | None:
        """Median time of the other over that of the artifact."""
        return self.latency.ratio(self.other, "artifact").value if self.other else None

    def to_dict(self) -> dict[str, Any]:
        """For ``--format json``."""
        fields = {"name": self.name, **self.latency.to_manifest()}
        if self.other:
            ratio = self.latency.ratio(self.other, "artifact")
            fields |= {
                "against": self.other,
                "speedup": ratio.value,
                "speedup_interval": [ratio.low, ratio.high],
            }
        return fields

    def rows(self) -> list[tuple[Any, ...]]:
        """For the table."""
        lines = []
        for name, row in self.latency.rows.items():
            speedup = interval = None
            if name == "artifact" and self.other:
                ratio = self.latency.ratio(self.other, "artifact")
                speedup, interval = f"{ratio.value:.1f}x", f"{ratio.low:.1f} to {ratio.high:.1f}"
            facts = row.to_dict()
            lines.append(
                (
                    self.name,
                    name,
                    facts.get("p50_us"),
                    facts.get("p90_us"),
                    facts["n"],
                    facts["noisy"],
                    speedup,
                    interval,
                )
            )
        return lines

    def github_action_benchmark(self) -> list[dict[str, Any]]:
        """Entries of github-action-benchmark, tool ``customSmallerIsBetter``."""
        return github_action_benchmark(self.latency, self.name)


def run(
    artifact: Path,
    *,
    against: str | None = None,
    data: str | None = None,
    teacher: str | None = None,
    threads: int = 1,
    duration_s: float = 5.0,
    progress: Progress,
) -> Report:
    """Measures one artifact.

    Args:
        against: ``"teacher"`` (the one in the manifest, or ``teacher``), or the path of another artifact.
        data: where the windows come from; by default the data set named in the manifest when it is a known
            one, else the artifact's self-test windows, shifted in time.
        teacher: where the teacher's weights are, when the manifest's name is not enough.

    Raises:
        UsageError: the two artifacts do not take the same windows.
    """
    engine = open_artifact(artifact, threads=threads)
    windows = _windows(engine, data)
    name = f"{artifact.parent.name}/{artifact.name}" if artifact.parent.name else artifact.name
    candidates: dict[str, Call] = {"artifact": engine.engine}
    other = None
    if against == TEACHER:
        other = TEACHER
        candidates[TEACHER] = torch_candidate(_teacher(engine, teacher))
    elif against is not None:
        other = Path(against).name if Path(against).name != artifact.name else str(against)
        second = open_artifact(Path(against), threads=threads)
        if second.manifest["task"] != engine.manifest["task"]:
            raise UsageError(
                f"{against} and {artifact} have different tasks",
                hint="compare artifacts of one lookback, horizon and set of variates",
            )
        candidates[other] = second.engine
    progress.line(f"bench {name}" + (f" against {other}" if other else ""))
    return Report(name, other, measure(candidates, windows, threads=threads, duration_s=duration_s))


def check_gates(reports: Sequence[Report], *, min_speedup: float | None, max_p90_us: float | None) -> None:
    """Raises ``BudgetError`` (exit code 4) naming every gate that was missed and by what."""
    missed = []
    for report in reports:
        if min_speedup is not None:
            if report.speedup is None:
                raise UsageError("--min-speedup needs --against", hint="e.g. --against teacher")
            if report.speedup < min_speedup:
                missed.append(f"{report.name}: speed-up {report.speedup:.2f}x, gate {min_speedup:g}x")
        if max_p90_us is not None:
            p90 = report.latency.rows["artifact"].percentile_us("p90_us")
            if p90 is None or p90 > max_p90_us:
                missed.append(f"{report.name}: p90 {p90} us, gate {max_p90_us:g} us")
    if missed:
        raise BudgetError("; ".join(missed))


def _teacher(engine: Forecaster, where: str | None) -> Any:
    from ..frontends import load_teacher

    task = engine.manifest["task"]
    name = where or engine.manifest["teacher"]["name"]
    return load_teacher(
        name, lookback=task["lookback"], horizon=task["horizon"], variates=len(task["variates"])
    )


def _windows(engine: Forecaster, data: str | None) -> np.ndarray:
    """64 windows ``[64, D, L]``, scaled: spread over a data set, or those that the artifact carries."""
    if data is None:
        return engine.example_windows(WINDOWS)
    from ..data import load_data

    task = engine.manifest["task"]
    series = load_data(
        data, lookback=task["lookback"], horizon=task["horizon"], variates=",".join(task["variates"])
    )
    windows = series.windows("test", task["lookback"], task["horizon"])
    return windows.spread(WINDOWS)
