#!/usr/bin/env python3
"""Runs the forecaster in this folder.  Needs numpy and the runtime that manifest.json names, nothing else.

    python run.py forecast past.csv [-o out.csv]   the last rows of a CSV in, the forecast as CSV out
    python run.py verify                           every file against its hash
    python run.py selftest                         forecasts against those of the original PyTorch model
    python run.py bench                            load time, memory and latency on this device

or, as a module:

    from run import Forecaster
    forecast = Forecaster(threads=1).forecast(past)   # [D, L] or [B, D, L], in the units of the data

Exit codes: 0 ok, 2 bad input, 3 the runtime is missing or cannot load it, 5 the artifact is broken or edited.
"""

from __future__ import annotations

import time

STARTED_NS = time.perf_counter_ns()  # before the slow imports, so that `bench` reports the whole cold start
