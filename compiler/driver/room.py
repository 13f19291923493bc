"""Whether what a compile will write has a place, before a teacher is run or a student trained."""

from __future__ import annotations

from pathlib import Path

from ..base.content import cache_root
from ..base.errors import UsageError
from ..base.paths import require_room
from .recipe import Recipe

RUNNER_BYTES, FLOAT_BYTES = 2_000_000, 4
"""Of an artifact beside its weights: runner, manifest, report, self-test."""
CACHE_BYTES = 50_000_000
"""Of the cache for a small series; a teacher store says its own size before it is filled."""


def require_disks(recipe: Recipe, out: Path, *, cache: bool) -> None:
    """Refuses an out or cache directory that cannot take the results.

    The estimate is of the artifacts, twice where an old one stays until the new one is whole.

    Raises:
        DiskError: read-only, full, not allowed or impossible.
        UsageError: ``out`` or what should become an artifact is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is not a directory", hint="choose another one")
    weights = FLOAT_BYTES * recipe.task.lookback * recipe.task.horizon
    needed = 2 * len(recipe.targets) * (RUNNER_BYTES + weights)
    require_room(out, needed, "the out directory", "choose another one with --out, or make room")
    if cache:
        require_cache()


def require_cache() -> None:
    """Refuses a cache that cannot be written to.

    Raises:
        DiskError: read-only, full, not allowed or impossible.
    """
    hint = "set TSFMC_CACHE to a directory with room"
    require_room(cache_root(), CACHE_BYTES, "the cache directory", hint)
