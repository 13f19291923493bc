"""What the compiler's child process is asked and what it answers; both are JSON files.

Compilation runs in a child because LLVM and TVM are native code: a crash or a hang there must end as
one line, and a time limit must be able to stop it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...compiler.base.errors import LoweringError, MissingError, TsfmcError, VerificationError
from ...compiler.base.processes import run_process
from ...compiler.base.reading import read_json

RUNTIME = ("apache-tvm==0.27.0.post1", "apache-tvm-ffi>=0.1.14.post0,<0.1.15")
PIN = " with ".join(RUNTIME)
MEMORY_BYTES = 16 << 30
"""Address space of the child: LLVM needs a few GiB for the largest programs, the libraries map as much."""
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
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
    done = run_process(command, seconds=time_limit_s, memory_bytes=MEMORY_BYTES, cwd=work, environment=fixed)
    if done.code is None:
        raise LoweringError(
            f"tvm: {job.action} did not finish in {time_limit_s:.0f} s", hint="raise time_limit_s"
        )
    for line in done.stdout.splitlines():
        progress(line)
    if answer.is_file():
        return read_answer(answer)
    where = " inside the compiler" if done.code < 0 else ""
    reason = f": {done.last_line}" if done.last_line else ""
    raise LoweringError(f"tvm: {job.action} {done.ending}{where}{reason}", hint=f"use {PIN}")


def read_answer(answer: Path) -> dict[str, Any]:
    """The child's answer.

    Raises:
        TsfmcError: the refusal that the child wrote down.
    """
    result: dict[str, Any] = read_json(answer, what="answer of the compiler's child", error=LoweringError)
    if "error" in result:
        error = result["error"]
        raise _ERRORS.get(error["kind"], LoweringError)(error["what"], hint=error["hint"])
    return result
