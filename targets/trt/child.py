"""Runs the device's own scripts in child processes, so that a crash in a native library stays there."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.base.errors import LoweringError
from ...compiler.base.processes import run_process
from ...compiler.base.reading import read_json

RTX_MODULE = "tensorrt_rtx_bindings"
MEMORY_BYTES = 16 << 30
"""Address space of a script that compiles without a GPU."""


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


def run_script(
    script: Path, arguments: list[str], time_limit_s: float, memory_bytes: int | None = None
) -> ChildResult:
    """Runs ``script`` with this Python and reads its JSON lines.

    Args:
        memory_bytes: address space it may have; None where it meets CUDA, which reserves more than there is.
    """
    command = [sys.executable, "-B", str(script), *arguments]
    done = run_process(command, seconds=time_limit_s, memory_bytes=memory_bytes)
    records = _records(done.stdout)
    if done.code is None:
        problem = f"{script.name} was ended after {time_limit_s:g} s"
    elif done.code < 0:
        problem = f"{script.name} {done.ending}"
    elif done.code > 0:
        last = records[-1].get("errors") if records else None
        problem = "; ".join(last) if last else done.last_line or "no message"
    else:
        problem = ""
    return ChildResult(done.code, records, problem)


def _records(output: str) -> tuple[dict[str, Any], ...]:
    lines = (line for line in output.splitlines() if line.startswith("{") and line.endswith("}"))
    return tuple(read_json(line, what="record of the device's script", error=LoweringError) for line in lines)
