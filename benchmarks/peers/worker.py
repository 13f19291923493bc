"""One runtime and one case in a process of its own.

worker.py prepare RUNTIME CASE ROOT     makes the runtime's file, prints ``{"files": [...], "bytes": n}``
worker.py serve RUNTIME CASE ROOT       loads it, prints its facts, then for every line ``CALLS`` on stdin
                                        prints the wall and CPU seconds of that many calls
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import gc  # noqa: E402  (the clock starts before anything is imported)
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from cases import cases, folder, windows  # noqa: E402
from runtimes import RUNTIMES  # noqa: E402


def library_bytes(packages: tuple[str, ...]) -> int:
    """Shared libraries of installed packages, links not counted."""
    total = 0
    for package in packages:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            total += sum(
                path.stat().st_size
                for path in Path(place).rglob("*.so*")
                if path.is_file() and not path.is_symlink()
            )
    return total


def main() -> None:
    """See the top of this file."""
    task, name, label, root = sys.argv[1:]
    runtime = RUNTIMES[name]
    case = next(case for case in cases() if case.label == label)
    directory = folder(Path(root), case)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime's own chatter goes to stderr
    if task == "prepare":
        files = runtime.prepare(case, directory)
        answer = {"files": files, "bytes": sum((directory / file).stat().st_size for file in files)}
        print(json.dumps(answer), file=answers, flush=True)
        return
    past = list(windows(case))
    call = runtime.load(case, directory)
    first = np.asarray(call(past[0]))
    facts = {
        "cold_start_ms": (time.perf_counter() - BEGAN) * 1e3,
        "library_bytes": library_bytes(runtime.packages),
    }
    np.save(directory / f"{name}.npy", first)
    place = 0
    for _ in range(50):
        call(past[place % len(past)])
        place += 1
    facts["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(facts), file=answers, flush=True)
    gc.disable()
    for line in sys.stdin:
        calls = int(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(place, place + calls):
            call(past[number % len(past)])
        answer = {"wall": (time.perf_counter() - wall) / calls, "cpu": (time.process_time() - cpu) / calls}
        place += calls
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
