"""Fixtures of the targets' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tvm_students import worker_here


@pytest.fixture
def same_process() -> Iterator[None]:
    """The TVM target's worker without a new interpreter."""
    with worker_here():
        yield
