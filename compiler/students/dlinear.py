"""DLinear: a moving-average split and linear maps of trend and season (paper B).

    trend = moving average of the window, edges replicated        season = window - trend
    shared:       y_d = W_t trend_d + W_s season_d (+ biases)     one pair of maps for all variates
      factored:   z_d = A trend_d + B season_d,  y_d = C z_d      z [d_S] is the variate embedding
    per-variate:  y_d = W_t,d trend_d + W_s,d season_d            one pair of maps a variate
    low-rank:     z_d = A_t trend_d + A_s season_d,  y_d = C_d z_d      z [r], heads C_d [H, r]

The factored and the low-rank form give FTA something to align at no cost: their products fold after
training.  Under instance normalisation there is no bias: it would be multiplied by the window's standard
deviation, and the map would not be affine any more.

Folding, with M the moving-average matrix [L, L] with replicated edges, in float64, rounded once:

    1.  W  = W_t M + W_s (I - M)                  plain;    C A M + C B (I - M)   factored
    2.  instance normalisation, y = std * W ((x - mean 1)/std) + mean 1:  std cancels, and
            W' = W + (1 - W 1) 1^T / L
    3.  last-value normalisation, y = W (x - x_L 1) + b + x_L 1:
            W' = W + (1 - W 1) e_L^T

so that y = W' x + b'.  std is cancelled before any rounding, so a constant window (std = sqrt(epsilon))
obeys the same identity.  The low-rank form keeps its two factors, see ``affine.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import PassError, RecipeError, UsageError
from ..ir.forecaster import Forecaster, Student
from ..ir.products import product_of_each
from .affine import (
    AffineMap,
    AffineMaps,
    LowRankMap,
    fold_low_rank,
    fold_per_variate,
    fold_shared,
    mean_added,
)
from .normalisation import Normalisation, denormalise, normalise

Maps = Literal["shared", "per-variate", "low-rank", "auto"]
Array = Tensor | np.ndarray


class DLinear(Student):
    """DLinear (Zeng et al., AAAI 2023), shared by all variates, one each, or of low rank.

    Args:
        kernel: odd length of the moving average.
        normalisation: per-window normalisation, see ``normalisation.py``; ``instance`` unless shared.
        embedding: width d_S of the factored shared form, or 0 for the plain form, without an embedding.
        maps: which variates share a map; ``auto`` is ``shared`` until a solver has chosen.
        rank: width r of the low-rank form's embedding; folded it is one more, so 4 k - 1 fills whole vectors.
        variates: D, for the forms that have weights of each variate.

    Raises:
        RecipeError: options that do not go together.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        kernel: int = 25,
        normalisation: Normalisation = "instance",
        embedding: int = 0,
        maps: Maps = "shared",
        rank: int = 7,
        variates: int = 0,
    ) -> None:
        super().__init__()
        _check_options(normalisation, embedding, maps, rank, variates, lookback)
        self.lookback, self.horizon = lookback, horizon
        self.kernel, self.normalisation = kernel, normalisation
        self.maps: Maps = maps
        self.embedding_dim = rank if maps == "low-rank" else embedding
        self.config = {
            "kind": "dlinear",
            "lookback": lookback,
            "horizon": horizon,
            "kernel": kernel,
            "normalisation": normalisation,
            "embedding": embedding,
            "maps": maps,
            "rank": rank,
            "variates": variates,
        }
        bias = normalisation != "instance"
        self.trend: nn.Module
        self.season: nn.Module
        self.head: nn.Module | None = None
        if maps == "per-variate":
            self.trend = EachLinear(variates, lookback, horizon)
            self.season = EachLinear(variates, lookback, horizon)
        else:
            width = self.embedding_dim or horizon
            self.trend = nn.Linear(lookback, width, bias=bias)
            self.season = nn.Linear(lookback, width, bias=bias)
        if maps == "low-rank":
            self.head = EachLinear(variates, rank, horizon)
        elif embedding:
            self.head = nn.Linear(embedding, horizon, bias=bias)
        # The map starts at zero: directions of the window that the data never excites then stay silent,
        # instead of carrying their random start into every forecast.
        for last in (self.head,) if self.head is not None else (self.trend, self.season):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def split(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Trend and season of ``window [B, D, L]``, each ``[B, D, L]``."""
        pad = (self.kernel - 1) // 2
        first, last = window[..., :1], window[..., -1:]
        padded = torch.cat([first.expand(-1, -1, pad), window, last.expand(-1, -1, pad)], dim=-1)
        trend = nn.functional.avg_pool1d(padded, self.kernel, stride=1)
        return trend, window - trend

    def embed(self, past: Tensor) -> Tensor:
        """``z [B, D, d_S]`` of the normalised window.

        Raises:
            PassError: a form without a head has no embedding.
        """
        return self.forecast_and_embedding(past)[1]

    def forecast_and_embedding(self, past: Tensor) -> tuple[Tensor, Tensor]:
        if self.head is None:
            raise PassError(
                f"a plain DLinear with {self.maps} maps has no embedding to align",
                hint="set student.embedding, e.g. --set student.embedding=256, or drop align_temporal",
            )
        window, offset, scale = normalise(past, self.normalisation)
        trend, season = self.split(window)
        embedding = self.trend(trend) + self.season(season)
        return denormalise(self.head(embedding), offset, scale), embedding

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        if self.head is not None:
            return self.forecast_and_embedding(past)[0]
        window, offset, scale = normalise(past, self.normalisation)
        trend, season = self.split(window)
        return denormalise(self.trend(trend) + self.season(season), offset, scale)

    @property
    def solvable(self) -> bool:
        return self.normalisation == "instance" and (self.head is None or self.maps == "low-rank")

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        return {"affine": AffineMap, "affine_maps": AffineMaps, "low_rank_map": LowRankMap}

    @torch.no_grad()
    def fold(self) -> Forecaster:
        """The affine map that a DLinear is, exactly, in the form of its ``maps``."""
        weight = self._weight_of_window()
        if self.maps == "per-variate":
            return fold_per_variate(weight)
        if self.maps == "low-rank":
            return fold_low_rank(weight, _weight(self.head))
        bias = _bias(self.trend) + _bias(self.season)
        if self.head is not None:
            bias = _weight(self.head) @ bias + _bias(self.head)
            weight = _weight(self.head) @ weight
        if self.normalisation == "instance":
            return fold_shared(mean_added(weight))
        if self.normalisation == "last":
            weight[:, -1] += 1 - weight.sum(dim=1)
        return fold_shared(weight, bias)

    def _weight_of_window(self) -> Tensor:
        """What trend and season together do to a normalised window, ``[..., outputs, L]``, float64."""
        identity = torch.eye(self.lookback, dtype=torch.float64)
        # Columns of M: the moving average of unit windows.  Exact: the split is linear.
        moving = self.split(identity.unsqueeze(0))[0][0].T
        return _weight(self.trend) @ moving + _weight(self.season) @ (identity - moving)

    @torch.no_grad()
    def centred_arrays(self) -> tuple[Tensor, ...]:
        """What ``load_affine`` takes, read back: the map in centred coordinates, in the form of its maps."""
        weight = self._weight_of_window()
        return (weight,) if self.head is None else (weight, _weight(self.head))

    @torch.no_grad()
    def load_affine(self, *arrays: Array) -> DLinear:
        """Becomes the affine map ``forecast - m = W (past - m)``, m the window's mean; returns itself.

        Trend and season get the same map, and ``W M + W (I - M) = W``.

        Args:
            arrays: ``weight [H, L]`` if shared, ``weights [D, H, L]`` if per variate,
                ``basis [r, L], heads [D, H, r]`` if low-rank.

        Raises:
            UsageError: arrays of another number or shape than this form has, or values that are not finite.
        """
        if self.normalisation != "instance" or (self.head is not None and self.maps != "low-rank"):
            raise UsageError(
                "only a plain, instance-normalised DLinear can take an affine map",
                hint="leave student.normalisation and student.embedding at their defaults",
            )
        targets = [self.trend] if self.head is None else [self.trend, self.head]
        found = [torch.as_tensor(array, dtype=torch.float64) for array in arrays]
        expected = [list(_parameter(module).shape) for module in targets]
        if [list(array.shape) for array in found] != expected:
            raise UsageError(
                f"maps of shape {[list(array.shape) for array in found]} for a DLinear with {self.maps} "
                f"maps, expected {expected}"
            )
        if not all(bool(torch.isfinite(array).all()) for array in found):
            raise UsageError("an affine map has values that are not finite")
        for module, array in zip(targets, found, strict=True):
            _parameter(module).copy_(array)
        _parameter(self.season).copy_(found[0])
        return self

    @classmethod
    def from_affine(
        cls,
        form: Maps,
        arrays: Array | Sequence[Array],
        **config: Any,
    ) -> DLinear:
        """A DLinear that is the given affine map, see ``load_affine``.

        Args:
            form: ``shared``, ``per-variate`` or ``low-rank``.
            arrays: one array, or a sequence of them, numpy or torch.
            config: lookback, horizon, variates and further options; the rank is that of the arrays.

        Raises:
            UsageError: arrays that do not fit the form.
        """
        listed = [arrays] if isinstance(arrays, (Tensor, np.ndarray)) else list(arrays)
        if form == "low-rank":
            config["rank"] = len(listed[0]) if listed else 0
        config.pop("kind", None)
        student = cls(**{**config, "maps": form})
        return student.load_affine(*listed)


class EachLinear(nn.Module):
    """A linear map of its own for every variate, without a bias: ``weight [D, outputs, inputs]``."""

    def __init__(self, variates: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(variates, outputs, inputs))

    def forward(self, rows: Tensor) -> Tensor:
        """``rows [B, D, inputs]`` to ``[B, D, outputs]``."""
        return product_of_each(rows, self.weight.transpose(1, 2))


def _check_options(
    normalisation: str, embedding: int, maps: str, rank: int, variates: int, lookback: int
) -> None:
    if maps not in get_args(Maps):
        raise RecipeError(f"student.maps={maps!r}", hint=f"known: {', '.join(get_args(Maps))}")
    if maps in ("shared", "auto"):
        return
    if variates < 1:
        raise RecipeError(
            f"student.maps={maps!r} has weights of each variate, but student.variates={variates}",
            hint="give the number of variates of the task",
        )
    if normalisation != "instance":
        raise RecipeError(
            f"student.maps={maps!r} with student.normalisation={normalisation!r}",
            hint="maps of each variate need normalisation 'instance'",
        )
    if embedding:
        raise RecipeError(
            f"student.maps={maps!r} with student.embedding={embedding}",
            hint="student.embedding factors the shared form; the low-rank form's embedding is student.rank",
        )
    if maps == "low-rank" and not 1 <= rank <= lookback:
        raise RecipeError(f"student.rank={rank}", hint=f"choose 1 to {lookback}, the lookback")


def _parameter(module: nn.Module) -> nn.Parameter:
    weight = module.weight
    if not isinstance(weight, nn.Parameter):
        raise TypeError(f"{type(module).__name__} has no weight")
    return weight


def _weight(module: nn.Module | None) -> Tensor:
    if module is None:
        raise TypeError("a form without a head has no head's weight")
    return _parameter(module).double()


def _bias(module: nn.Module) -> Tensor:
    bias = module.bias
    if isinstance(bias, Tensor):
        return bias.double()
    return torch.zeros(len(_parameter(module)), dtype=torch.float64)
