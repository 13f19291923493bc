"""The candidates of a rolling origin: how an affine student may be fitted, and in which form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .affine import DEFAULT_RIDGE, Form, Setting

PLAIN = Setting()
"""What every candidate is compared with: one map for all variates, without a teacher."""

Mix = tuple[tuple[str, float], ...]
Target = tuple[float, float, Mix]
"""Lambda, tau, and the weights of the teachers."""


@dataclass(frozen=True)
class Grid:
    """Every combination is a candidate, the teacher's weights only where there is a teacher."""

    forms: tuple[Form, ...] = ("shared", "per-variate", "low-rank")
    ranks: tuple[int, ...] = (7, 11, 15, 23, 31, 47)
    """One less than a multiple of four: the folded basis has a column more, for the window's mean, and whole
    vectors of a device's arithmetic then hold it."""
    ridges: tuple[float, ...] = (10.0, DEFAULT_RIDGE, 1000.0)
    poolings: tuple[float, ...] = (0.0, 0.3, 3.0)
    distill: tuple[float, ...] = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
    taus: tuple[float, ...] = (0.0, 1.0)
    mixes: tuple[Mix, ...] = ()
    """Teachers and their weights, each a candidate of its own."""
    priors: tuple[float, ...] = (0.0,)
    """Weights of the synthetic windows, in windows; above 0 they are tried for the shared map alone where it
    is among the forms, since every weight costs as much as the whole grid without one."""

    aligns: tuple[float, ...] = (0.0,)
    """Weights of the teacher's states in the basis of the low-rank form; tried without a prior alone, whose
    windows have no states."""

    def targets(self) -> list[Target]:
        """All targets that are judged, the truth alone first."""
        found: list[Target] = []
        for mix in ((), *self.mixes):
            for weight in self.distill if mix else (0.0,):
                if mix and weight == 0:
                    continue
                taus = self.taus if mix and math.isfinite(weight) else (0.0,)
                found += [(weight, tau, mix) for tau in taus]
        return found

    def penalties(self, form: Form) -> list[tuple[float, float]]:
        """(ridge, pooling) of a form.

        Dense maps of each variate are many numbers for no gain over low ranks: beside other forms they are
        judged once, as they are; asked for alone they are searched like the others.
        """
        if form == "shared":
            return [(ridge, 0.0) for ridge in self.ridges]
        if form == "per-variate" and len(self.forms) > 1:
            return [(PLAIN.ridge, 0.0)]
        return [(ridge, pooling) for ridge in self.ridges for pooling in self.poolings]

    def settings(self, lookback: int, horizon: int, variates: int) -> list[Setting]:
        """All candidates; ranks that a dense map can not exceed are left out, as is what is the same.

        The truth alone is one where there is no teacher, or where 0 is among the teacher's weights.
        """
        return [
            replace(setting, prior=prior)
            for prior in self.priors
            for setting in self.leaning(prior)._plain_settings(lookback, horizon, variates)
        ]

    def leaning(self, prior: float) -> Grid:
        """The candidates that may lean on a prior of this weight, without it."""
        forms: tuple[Form, ...] = ("shared",) if prior and "shared" in self.forms else self.forms
        return replace(self, forms=forms, priors=(0.0,), aligns=(0.0,) if prior else self.aligns)

    def _plain_settings(self, lookback: int, horizon: int, variates: int) -> list[Setting]:
        targets = [target for target in self.targets() if target[2] or not self.mixes or 0 in self.distill]
        found = []
        for form in self.forms:
            if form == "per-variate" and variates == 1 and "shared" in self.forms:
                continue
            limit = min(lookback - 1, horizon * variates)
            ranks = [rank for rank in self.ranks if rank <= limit] if form == "low-rank" else [0]
            for ridge, pooling in self.penalties(form):
                if pooling and variates == 1:
                    continue
                for weight, tau, mix in targets:
                    plain = Setting(form, 0, ridge, weight, tau, mix, pooling)
                    aligns = self.aligns if form == "low-rank" else (0.0,)
                    found += [replace(plain, rank=rank, align=align) for rank in ranks for align in aligns]
        return found


PLAIN_ONLY = Grid(forms=(PLAIN.form,), ridges=(PLAIN.ridge,), distill=(PLAIN.distill,))
