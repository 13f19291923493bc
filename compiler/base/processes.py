"""The one way to run another program: its whole group is bounded in time and memory, and its log in length.

A compiler, a linker or an emulator may start children of its own, and those may outlive it and hold its
pipes.  So every program gets a session of its own, writes into files and not into pipes, and when it ends,
in whatever way, the session is killed, and with it the sessions that its own children have opened.  Memory is
the address space of each process (``RLIMIT_AS``).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from .errors import MissingError

LOG_BYTES = 1 << 20
"""What is kept of each stream: its end."""
_LIMITED = 'ulimit -v "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes:
        code: its exit code, negative for the signal that ended it, None when the time limit did.
        stdout, stderr: the last ``LOG_BYTES`` of each stream.
        seconds: wall time.
    """

    program: str
    code: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.code == 0

    @property
    def ending(self) -> str:
        """``ended with 2``, ``was ended by SIGSEGV``, ``did not finish in 30 s``."""
        if self.code is None:
            return f"did not finish in {self.seconds:.0f} s"
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        return f"ended with {self.code}"

    @property
    def last_line(self) -> str:
        """The last line with text on stderr, else on stdout, at most 200 characters; may be empty."""
        for stream in (self.stderr, self.stdout):
            lines = [line.strip() for line in stream.splitlines() if line.strip()]
            if lines:
                return lines[-1][:200]
        return ""


def run_process(
    command: Sequence[str | Path],
    *,
    seconds: float,
    memory_bytes: int | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    package: str = "",
) -> Finished:
    """Runs a program to its end, or ends it.

    Args:
        command: the program, looked up on ``PATH``, and its arguments.
        seconds: wall time after which the program and everything it started is killed.
        memory_bytes: address space that each of its processes may have; None for no limit.
        environment: added to this process's own.
        package: what installs the program, for the hint.

    Raises:
        MissingError: there is no such program.
    """
    program = str(command[0])
    found = shutil.which(program)
    if found is None:
        raise MissingError(f"{program} is not installed", hint=f"install {package or program}")
    arguments = [found, *(str(argument) for argument in command[1:])]
    if memory_bytes is not None:
        arguments = ["/bin/sh", "-c", _LIMITED, "sh", str(memory_bytes // 1024), *arguments]
    began = time.monotonic()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_all(process)
        took = time.monotonic() - began
        return Finished(Path(program).name, code, _tail(stdout), _tail(stderr), took)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Everything that is still in the program's group, which lives as long as one member does, and its
    descendants in groups of their own: a child of this package runs its tools in this way, too."""
    descendants: list[psutil.Process] = []
    with suppress(psutil.Error):
        descendants = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for descendant in descendants:
        with suppress(psutil.Error):
            descendant.kill()
    process.wait()


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - LOG_BYTES))
    return stream.read().decode(errors="replace")
