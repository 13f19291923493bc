"""Fixtures of the targets' tests."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tsfmc.targets.tvm import job, target, worker


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker without a new interpreter, which takes seconds to import torch and TVM."""

    def run(task: job.Job, work: Path, time_limit_s: float, progress: Any = print) -> dict[str, Any]:
        (work / "job.json").write_text(json.dumps(asdict(task)))
        worker.main(work / "job.json", work / "answer.json")
        return job.read_answer(work / "answer.json")

    monkeypatch.setattr(target, "run_child", run)
