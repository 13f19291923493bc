"""One mutant in a process of its own: forked from one that has imported everything, bounded and measured."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ADDRESS_SPACE = 6 << 30
"""Beyond what the process has when it is forked: what asks for more fails at once, and not the machine."""
FILE_BYTES = 1 << 30
KEPT = 20_000


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        code: exit code; negative for the signal that ended it; None where the time limit did.
        stdout, stderr: what it wrote; of long ones the end.
        peak_bytes: its largest resident memory, that of the interpreter and all imports included.
    """

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


def run(call: Callable[[], object], folder: Path, seconds: float) -> Ending:
    """Runs ``call`` in a child that works in ``folder``; its exit code is what ``call`` exits with.

    An exception that nobody catches is a traceback and 1, as the interpreter does it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = folder / "stdout", folder / "stderr"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(call, folder, out, err)
    handle = os.pidfd_open(pid)
    try:
        ended = bool(select.select([handle], [], [], seconds)[0])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.close(handle)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status) if ended else None
    return Ending(code, _tail(out), _tail(err), time.monotonic() - began, usage.ru_maxrss << 10)


def _child(call: Callable[[], object], folder: Path, out: Path, err: Path) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for path, number in ((out, 1), (err, 2)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _limit()
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        result = call()
        code = result if isinstance(result, int) else 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def limit_memory() -> None:
    """This process may ask for ``ADDRESS_SPACE`` more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.RLIM_INFINITY))


def _limit() -> None:
    limit_memory()
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - KEPT))
        return stream.read().decode("utf-8", "replace")


def threads() -> int:
    """Threads of this process; it may be forked safely while there is one."""
    return len(list(Path("/proc/self/task").iterdir()))


def load_modules(names: set[str]) -> None:
    """Imports what a child has needed, so that the next ones find it; what cannot be imported is left."""
    from importlib import import_module

    for name in sorted(names - set(sys.modules)):
        with suppress(BaseException):
            import_module(name)
