#!/usr/bin/env python3
"""Runs the forecaster in this folder.  Needs numpy and the runtime that manifest.json names, nothing else.

    python run.py forecast past.csv [-o out.csv]   the last rows of a CSV in, the forecast as CSV out
    python run.py verify [--trust KEY.pub]         every file against its hash; nothing is loaded
    python run.py selftest                         forecasts against those of the original PyTorch model
    python run.py bench                            load time, memory and latency on this device

or, as a module:

    from run import Forecaster
    forecast = Forecaster(threads=1).forecast(past)   # [D, L] or [B, D, L], in the units of the data

With ``--trust`` (``trust=`` of ``Forecaster``) only an artifact is loaded that the owner of this public key
has signed; that needs the package ``cryptography``.

Exit codes: 0 ok, 2 bad input, 3 the runtime is missing or cannot load it, 5 the artifact is broken or edited.
"""

import sys
import time

STARTED_NS = time.perf_counter_ns()  # before the slow imports, so that `bench` reports the whole cold start

# Nothing may be imported out of this folder: a `json.py` put beside this file would run before any check.
# So this comes first, and until then come only modules that are built into Python itself.
if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # where Python has put the folder of its script

import os

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != HERE]


def forget_bytecode() -> None:
    """Removes what Python keeps of this file where it is imported: code in the artifact, without a hash."""
    import importlib.util

    kept = importlib.util.cache_from_source(os.path.join(HERE, "run.py"))
    try:
        if os.path.dirname(os.path.dirname(kept)) == HERE:
            os.unlink(kept)
            os.rmdir(os.path.dirname(kept))
    except OSError:  # none was written, or others lie there
        pass


if __name__ == "run":
    forget_bytecode()
