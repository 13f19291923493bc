"""A Ray cluster on this machine for the time of a run, of which nothing is left afterwards.

Ray's own processes end with the driver, but for two agents that do so minutes later or never where the driver
was killed.  So a guard, a process of its own, holds the end of a pipe: when the driver lets go of it, in
whatever way, the guard ends what is left of the cluster and removes its folder.  The guard is this file.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROUNDS = 10
"""How often what is left of a cluster is looked for."""


@contextmanager
def local_cluster(ray: Any, cpus: int) -> Iterator[None]:
    """Starts one with ``cpus`` CPUs, for this process alone.

    Raises:
        Exception: whatever Ray does when it cannot start.
    """
    # Paths of sockets are limited to 107 characters, which a folder for temporary files may use up.
    folder = tempfile.mkdtemp(prefix="tsfmc-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
    guard = subprocess.Popen(
        [sys.executable, __file__, folder, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    assert guard.stdin is not None
    try:
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        guard.stdin.close()
        guard.wait()


def _guard(folder: str, driver: int) -> None:
    sys.stdin.read()  # until the driver is gone
    for _ in range(ROUNDS):  # a cluster that is just starting goes on to do so
        others = [each for each in psutil.process_iter() if each.pid not in (os.getpid(), driver)]
        left = [process for process in others if _of_cluster(process, folder)]
        if not left:
            break
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


def _of_cluster(process: psutil.Process, folder: str) -> bool:
    """Whether it is one of Ray's and was started for the folder, or writes a log there."""
    try:
        return process.name().startswith(("ray", "gcs_server", "python")) and (
            any(folder in argument for argument in process.cmdline())
            or any(file.path.startswith(folder) for file in process.open_files())
        )
    except psutil.Error:
        return False


if __name__ == "__main__":
    _guard(sys.argv[1], int(sys.argv[2]))
