"""The latency rule on real calls: what is as before afterwards, and what is measured in fresh processes."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import make_artifact, make_model, make_windows

from tsfmc.compiler.base.errors import VerificationError
from tsfmc.targets.measure import cold_start as cold
from tsfmc.targets.measure.cold_start import cold_start
from tsfmc.targets.measure.host import host_record
from tsfmc.targets.measure.latency import Candidate, measure, measure_each, torch_candidate

WINDOWS = make_windows()


def test_a_real_model_in_both_scenarios() -> None:
    calls = {"artifact": Candidate(torch_candidate(make_model()))}
    reports = measure_each(calls, WINDOWS, duration_s=0.0, warmup_calls=3, warmup_s=0.0, evict_mib=1)
    record = {name: report.record("artifact", []) for name, report in reports.items()}
    record = json.loads(json.dumps(record, allow_nan=False))
    for scenario in ("stream", "interval"):
        row = record[scenario]["artifact"]
        assert row["n"] >= 64 and row["p90_us"] >= row["p50_us"] > 0 and row["cpu_median_us"] > 0
        for part in ("batch 1", "L 32", "H 8", "D 3", "fp32", "1 thread", "64 windows"):
            assert part in record[scenario]["method"]


def test_collector_and_threads_are_as_before_even_after_a_failure() -> None:
    before = torch.get_num_threads()
    inside: list[tuple[bool, int]] = []

    def fails(past: np.ndarray) -> np.ndarray:
        inside.append((gc.isenabled(), torch.get_num_threads()))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure({"artifact": fails}, WINDOWS, threads=before + 1)
    assert inside == [(False, before + 1)]
    assert gc.isenabled() and torch.get_num_threads() == before


def test_cold_start_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    result = cold_start(tmp_path / "art")
    assert result["load_ms"] > result["first_call_ms"] > 0
    assert 20 < result["peak_rss_mb"] < 400  # this process, which imported torch, is larger
    assert result["n"] == 3


def test_cold_start_never_runs_code_of_the_artifact(tmp_path: Path) -> None:
    make_artifact(tmp_path / "art")
    (tmp_path / "art/run.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(VerificationError, match=r"run\.py was changed"):
        cold_start(tmp_path / "art")
    assert not (tmp_path / "owned").exists()


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(VerificationError, match=r"does not start in a fresh process: .*oh no"):
        cold._run_json([sys.executable, "-c", "raise SystemExit('oh no')"])
    assert cold._run_json([sys.executable, "-c", "print('{\"a\": 1}')"]) == {"a": 1}


def test_host_record_names_the_machine_but_not_its_owner() -> None:
    import platform

    record = host_record()
    text = json.dumps(record)
    assert record["cpu"] and record["cores"] >= 1 and record["packages"]["torch"]
    assert platform.node() not in text or len(platform.node()) < 4
    assert str(Path.home()) not in text
