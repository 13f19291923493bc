"""What a fine-tuned teacher says of training windows that its tuning had not seen.

A teacher tuned on all of training knows the futures that rolling origins would judge it on.  So training is
cut into stretches of time, and each is labelled by a teacher tuned on what lies before it alone:

    stretch 0        1            2            3
            |--------|############|            |        labels of stretch 1: tuned on stretch 0
            |--------------------|#############|        labels of stretch 2: tuned on stretches 0 and 1

Forward in time, for a fold that is judged on a block is fitted on labels of all blocks before it: a teacher
that knew the later stretches would bring them in through its labels of the earlier ones.  Between what is
tuned on and what is labelled lies an embargo of a lookback and a horizon: they have no row in common.  The
first stretch, and any with too little before it, is labelled by the teacher as it came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import VerificationError
from ..base.sealed import load_tensors, save_tensors, warn_damaged
from ..ir.forecaster import Teacher

Forecasts = npt.NDArray[np.float32]
BATCH_WINDOWS = 32


@dataclass(frozen=True)
class Stretch:
    """Training windows ``begin .. end - 1``; their teacher is tuned on windows ``0 .. seen - 1``."""

    begin: int
    end: int
    seen: int


def stretches(windows: int, count: int, span: int) -> list[Stretch]:
    """``count`` equal stretches of training, and how much each one's teacher may see.

    Args:
        span: rows of a window, lookback and horizon.
    """
    edges = [windows * number // count for number in range(count + 1)]
    # Window i ends with row i + span - 1, which is to be before row ``begin``, where the first one starts.
    return [Stretch(begin, end, max(0, begin - span + 1)) for begin, end in pairwise(edges)]


class HeldOutForecasts:
    """Forecasts ``[N, D, H]`` of all training windows, each by a teacher that has not seen it; scaled."""

    def __init__(self, forecasts: Forecasts) -> None:
        self.forecasts = forecasts
        self.key = hashlib.sha256(np.ascontiguousarray(forecasts).data).hexdigest()

    def __call__(self, first: int, last: int) -> Forecasts:
        return self.forecasts[first:last]


@torch.inference_mode()
def forecasts_of(teacher: Teacher, batch: Callable[[range], tuple[Tensor, Tensor]], part: Stretch) -> Tensor:
    """``[n, D, H]`` of the windows of a stretch, as a store would have them."""
    pieces = []
    for start in range(part.begin, part.end, BATCH_WINDOWS):
        past, _ = batch(range(start, min(start + BATCH_WINDOWS, part.end)))
        pieces.append(teacher.outputs(past).forecast.float())
    return torch.cat(pieces)


def kept_stretch(path: Path, part: Stretch) -> Tensor | None:
    """The labels of a stretch that a run before left at ``path``; None where there are none to believe."""
    if not path.is_file():
        return None
    try:
        tensors, facts = load_tensors(path, what="labels of a stretch", error=VerificationError)
    except VerificationError as error:
        warn_damaged(error.what)
        return None
    return tensors["forecasts"] if facts == vars(part) else None


def keep_stretch(path: Path, part: Stretch, forecasts: Tensor) -> None:
    """Leaves the labels of a stretch for a run that goes on where this one is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"forecasts": forecasts.contiguous()}, vars(part))
