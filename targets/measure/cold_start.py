"""Cold start: loading an artifact and its first call, in fresh processes."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...compiler.base.errors import VerificationError
from ...compiler.base.processes import run_process

REPEATS = 3
TIME_LIMIT_S = 600.0


def cold_start(directory: Path, threads: int = 1) -> dict[str, Any]:
    """Load time, first call and peak memory of an artifact, each time in a fresh process: medians of three.

    The process runs this package's runner with the target's engine (the same text as the artifact's own
    ``run.py``, but no code out of the artifact is executed).

    Returns:
        ``load_ms`` (imports, hashes, opening the engine), ``first_call_ms``, ``peak_rss_mb``, ``n``.

    Raises:
        VerificationError: the artifact does not load.
    """
    from .. import TARGETS
    from ..artifact.device.manifest import read_manifest
    from ..artifact.open import compiler_errors
    from ..artifact.runner import render_runner

    with compiler_errors():
        kind = read_manifest(directory)["target"]["kind"]
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
        script = Path(folder) / "run.py"
        script.write_text(render_runner(TARGETS[kind].engine_source()), encoding="utf-8")
        command = [sys.executable, "-I", str(script), "--artifact", str(directory.resolve())]
        command += ["--threads", str(threads), "bench", "--queries", "0"]
        results = [_run_json(command) for _ in range(REPEATS)]
    names = [name for name, value in results[0].items() if value is not None]
    return {
        **{name: statistics.median(result[name] for result in results) for name in names},
        "n": REPEATS,
    }


def _run_json(command: list[str]) -> dict[str, Any]:
    done = run_process(command, seconds=TIME_LIMIT_S)
    if not done.ok:
        raise VerificationError(
            f"the artifact does not start in a fresh process: {done.last_line or done.ending}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
