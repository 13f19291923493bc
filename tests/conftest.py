"""Shared fixtures.  ``../shared`` holds real data and golden vectors where a developer has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, weights and golden vectors beside the project; skips without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs ../shared (real data, weights and golden vectors), which is not part of the project")
    return SHARED


@pytest.fixture(autouse=True)
def deterministic() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("TSFMC_CACHE", str(tmp_path_factory.mktemp("cache")))
