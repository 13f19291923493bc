"""What a teacher says about synthetic windows, as sums: a prior for students with few windows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..base.content import cache_root, code_key, content_key
from ..base.errors import VerificationError
from ..base.progress import Progress, Silent
from ..base.sealed import load_tensors, save_tensors, warn_damaged
from ..data import synthetic_windows
from ..data.synthetic_data import WINDOWS
from ..ir.forecaster import Teacher
from ..ir.unit import Task, fingerprint
from .statistics import Sums, window_sums

BATCH_WINDOWS = 256
TEACHER = "teacher"


def prior_key(teacher: Teacher, task: Task, windows: int = WINDOWS, seed: int = 0) -> str:
    """Content key of ``synthetic_prior``."""
    weights = (type(teacher).__name__, dict(teacher.config), fingerprint(teacher))
    code = code_key("compiler/data", "compiler/frontends", "compiler/learning")
    return content_key(weights, task.lookback, task.horizon, task.frequency, windows, seed, code)


def synthetic_prior(
    teacher: Teacher, task: Task, *, windows: int = WINDOWS, seed: int = 0, progress: Progress | None = None
) -> Sums:
    """Sums of synthetic windows of the task's step with the teacher's labels; computed once, then kept.

    Returns:
        Sums of one variate with the single target ``teacher``.
    """
    key = prior_key(teacher, task, windows, seed)
    path = cache_root() / "synthetic" / f"{key[:24]}.safetensors"
    if path.is_file():
        try:
            return read_prior(path, key)
        except VerificationError as error:
            warn_damaged(error.what)
    sums = _label(teacher, task, windows, seed, progress or Silent())
    save_tensors(path, tensors_of(sums), {"key": key})
    return sums


@torch.inference_mode()
def _label(teacher: Teacher, task: Task, windows: int, seed: int, progress: Progress) -> Sums:
    # A teacher is loaded for the task's variates; each gets windows of its own.
    variates = len(task.variates)
    count = -(-windows // variates)
    drawn = synthetic_windows(count * variates, task.lookback, 0, step=task.frequency, seed=seed)
    past = torch.from_numpy(drawn).float().reshape(count, variates, task.lookback)
    batch = max(1, BATCH_WINDOWS // variates)
    total: Sums | None = None
    with progress.task("teacher on synthetic windows", count) as task_bar:
        for start in range(0, count, batch):
            piece = past[start : start + batch]
            labels = teacher.outputs(piece).forecast
            sums = window_sums(piece.reshape(-1, 1, task.lookback), _rows(labels), TEACHER)
            total = sums if total is None else total.accumulate(sums)
            task_bar.advance(len(piece))
    assert total is not None
    return total


def _rows(labels: Tensor) -> Tensor:
    return labels.reshape(-1, 1, labels.shape[-1])


def tensors_of(sums: Sums) -> dict[str, Tensor]:
    """A prior as it is kept on disk."""
    return {
        "count": torch.tensor(sums.count),
        "gram": sums.gram,
        "cross": sums.cross[TEACHER],
        "square": sums.square[TEACHER],
    }


def read_prior(path: Path, key: str) -> Sums:
    """What ``synthetic_prior`` kept for a key.

    Raises:
        VerificationError: the file holds something else, or was changed.
    """
    kept, facts = load_tensors(path, what="sums of synthetic windows", error=VerificationError)
    if facts != {"key": key}:
        raise VerificationError(f"{path}: it holds the sums of other windows")
    return Sums(int(kept["count"]), kept["gram"], {TEACHER: kept["cross"]}, {TEACHER: kept["square"]})
