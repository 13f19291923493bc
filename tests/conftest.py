"""Shared fixtures.  ``../shared`` holds real data and golden vectors where a developer has them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: threads of their own would fight over them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tsfmc.compiler.ir.passes import PassContext
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.passes.record_teacher import RecordTeacher

# Helpers of the tests are modules beside them; importlib mode puts nothing on the path by itself.
sys.path.insert(0, str(Path(__file__).parent))

from factory import make_unit

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, weights and golden vectors beside the project; skips without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(
            "needs ../shared (real data, weights and golden vectors), which is not part of the project"
        )
    return SHARED


@pytest.fixture(autouse=True)
def deterministic() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("TSFMC_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("TSFMC_CHECK_PURITY", "1")


@pytest.fixture
def unit(tmp_path: Path) -> CompileUnit:
    """A unit as it enters the pipeline: a small series and a tiny random TTM."""
    return make_unit(tmp_path)


@pytest.fixture
def taught(unit: CompileUnit, tmp_path: Path) -> CompileUnit:
    """``unit`` with its teacher's outputs recorded."""
    return RecordTeacher().run(unit, PassContext(workspace=tmp_path)).unit
