"""By how much engines may differ from the truth, and what else must hold.

For the windows of one kind, with y the forecast in float64,

    tolerance = FACTOR * max(e, 2^-23 * max |y|) + m
    e   the largest error of torch in float32
    m   the largest change of y when every mean of n numbers is off by sqrt(n) roundings of their size

``e`` is what float32 costs one implementation; the term beside it is one rounding of the result.  A form may
sum in another order, fuse a product into a sum and take another polynomial for an exponential; ``FACTOR`` is
what that may cost.

``m`` is there because torch adds pairwise and others do not, see ``targets/measure/conditioning.py``.  On
windows that are not nearly constant it is smaller than the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tsfmc.compiler.students.affine import AffineMap, AffineMaps
from tsfmc.targets.base import Engine
from tsfmc.targets.measure.conditioning import means

from .engines import REFUSES_NAN, torch_engine
from .students import Drawn

FACTOR = 16.0
EPSILON = 2.0**-23
THREADS, CALLS = 4, 6


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what was compared.
        ratio: the error in units of the tolerance over ``FACTOR``; what has no number is 0 or infinite.
        limit: up to which ratio it passes.
    """

    name: str
    ratio: float
    limit: float = FACTOR

    @property
    def passed(self) -> bool:
        return self.ratio <= self.limit


class Truth:
    """The student in float64, and what float32 loses on given windows."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.exact = torch_engine(copy.deepcopy(drawn.model).double())
        self.rounded = torch_engine(drawn.model)

    def unit(self, past: np.ndarray) -> tuple[np.ndarray, float]:
        """The true forecast, and the tolerance of this case over ``FACTOR``."""
        expected = self.exact(past)
        with np.errstate(invalid="ignore", over="ignore"):
            lost = float(np.nanmax(np.abs(self.rounded(past) - expected), initial=0.0))
            size = float(np.nanmax(np.abs(expected), initial=0.0))
        moved = float(means(self.exact, past).max(initial=0.0))
        return expected, max(lost, EPSILON * size, np.finfo(np.float32).tiny) + moved / FACTOR


def ratio(got: np.ndarray, expected: np.ndarray, unit: float) -> float:
    """The largest error in units; infinite for another shape or another place of NaN."""
    if got.shape != expected.shape or (np.isnan(got) != np.isnan(expected)).any():
        return np.inf
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(got - expected), initial=0.0) / unit)


def agree(truth: Truth, engines: Mapping[str, Engine], past: np.ndarray) -> list[Check]:
    """Every form against the truth; of int8 weights, which are another function, as far as they are bound."""
    expected, unit = truth.unit(past)
    found = []
    for name, engine in engines.items():
        if name in REFUSES_NAN and np.isnan(past).any():
            found.append(Check(f"{name}: refusal", 0.0 if refused(engine, past) else np.inf))
        elif not name.endswith("int8"):
            found.append(Check(name, ratio(engine(past), expected, unit)))
        elif (allowed := int8_allowance(truth.drawn.model, past)) is not None:
            with np.errstate(invalid="ignore"):
                rounded = FACTOR * unit + allowed
                found.append(Check(name, ratio(engine(past) / rounded, expected / rounded, 1.0), 1.0))
    return found


def refused(engine: Engine, past: np.ndarray) -> bool:
    """Whether it raises instead of answering."""
    try:
        engine(past)
    except RuntimeError:
        return True
    return False


def int8_allowance(model: nn.Module, past: np.ndarray) -> np.ndarray | None:
    """What rounding every weight by half a step of its column can do, ``[B, D, H]``; None where not affine.

    A column of weights w has steps of max |w| / 127, so a product with the centred window x' departs by at
    most max |w| / 254 times the sum of |x'|.
    """
    with np.errstate(invalid="ignore"):
        past = past.astype(np.float64)
        size = np.abs(past - past.mean(-1, keepdims=True)).sum(-1, keepdims=True)
    if isinstance(model, AffineMap):
        return size * _step(model.matrix)
    if isinstance(model, AffineMaps):
        return size * _step(model.matrices)
    return None


def _step(matrix: torch.Tensor) -> np.ndarray:
    steps: np.ndarray = matrix.detach().double().abs().amax(-2).numpy() / 254
    return steps


def alone(truth: Truth, engines: Mapping[str, Engine], past: np.ndarray) -> list[Check]:
    """A window's forecast does not depend on its neighbours: batch independence."""
    _, unit = truth.unit(past)
    found = []
    for name, engine in engines.items():
        single = np.concatenate([np.array(engine(window[None])) for window in past])
        found.append(Check(f"{name}: batch", ratio(np.array(engine(past)), single, unit)))
    return found


def concurrent(engines: Mapping[str, Engine], past: np.ndarray) -> list[Check]:
    """Several threads on one engine get, to the bit, what one thread gets."""
    found = []
    for name, engine in engines.items():
        single = [np.array(engine(window[None])) for window in past]

        def work(start: int, engine: Engine = engine) -> list[tuple[int, np.ndarray]]:
            order = [(start + step) % len(past) for step in range(CALLS)]
            return [(at, np.array(engine(past[at : at + 1]))) for at in order]

        with ThreadPoolExecutor(THREADS) as pool:
            answers = [answer for piece in pool.map(work, range(THREADS)) for answer in piece]
        equal = all(np.array_equal(got, single[at], equal_nan=True) for at, got in answers)
        found.append(Check(f"{name}: threads", 0.0 if equal else np.inf))
    return found


def equivariances(truth: Truth, past: np.ndarray) -> list[Check]:
    """Shift, scale and permutation of variates, in float64, where the student has them."""
    drawn, exact = truth.drawn, truth.exact
    past = past.astype(np.float64)
    forecast = exact(past)
    size = float(np.abs(past).max() + np.abs(forecast).max()) or 1.0
    # A folded map was rounded to float32: its rows sum to one as far as that goes.
    rounding = (
        EPSILON
        * past.shape[-1]
        * max(1.0, *(float(p.detach().abs().max()) for p in drawn.model.parameters()))
    )
    found = []
    if drawn.shift:
        found.append(_moved("shift", exact(past + 3.0), forecast + 3.0, (size + 3) * rounding))
    if drawn.scale:
        found.append(_moved("scale", exact(2.5 * past), 2.5 * forecast, size * rounding))
    if drawn.permute and past.shape[1] > 1:
        found.append(_moved("permutation", exact(past[:, ::-1].copy()), forecast[:, ::-1], size * rounding))
    return found


def _moved(name: str, got: np.ndarray, expected: np.ndarray, unit: float) -> Check:
    return Check(name, ratio(got, expected, unit))
