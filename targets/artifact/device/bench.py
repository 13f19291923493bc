"""Bench: load time, memory, and latency in both scenarios on this device, beside the teacher where it is."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .check import SUMS
from .engine import Engine
from .forecaster import Forecaster
from .host import device_record
from .manifest import MANIFEST
from .portable import PORTABLE, PortableTeacher
from .rounds import Candidate
from .scenarios import measure_scenarios
from .start import STARTED_NS

RECORD = "tsfmc-latency"
RECORD_VERSION = 1
UNBOUND = (MANIFEST, SUMS, "recipe.lock.toml", "report.html")
"""Files that may change without another program to be measured."""
RUNTIMES = ("numpy", "onnxruntime", "apache-tvm", "tensorrt", "tensorrt-rtx-cu13-bindings")


def cold_start_record(forecaster: Forecaster) -> dict[str, Any]:
    """``load_ms`` since this process began, ``first_call_ms``, ``peak_rss_mb``."""
    window = forecaster.scaling.unscale(forecaster.example_windows(1)[0])
    began = time.perf_counter_ns()
    forecaster.forecast(window)
    return {
        "load_ms": (began - STARTED_NS) / 1e6,
        "first_call_ms": (time.perf_counter_ns() - began) / 1e6,
        "peak_rss_mb": peak_rss_mb(),
    }


def bench(forecaster: Forecaster, threads: int, queries: int, duration_s: float) -> dict[str, Any]:
    """Cold start, and both scenarios by the one latency rule; with 0 ``queries`` the cold start alone."""
    result = cold_start_record(forecaster)
    if queries < 1:
        return result
    teachers, skipped = teacher_candidates(forecaster, threads)
    artifact = Candidate(forecaster.engine, waits=bool(getattr(forecaster.engine, "waits", False)))
    candidates = {"artifact": artifact}
    candidates.update(teachers)
    reports = measure_scenarios(
        candidates,
        forecaster.example_windows(64),
        threads=threads,
        duration_s=duration_s,
        min_queries=queries,
        precision=str(forecaster.manifest["target"].get("precision", "fp32")),
        notes=("windows rolled from those of the self-test",),
    )
    result["scenarios"] = {
        name: report.record("artifact", list(teachers), skipped) for name, report in reports.items()
    }
    return result


def teacher_candidates(forecaster: Forecaster, threads: int) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The teacher that came along, in the forms that run here, and why the others do not."""
    running: dict[str, Candidate] = {}
    skipped: dict[str, str] = {}
    if not forecaster.files.has(PORTABLE):
        return running, skipped
    try:
        teacher = PortableTeacher(forecaster.files.read(PORTABLE), threads)
        running["onnx"] = Candidate(teacher, teacher.form)
    except Exception as error:  # every runtime has its own
        skipped["onnx"] = " ".join(str(error).split())[:200]
    if forecaster.manifest["target"].get("teacher_engine"):
        try:
            engine = Engine(forecaster.files.folder("teacher"), forecaster.manifest, threads)
            running["engine"] = Candidate(engine, "by the artifact's own runtime", bool(engine.waits))
        except Exception as error:
            skipped["engine"] = " ".join(str(error).split())[:200]
    return running, skipped


def latency_file(forecaster: Forecaster, threads: int, queries: int, duration_s: float) -> dict[str, Any]:
    """What ``tsfmc bench ARTIFACT --record`` reads: the measurement, what was measured and on what."""
    measured = bench(forecaster, threads, max(queries, 64), duration_s)
    scenarios = measured.pop("scenarios")
    return {
        "format": RECORD,
        "version": RECORD_VERSION,
        "payload_sha256": listed_payload(forecaster.files.sums or {}),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "threads": threads,
        "host": device_record(RUNTIMES),
        "selftest": forecaster.selftest(),
        "cold_start": {name: value for name, value in measured.items() if value is not None},
        "scenarios": scenarios,
    }


def listed_payload(sums: Mapping[str, str]) -> str:
    """One hash over the files that a measurement depends on; it outlives a change of the manifest.

    Args:
        sums: name -> hex sha256, as SHA256SUMS lists them.
    """
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums) if name not in UNBOUND)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def peak_rss_mb() -> float | None:
    """Highest resident memory of this process so far, or None where the system does not tell."""
    try:  # not getrusage: on Linux its figure starts with the memory of the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
