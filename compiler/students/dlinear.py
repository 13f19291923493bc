"""DLinear: a moving-average split and two linear maps shared by all variates (paper B).

    trend = moving average of the window, edges replicated        season = window - trend
    plain:     y = W_t trend + W_s season (+ biases)
    factored:  z = A trend + B season,  y = C z                   z [d_S] is the variate embedding

The factored form gives FTA something to align at no cost: ``C A`` and ``C B`` fold into one matrix
after training.  Under instance normalisation there is no bias: it would be multiplied by the window's
standard deviation, and the map would not be affine any more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base.errors import PassError
from ..ir.forecaster import Student
from .normalisation import Normalisation, denormalise, normalise


class DLinear(Student):
    """DLinear (Zeng et al., AAAI 2023), optionally factored.

    Args:
        kernel: odd length of the moving average.
        normalisation: per-window normalisation, see ``normalisation.py``.
        embedding: width d_S of the factored form, or 0 for the plain form, which has no embedding.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        kernel: int = 25,
        normalisation: Normalisation = "instance",
        embedding: int = 0,
    ) -> None:
        super().__init__()
        self.lookback, self.horizon, self.embedding_dim = lookback, horizon, embedding
        self.kernel, self.normalisation = kernel, normalisation
        self.config = {
            "kind": "dlinear",
            "lookback": lookback,
            "horizon": horizon,
            "kernel": kernel,
            "normalisation": normalisation,
            "embedding": embedding,
        }
        bias = normalisation != "instance"
        width = embedding or horizon
        self.trend = nn.Linear(lookback, width, bias=bias)
        self.season = nn.Linear(lookback, width, bias=bias)
        self.head = nn.Linear(embedding, horizon, bias=bias) if embedding else None
        # The map starts at zero: directions of the window that the data never excites then stay silent,
        # instead of carrying their random start into every forecast.
        for last in (self.head,) if self.head is not None else (self.trend, self.season):
            nn.init.zeros_(last.weight)

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
            PassError: the plain form has no embedding.
        """
        return self.forecast_and_embedding(past)[1]

    def forecast_and_embedding(self, past: Tensor) -> tuple[Tensor, Tensor]:
        if self.head is None:
            raise PassError(
                "a plain DLinear has no embedding to align",
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
