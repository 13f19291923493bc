"""Moirai's predictive distribution: a mixture of Student-t, narrow normal, negative binomial and log-normal.

    p(x) = sum_c w_c p_c(x),  w = softmax(logits), in the normalised space (x - loc) / scale

Two quirks of upstream that are part of the published models:

- ``MultiOutSizeLinear`` lays rows out as (dimension, largest patch) but masks the rows from
  ``dimensions * patch`` on.  For the four mixture logits and a patch of a quarter of the largest, the logits
  of components 1 to 3 are their bias alone.  Biases are never masked.
- The negative binomial lives on the non-negative integers of the *normalised* space.

Mean and density are closed.  Quantiles are not; they are found by bisection of the distribution function in
float64 on the host: no seed, no sampling noise, the same value in every batch and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HUGE = 300.0
"""exp of this is the largest location that a bracket is searched for: beyond any float32."""

_COMPONENTS: tuple[tuple[str, ...], ...] = (
    ("df", "loc", "scale"),
    ("loc",),
    ("total_count", "logits"),
    ("loc", "scale"),
)


@dataclass(frozen=True)
class Mixture:
    """A mixture at every element of ``[...]``, normalised space.

    Attributes:
        logits: of the four weights ``[..., 4]``.
        df, t_loc, t_scale: Student-t; df > 2.
        normal_loc, normal_scale: the normal of fixed width.
        count, count_logits: negative binomial with mean count * exp(count_logits).
        log_loc, log_scale: log-normal.
    """

    logits: Tensor
    df: Tensor
    t_loc: Tensor
    t_scale: Tensor
    normal_loc: Tensor
    normal_scale: Tensor
    count: Tensor
    count_logits: Tensor
    log_loc: Tensor
    log_scale: Tensor

    def mean(self) -> Tensor:
        """Analytic mean ``[...]``."""
        means = torch.stack(
            [
                self.t_loc,
                self.normal_loc,
                self.count * self.count_logits.exp(),
                (self.log_loc + self.log_scale.square() / 2).exp(),
            ],
            dim=-1,
        )
        return (self.logits.softmax(dim=-1) * means).sum(dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density ``[...]`` as upstream's validation loss has it.

        Outside the support of a component (below 0) its density is 0; between the integers the negative
        binomial's is the formula's value.
        """
        zero = torch.zeros_like(value)
        inside = torch.where(value > 0, value, zero + 1)
        natural = torch.where(value >= 0, value, zero)
        normal = math.log(math.sqrt(2 * math.pi))
        spread = (value - self.t_loc) / self.t_scale
        student = (
            torch.lgamma((self.df + 1) / 2)
            - torch.lgamma(self.df / 2)
            - (self.df * math.pi).log() / 2
            - self.t_scale.log()
            - (self.df + 1) / 2 * torch.log1p(spread.square() / self.df)
        )
        narrow = (
            -((value - self.normal_loc) / self.normal_scale).square() / 2 - self.normal_scale.log() - normal
        )
        counts = (
            self.count * F.logsigmoid(-self.count_logits)
            + natural * F.logsigmoid(self.count_logits)
            - torch.lgamma(1 + natural)
            - torch.lgamma(self.count)
            + torch.lgamma(1 + natural + self.count)
            - (self.count + natural).log()
        )
        logs = (
            -((inside.log() - self.log_loc) / self.log_scale).square() / 2
            - self.log_scale.log()
            - inside.log()
            - normal
        )
        outside = zero - math.inf
        parts = [
            student,
            narrow,
            torch.where(value >= 0, counts, outside),
            torch.where(value > 0, logs, outside),
        ]
        return (self.logits.log_softmax(dim=-1) + torch.stack(parts, dim=-1)).logsumexp(dim=-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function ``[...]``, in the precision of the parameters (float64 is meant)."""
        whole = value.floor().clamp(min=0)
        inside = torch.where(value > 0, value, torch.ones_like(value))
        parts = [
            _student_cdf((value - self.t_loc) / self.t_scale, self.df),
            torch.special.ndtr((value - self.normal_loc) / self.normal_scale),
            _beta_ratio(self.count, whole + 1, torch.sigmoid(-self.count_logits)) * (value >= 0),
            torch.special.ndtr((inside.log() - self.log_loc) / self.log_scale) * (value > 0),
        ]
        return (self.logits.softmax(dim=-1) * torch.stack(parts, dim=-1)).sum(dim=-1)

    def quantile(self, levels: Sequence[float]) -> Tensor:
        """Quantiles ``[..., Q]`` at ascending ``levels``, to 1e-7 of max(1, abs(x)); not differentiable.

        Bisection of the distribution function over asinh(x), between the smallest and the largest of the
        components' quantiles or bounds of them: those of Student-t lie between its location and the
        quantile of two degrees of freedom, those of the negative binomial between 0 and
        mean + std sqrt(q / (1 - q)) (Cantelli's inequality).
        """
        with torch.no_grad():
            exact = Mixture(*(getattr(self, field.name).detach().double() for field in fields(self)))
            level = torch.tensor(levels, dtype=torch.float64, device=self.df.device)
            wide = Mixture(
                exact.logits[..., None, :],
                *(getattr(exact, field.name)[..., None] for field in fields(self)[1:]),
            )
            low, high = (edge.asinh() for edge in wide._bracket(level))
            while bool(
                (open_ := high - low > 1e-7).any()
            ):  # one that is done no longer moves: no batch effect
                middle = (low + high) / 2
                reached = wide.cdf(middle.sinh()) >= level
                low = torch.where(open_ & ~reached, middle, low)
                high = torch.where(open_ & reached, middle, high)
            ordered = high.cummax(dim=-1).values  # two levels at one jump may stop 1e-7 apart
            return ordered.sinh().to(self.df.dtype)

    def _bracket(self, level: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.special.ndtri(level)
        heavy = (2 * level - 1) / (2 * level * (1 - level)).sqrt()
        growth = self.count_logits.clamp(max=_HUGE).exp()
        mean = self.count * growth
        std = (mean * (1 + growth)).sqrt()
        edges = [
            self.t_loc + 0 * level,
            self.t_loc + heavy * self.t_scale,
            self.normal_loc + z * self.normal_scale,
            0 * mean * level,
            mean + std * (level / (1 - level)).sqrt(),
            (self.log_loc + self.log_scale * z).clamp(max=_HUGE).exp(),
        ]
        return torch.stack(edges).amin(dim=0), torch.stack(edges).amax(dim=0)


def _student_cdf(t: Tensor, df: Tensor) -> Tensor:
    """Student-t distribution function, by Gauss-Legendre quadrature.

    With x = sqrt(df) tan(u): F(t) = 1/2 + c * integral over [0, atan(t / sqrt(df))] of cos(u)^(df - 1),
    c = Gamma((df + 1) / 2) / (sqrt(pi) Gamma(df / 2)).  The range is cut where the integrand is below 2e-8;
    twelve nodes then agree with the function to 3e-8 for every df >= 2.
    """
    nodes, weights = (
        torch.as_tensor(part, dtype=t.dtype, device=t.device) for part in np.polynomial.legendre.leggauss(12)
    )
    cut = torch.acos(torch.exp(-18 / (df - 1)))
    end = torch.minimum(torch.maximum(torch.atan(t / df.sqrt()), -cut), cut)
    angles = end[..., None] * (nodes + 1) / 2
    integral = (angles.cos() ** (df - 1)[..., None] * weights).sum(dim=-1) * end / 2
    constant = torch.exp(torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2)) / math.sqrt(math.pi)
    return 0.5 + constant * integral


def _beta_ratio(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (modified Lentz).

    P(K <= k) of a negative binomial is I_{1-p}(count, k + 1) with p = sigmoid(logits).
    """
    swap = x > (a + 1) / (a + b + 2)  # I_x(a, b) = 1 - I_{1-x}(b, a); the fraction converges fast below
    a, b, x = torch.where(swap, b, a), torch.where(swap, a, b), torch.where(swap, 1 - x, x)
    front = torch.exp(
        torch.lgamma(a + b) - torch.lgamma(a + 1) - torch.lgamma(b) + torch.xlogy(a, x) + b * torch.log1p(-x)
    )
    tiny = torch.full_like(x, 1e-300)
    c = torch.ones_like(x)
    d = _away_from_zero(1 - (a + b) * x / (a + 1), tiny).reciprocal()
    value = d.clone()
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = _away_from_zero(1 + term * d, tiny).reciprocal()
            c = _away_from_zero(1 + term / c, tiny)
            step = c * d
            value = value * step
        if bool(((step - 1).abs() < 1e-12).all()):
            break
    ratio = front * value
    return torch.where(swap, 1 - ratio, ratio)


def _away_from_zero(x: Tensor, tiny: Tensor) -> Tensor:
    return torch.where(x.abs() < tiny, tiny, x)


def used_rows(rows: Tensor, longest: int, patch: int) -> Tensor:
    """Rows ``[dims * patch, ...]`` that a patch size uses of ``rows [dims * longest, ...]``."""
    return torch.unflatten(rows, 0, (-1, longest))[:, :patch].flatten(0, 1)


def unmasked_rows(dims: int, longest: int, patch: int) -> Tensor | None:
    """``[dims * patch, 1]``, 1 for a used row whose weights upstream does not mask; None if it masks none."""
    place = used_rows(torch.arange(dims * longest), longest, patch)
    live = (place < dims * patch).float()[:, None]
    return live if (dims - 1) * longest + patch > dims * patch else None


class PatchRows(nn.Module):
    """What one patch size uses of upstream's ``MultiOutSizeLinear``.

    Args:
        width: d.
        sizes: all patch sizes of the checkpoint.
        patch: the one in use.
        dims: outputs a step.
    """

    unmasked: Tensor | None

    def __init__(self, width: int, sizes: Sequence[int], patch: int, dims: int) -> None:
        super().__init__()
        self.row, self.longest, self.patch, self.dims = list(sizes).index(patch), max(sizes), patch, dims
        self.weight = nn.Parameter(torch.empty(len(sizes), dims * self.longest, width))
        self.bias = nn.Parameter(torch.empty(len(sizes), dims * self.longest))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)
        nn.init.uniform_(self.bias, -(width**-0.5), width**-0.5)
        self.register_buffer("unmasked", unmasked_rows(dims, self.longest, patch), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., dims, patch]``."""
        weight = used_rows(self.weight[self.row], self.longest, self.patch)
        if self.unmasked is not None:
            weight = weight * self.unmasked
        bias = used_rows(self.bias[self.row], self.longest, self.patch)
        return torch.unflatten(F.linear(tokens, weight, bias), -1, (self.dims, self.patch))


class MixtureHead(nn.Module):
    """From states to mixtures: upstream's ``DistrParamProj``, with its names.

    Args:
        width: d.
        sizes: all patch sizes of the checkpoint.
        patch: the one in use.
        normal_scale: width of the narrow normal.
    """

    def __init__(self, width: int, sizes: Sequence[int], patch: int, normal_scale: float) -> None:
        super().__init__()
        self.normal_scale = normal_scale

        def rows(dims: int) -> PatchRows:
            return PatchRows(width, sizes, patch, dims)

        self.proj = nn.ModuleDict(
            {
                "weights_logits": rows(len(_COMPONENTS)),
                "components": nn.ModuleList(
                    nn.ModuleDict({name: rows(1) for name in names}) for names in _COMPONENTS
                ),
            }
        )

    def forward(self, tokens: Tensor, steps: int) -> Mixture:
        """Mixtures ``[B, D, steps]`` of the tokens ``[B, D, T, d]``, ``steps <= T * patch``."""
        weights = self.proj["weights_logits"](tokens).transpose(-1, -2).flatten(2, 3)
        components = [
            {name: rows(tokens).flatten(2)[..., :steps] for name, rows in one.items()}
            for one in cast("Iterable[nn.ModuleDict]", self.proj["components"])
        ]
        student, normal, counts, logs = components
        smallest = torch.finfo(tokens.dtype).eps
        return Mixture(
            logits=weights[..., :steps, :],
            df=2 + F.softplus(student["df"]),
            t_loc=student["loc"],
            t_scale=F.softplus(student["scale"]).clamp(min=smallest),
            normal_loc=normal["loc"],
            normal_scale=torch.full_like(normal["loc"], self.normal_scale),
            count=F.softplus(counts["total_count"]),
            count_logits=counts["logits"],
            log_loc=logs["loc"],
            log_scale=F.softplus(logs["scale"]).clamp(min=smallest),
        )
