"""What a test needs of the machine: skipped without it, and a failure where it must be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Ends a test that lacks ``what``.  Continuous integration installs it and sets TSFMC_TOOLS=required."""
    if os.environ.get("TSFMC_TOOLS") == "required":
        pytest.fail(f"{what} must be installed where TSFMC_TOOLS=required")
    pytest.skip(f"needs {what}")
