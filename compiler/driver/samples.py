"""Samples: what a device without Python measured, worked out here by the code that works out every record.

Such a device writes its times as they are, turn by turn, and leaves percentiles, spread, modes and words to
``targets/artifact/device/timings.py`` and ``scenarios.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ...targets.artifact.device.rounds import Candidate, Turns, WarmUp
from ...targets.artifact.device.scenarios import LatencyReport, method_words
from ...targets.artifact.device.timings import rows_of

ARTIFACT = "artifact"
NOTES = ("windows rolled from those of the self-test", "by a static program")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SampledTurns(_Part):
    """One scenario: wall time of every counted call, mean processor time of a turn's calls."""

    settle: int = Field(ge=0)
    calls: int = Field(ge=1)
    cpu_ns: list[float] = Field(min_length=1)
    wall_ns: list[list[int]] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> SampledTurns:
        if len(self.cpu_ns) != len(self.wall_ns) or any(len(turn) != self.calls for turn in self.wall_ns):
            raise PydanticCustomError("turns", "every turn has its calls and its processor time")
        if min(self.cpu_ns) < 0 or min(map(min, self.wall_ns)) < 0:
            raise PydanticCustomError("turns", "no time is below 0")
        return self

    def turns(self) -> Turns:
        """As ``run_rounds`` fills them."""
        found = Turns(self.settle, self.calls)
        found.wall_ns, found.cpu_ns = self.wall_ns, self.cpu_ns
        return found


class Samples(_Part):
    """``samples`` of a ``latency.json``."""

    windows: int = Field(ge=1)
    warm_up_calls: int = Field(ge=1)
    evict_mib: int = Field(ge=1)
    cache_kib: int | None = Field(ge=1)
    scenarios: dict[Literal["stream", "interval"], SampledTurns] = Field(min_length=1)

    def worked_out(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The scenarios of a record.

        Args:
            manifest: of the artifact that was measured.
        """
        task = manifest["task"]
        shape = (self.windows, len(task["variates"]), task["lookback"])
        facts = [str(manifest["target"].get("precision", "fp32")), "1 thread"]
        warm = {ARTIFACT: WarmUp(self.warm_up_calls, 0.0, (1, shape[1], task["horizon"]))}
        found: dict[str, Any] = {}
        for scenario, sampled in self.scenarios.items():
            turns = {ARTIFACT: sampled.turns()}
            rows = rows_of(turns, {ARTIFACT: Candidate(np.zeros_like)}, threads=1)
            other_work = self.evict_mib, self.cache_kib
            words = method_words(scenario, rows, turns, warm, shape, facts, other_work, NOTES)
            found[scenario] = LatencyReport(rows, words).record(ARTIFACT, ())
        return found
