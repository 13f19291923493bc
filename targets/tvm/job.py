"""What the compiler's child process is asked and what it answers; both are JSON files.

Compilation runs in a child because LLVM and TVM are native code: a crash or a hang there must end as
one line, and a time limit must be able to stop it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...compiler.base.errors import LoweringError, MissingError, TsfmcError, VerificationError

RUNTIME = ("apache-tvm==0.27.0.post1", "apache-tvm-ffi>=0.1.14.post0,<0.1.15")
PIN = " with ".join(RUNTIME)
_ERRORS: Mapping[str, type[TsfmcError]] = {
    each.__name__: each for each in (LoweringError, MissingError, VerificationError)
}


@dataclass(frozen=True)
class Job:
    """One run of the child.

    Attributes:
        action: ``compile``, ``tune`` or ``smoke`` (checks that the installed TVM is sound).
        source: ``model.pt2`` or ``model.onnx``.
        shape: ``[B, D, L]``.
        tiles: measured tiles, ``"m,k,n" -> [rows, vectors]``.
        out, work: folders for the payload and for everything else.
    """

    action: str
    source: str = ""
    shape: tuple[int, int, int] = (1, 1, 1)
    horizon: int = 1
    device: Any = "host"
    form: str = "runtime-free"
    precision: str = "fp32"
    tiles: Mapping[str, tuple[int, int]] | None = None
    out: str = ""
    work: str = ""
    tune_log: str = ""


def run_child(
    job: Job, work: Path, time_limit_s: float, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Runs a job in a fresh interpreter and returns its answer.

    Raises:
        LoweringError: the job refused the program, crashed (names the signal) or hit the time limit.
        MissingError: a tool is missing.
    """
    request, answer = work / "job.json", work / "answer.json"
    request.write_text(json.dumps(asdict(job)))
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{__package__}.worker", str(request), str(answer)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
    log = work / "worker.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, cwd=work
        )
        try:
            lines, _ = process.communicate(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LoweringError(
                f"tvm: {job.action} did not finish in {time_limit_s:.0f} s", hint="raise time_limit_s"
            ) from None
        except BaseException:
            process.kill()
            process.communicate()
            raise
    for line in lines.splitlines():
        progress(line)
    if answer.is_file():
        return read_answer(answer)
    raise LoweringError(
        f"tvm: {job.action} {_ending(process.returncode)}{_last_line(log)}", hint=f"use {PIN}"
    )


def read_answer(answer: Path) -> dict[str, Any]:
    """The child's answer.

    Raises:
        TsfmcError: the refusal that the child wrote down.
    """
    result: dict[str, Any] = json.loads(answer.read_text())
    if "error" in result:
        error = result["error"]
        raise _ERRORS.get(error["kind"], LoweringError)(error["what"], hint=error["hint"])
    return result


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name} inside the compiler"
    return f"ended with {code}"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""
