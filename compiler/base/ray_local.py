"""A Ray cluster on this machine for the time of a run, of which nothing is left afterwards.

Ray's own processes end with the driver, but for two agents that do so minutes later or never where the driver
was killed.  So a guard, a process of its own, holds the end of a pipe: when the driver lets go of it, in
whatever way, the guard ends what is left of the cluster and removes its folder.  The guard is this file.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def local_cluster(ray: Any, cpus: int) -> Iterator[None]:
    """Starts one with ``cpus`` CPUs, for this process alone.

    Raises:
        Exception: whatever Ray does when it cannot start.
    """
    # Paths of sockets are limited to 107 characters, which a folder for temporary files may use up.
    folder = tempfile.mkdtemp(prefix="tsfmc-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
    guard = subprocess.Popen(
        [sys.executable, __file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    assert guard.stdin is not None
    before = psutil.Process().children(recursive=True)
    try:
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=folder,
        )
        started = [each for each in psutil.Process().children(recursive=True) if each not in before]
        guard.stdin.write("".join(f"{each.pid} {each.create_time()}\n" for each in started).encode())
        guard.stdin.flush()
        yield
    finally:
        ray.shutdown()
        guard.stdin.close()
        guard.wait()


def _guard(folder: str) -> None:
    for line in sys.stdin.read().splitlines():  # until the driver is gone
        pid, created = line.split()
        with suppress(psutil.Error):
            process = psutil.Process(int(pid))
            if process.create_time() == float(created):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(sys.argv[1])
