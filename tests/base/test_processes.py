"""Whatever a program starts ends with it, and what it may use is bounded."""

import os
import sys
import time
from pathlib import Path

import pytest

from tsfmc.compiler.base.errors import MissingError
from tsfmc.compiler.base.processes import LOG_BYTES, run_process

PYTHON = sys.executable


def test_exit_code_and_both_streams():
    done = run_process([PYTHON, "-c", "import sys; print('out'); sys.exit('why')"], seconds=60)
    assert (done.code, done.stdout, done.stderr, done.ok) == (1, "out\n", "why\n", False)
    assert done.ending == "ended with 1"
    assert done.last_line == "why"


def test_a_grandchild_with_the_streams_open_does_not_outlast_the_limit(tmp_path):
    script = (
        "import subprocess, sys, time, os;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid));"
        "time.sleep(300)"
    )
    began = time.monotonic()
    done = run_process([PYTHON, "-c", script], seconds=3)
    assert done.code is None
    assert time.monotonic() - began < 10
    assert _gone(int((tmp_path / "pid").read_text()))


def test_a_grandchild_that_outlives_its_parent_is_ended(tmp_path):
    script = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    )
    assert run_process([PYTHON, "-c", script], seconds=60).ok
    assert _gone(int((tmp_path / "pid").read_text()))


def test_memory_is_bounded():
    done = run_process([PYTHON, "-c", "bytearray(1 << 30)"], seconds=60, memory_bytes=512 << 20)
    assert not done.ok
    assert "MemoryError" in done.stderr


def test_a_long_log_keeps_its_end():
    done = run_process([PYTHON, "-c", f"print('x' * {2 * LOG_BYTES}); print('end')"], seconds=60)
    assert len(done.stdout) == LOG_BYTES
    assert done.stdout.endswith("end\n")


def test_a_signal_is_named():
    done = run_process([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"], seconds=60)
    assert done.ending == "was ended by SIGKILL"


def test_a_missing_program_says_what_installs_it():
    with pytest.raises(MissingError, match=r"no-such-cc is not installed.*install gcc-none"):
        run_process(["no-such-cc"], seconds=1, package="gcc-none")


def _gone(pid: int) -> bool:
    """Whether a process has ended; one that init has not yet collected counts as ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    os.kill(pid, 9)
    return False


def test_a_program_that_a_child_runs_in_this_way_ends_with_the_child(tmp_path):
    inner = (
        "import os, time;"
        f"open({str(tmp_path / 'partial')!r}, 'w').write(str(os.getpid()));"
        f"os.rename({str(tmp_path / 'partial')!r}, {str(tmp_path / 'pid')!r});"
        "time.sleep(300)"
    )
    outer = (
        "import sys; from tsfmc.compiler.base.processes import run_process;"
        f"run_process([sys.executable, '-c', {inner!r}], seconds=300)"
    )
    assert run_process([PYTHON, "-c", outer], seconds=4).code is None
    assert _gone(int((tmp_path / "pid").read_text()))
