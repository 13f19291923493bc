"""Runs the device's own scripts in child processes, so that a crash in a native library stays there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RTX_MODULE = "tensorrt_rtx_bindings"


@dataclass(frozen=True)
class ChildResult:
    """How a script ended.

    Attributes:
        code: its exit code, negative for a signal, None when the time limit ended it.
        records: the JSON lines on its stdout; a crash leaves those of the levels reached before.
        problem: one line on what went wrong, empty when nothing did.
    """

    code: int | None
    records: tuple[dict[str, Any], ...]
    problem: str

    @property
    def crashed(self) -> bool:
        """Whether it ended neither by itself nor in time."""
        return self.code is None or self.code < 0

    def record(self, level: str) -> dict[str, Any] | None:
        """The record of a level, if it was reached."""
        return next((record for record in self.records if record.get("level") == level), None)


def run_script(script: Path, arguments: list[str], time_limit_s: float) -> ChildResult:
    """Runs ``script`` with this Python and reads its JSON lines."""
    command = [sys.executable, "-B", str(script), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit_s, check=False)
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
        return ChildResult(None, _records(output), f"{script.name} was ended after {time_limit_s:g} s")
    records = _records(done.stdout)
    if done.returncode < 0:
        problem = f"{script.name} was killed by {signal.Signals(-done.returncode).name}"
    elif done.returncode > 0:
        last = records[-1].get("errors") if records else None
        problem = "; ".join(last) if last else (done.stderr.strip().splitlines() or ["no message"])[-1]
    else:
        problem = ""
    return ChildResult(done.returncode, records, problem)


def _records(output: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")
    )
