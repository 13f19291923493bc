"""A teacher's states as targets of an affine student: factorized temporal alignment with phi = identity.

With phi = identity and as many factors as positions times rank (DistilTS, section 2.1.3) the aligner is any
linear map of the student's embedding, so FTA asks ``z = A x`` to explain the states by linear regression, as
it explains the forecast: reduced-rank regression with the states as further targets.

The states of a window are many numbers, ``S d``, that move together.  Regression on their leading principal
components loses only what the others vary, so that is what the sums are over.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..ir.teacher_store import TeacherStore
from .pieces import Labels

COMPONENTS = 64
SAMPLE_ROWS = 2048
"""Windows of a variate whose states the components are taken from; fewer where states are large."""
CELLS = 1 << 24
"""Numbers held at a time."""


def reduced_states(store: TeacherStore, components: int = COMPONENTS, seed: int = 0) -> Labels:
    """``labels(first, last)``: leading components ``[last - first, D, K]`` of the states of training windows.

    Each feature is normalised over training as ``TeacherStore.states`` does, so the components count what the
    mean reduction of FTA counts.  They are centred: an affine student without a bias has no constant to give.

    Args:
        components: the most that are kept.
        seed: of the windows that the components are taken from.
    """
    windows, variates, *shape = store.array("train", "states").shape
    width = int(np.prod(shape))
    rows = min(SAMPLE_ROWS, max(2, CELLS // width))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(windows, generator=generator)[: max(2, rows // variates)].sort().values
    sample = store.states("train", chosen.tolist()).flatten(0, 1).flatten(1).double()
    mean = sample.mean(0)
    axes = principal_axes(sample - mean, components)
    chunk = max(1, CELLS // (variates * width))

    def labels(first: int, last: int) -> np.ndarray:
        found = []
        for start in range(first, last, chunk):
            states = store.states("train", range(start, min(start + chunk, last)))
            found.append((states.flatten(2).double() - mean) @ axes)
        return torch.cat(found).numpy()

    return labels


def principal_axes(rows: Tensor, components: int) -> Tensor:
    """``[p, K]`` leading orthonormal axes of centred ``rows [n, p]``; fewer where the rows have fewer."""
    wide = rows.shape[0] < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    kept = values > 1e-10 * values[0]
    axes: Tensor = vectors[:, kept]
    return rows.T @ axes / values[kept].sqrt() if wide else axes
