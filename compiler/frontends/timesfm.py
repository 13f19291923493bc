"""TimesFM 2.5 through the ``timesfm2_5`` backbone of the transformers package.

Source: transformers' timesfm2_5.  For every variate on its own, with patches of 32 steps:

1. z = (past - mean) / std over the context (unbiased std; divided by 1 where std < 1e-6);
2. the backbone normalises each patch by the running mean and std of the patches so far, and gives a
   state a patch;
3. two residual heads read the last state: a point head (mean head and deciles for 128 steps) and a
   quantile head, whose deciles are shifted so that its median is the point head's;
4. flip invariance: (f(z) - f(-z)) / 2, with the quantiles mirrored;
5. forecast = median * std + mean, cut to the horizon, and not below 0 for a context without negatives.

The backbone and the heads are transformers' modules, with its parameter names; steps 1 and 3-5 stand
here for a batch of any size, where transformers takes a list of series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ..base.errors import MissingError, TeacherError
from ..ir.forecaster import Teacher, TeacherOutputs
from .base import Frontend, TeacherCard
from .options import choose
from .settings import Settings

Positive = Literal["window", "batch", "off"]

SMALLEST_STD = 1e-6
"""Upstream divides by 1 below it."""

SIZES = (
    *("hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads"),
    *("num_hidden_layers", "patch_length", "horizon_length", "context_length", "output_quantile_len"),
)
"""What transformers multiplies and divides by without a look."""


class TimesFm(Teacher):
    """TimesFM 2.5 with fixed lookback and horizon, one pass.

    Not prunable here: the norms of queries and keys mix the head's channels, and the blocks belong to
    transformers.

    Args:
        settings: the ``config.json`` of the transformers layout.
        lookback: L.  Shorter than ``context``, it is padded with zeros on the left.
        horizon: H, at most the model's 128 steps.
        variates: D.
        context: steps that the backbone sees, a multiple of 32; upstream's ``forecast_context_len``.  As
            upstream does it, mean and std are taken over the padded series and only wholly padded
            patches are masked.
        flip: whether to average with the negated forecast of the negated series, which doubles the work
            (upstream's ``force_flip_invariance``).
        positive: where forecasts are clamped at 0: ``window``, in each series whose own context has no
            negative value, so that a forecast does not depend on its neighbours in the batch; ``batch``,
            upstream's rule in transformers, if there is none in the whole batch; or ``off``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        lookback: int,
        horizon: int,
        variates: int,
        context: int,
        flip: bool,
        positive: Positive,
    ) -> None:
        super().__init__()
        network = _network(settings)
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.context, self.flip, self.positive = context, flip, positive
        self.quantile_levels = settings.levels("quantiles")
        self.median = settings.integer("decode_index", 5)
        self.continuous = bool(settings.config.get("use_continuous_quantile_head", True))
        self.patches = -(-lookback // settings.integer("patch_length", 32))
        self.model: nn.Module = network.model
        self.output_projection_point: nn.Module = network.output_projection_point
        self.output_projection_quantiles: nn.Module = network.output_projection_quantiles

    def forward(self, past: Tensor) -> Tensor:
        """The median ``[B, D, H]`` of ``past [B, D, L]``."""
        return self._predict(past)[0][..., self.median]

    def quantiles(self, past: Tensor) -> Tensor:
        """Deciles ``[B, D, H, 9]``."""
        return self._predict(past)[0][..., 1:]

    def states(self, past: Tensor) -> Tensor:
        """States of the last layer over the patches of the lookback ``[B, D, S, d]``, unflipped pass."""
        series, _, _, padding = self._normalised(past)
        return self._by_variate(self._backbone(series, padding)[0][:, -self.patches :])

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Forecast, quantiles and states in one evaluation."""
        columns, hidden = self._predict(past)
        return TeacherOutputs(columns[..., self.median], columns[..., 1:], hidden if states else None)

    def _by_variate(self, values: Tensor) -> Tensor:
        """``[B * D, ...]`` to ``[B, D, ...]``."""
        return values.reshape(-1, self.variates, *values.shape[1:])

    def _normalised(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Series ``[N, context]``, its mean and std ``[N, 1]``, and where it is padding (1) or not (0)."""
        series = past.flatten(0, 1)
        absent = self.context - self.lookback
        padding = nn.functional.pad(torch.zeros_like(series), (absent, 0), value=1.0)
        series = nn.functional.pad(series, (absent, 0))
        mean = series.mean(-1, keepdim=True)
        centred = series - mean
        std = (centred.square().sum(-1, keepdim=True) / (self.context - 1)).sqrt()
        return centred / torch.where(std < SMALLEST_STD, torch.ones_like(std), std), mean, std, padding

    def _backbone(self, series: Tensor, padding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States ``[N, P, d]``, and mean and std ``[N, 1, 1]`` of the whole series as the model has them."""
        seen = self.model(past_values=series, past_values_padding=padding)
        return (
            seen.last_hidden_state,
            seen.context_mu[:, -1, None, None],
            seen.context_sigma[:, -1, None, None],
        )

    def _columns(self, series: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Mean head and quantiles ``[N, H, 1 + Q]`` of one pass, and the states ``[N, P, d]``."""
        states, mean, std = self._backbone(series, padding)
        last = states[:, -1]
        width = 1 + len(self.quantile_levels)
        point = self.output_projection_point(last).reshape(last.shape[0], -1, width)[:, : self.horizon]
        if not self.continuous:
            return point * std + mean, states
        spread = self.output_projection_quantiles(last).reshape(last.shape[0], -1, width)[:, : self.horizon]
        median = point[..., self.median, None]
        shifted = spread - spread[..., self.median, None] + median
        return torch.cat([point[..., :1], shifted[..., 1:]], dim=-1) * std + mean, states

    def _predict(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Mean head and quantiles ``[B, D, H, 1 + Q]``, in the units of ``past``; states ``[B, D, S, d]``."""
        series, mean, std, padding = self._normalised(past)
        columns, states = self._columns(series, padding)
        if self.flip:
            negated, _ = self._columns(-series, padding)
            mirrored = torch.cat([negated[..., :1], negated[..., 1:].flip(-1)], dim=-1)
            columns = (columns - mirrored) / 2
        columns = self._by_variate(columns * std[..., None] + mean[..., None])
        if self.positive != "off":
            least = past.amin(-1)[..., None, None] if self.positive == "window" else past.amin()
            columns = torch.where(least >= 0, columns.clamp(min=0), columns)
        return columns, self._by_variate(states[:, -self.patches :])


def _network(settings: Settings) -> Any:
    """transformers' prediction model with untrained weights."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction

    for name in SIZES:
        settings.integer(name, 1)
    fields = {name: value for name, value in settings.config.items() if name != "tsfmc"}
    try:
        return TimesFm2_5ModelForPrediction(TimesFm2_5Config(**fields))
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TeacherError(
            f"{settings.family} config: transformers cannot build it ({reason})",
            hint="use the config.json that belongs to the checkpoint",
        ) from error


class TimesFmFrontend(Frontend):
    """TimesFM 2.5, in the transformers layout of its checkpoint; several public projects pin this commit."""

    family: ClassVar[str] = "timesfm"
    licence: ClassVar[str] = "Apache-2.0"
    commercial: ClassVar[bool] = True
    cards: ClassVar[tuple[TeacherCard, ...]] = (
        TeacherCard(
            name="timesfm-2.5",
            family="timesfm",
            repo_id="google/timesfm-2.5-200m-transformers",
            revision="5a9806b9b291fad9233b5249d88263f1846304d3",
            parameters=231_289_280,
            context=16384,
            licence="Apache-2.0",
            commercial=True,
            quantiles=True,
            extra="timesfm",
            config={
                "model_type": "timesfm2_5",
                "patch_length": 32,
                "context_length": 16384,
                "horizon_length": 128,
                "num_hidden_layers": 20,
                "hidden_size": 1280,
                "intermediate_size": 1280,
                "head_dim": 80,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
                "output_quantile_len": 1024,
                "decode_index": 5,
                "force_flip_invariance": True,
                "infer_is_positive": True,
                "use_continuous_quantile_head": True,
            },
        ),
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By ``model_type``."""
        return config.get("model_type") == "timesfm2_5"

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> TimesFm:
        """See ``Frontend.build``.

        Options are ``context``, ``flip`` and ``positive`` of ``TimesFm``.  Without them the context is the
        lookback up to a whole patch, and flip and positive follow the configuration
        (``force_flip_invariance``, ``infer_is_positive``: ``window`` or ``off``).

        Raises:
            MissingError: the transformers package, or its TimesFM 2.5, is not installed.
        """
        try:
            import transformers.models.timesfm2_5  # noqa: F401
        except ImportError as error:
            raise MissingError(
                f"teacher family timesfm needs transformers with timesfm2_5: {error}",
                hint="pip install 'tsfmc[timesfm]'",
            ) from error
        settings = Settings(self.family, config)
        patch = settings.integer("patch_length", 32)
        whole = -(-lookback // patch) * patch
        given = dict(options)
        context = given.pop("context", whole)
        flips, clamps = (True, False), get_args(Positive)
        if not config.get("force_flip_invariance", True):
            flips = flips[::-1]
        if not config.get("infer_is_positive", True):
            clamps = clamps[::-1]
        chosen = choose(self.family, given, {"flip": flips, "positive": clamps})
        _check_lengths(settings, lookback, horizon, context, patch)
        teacher = TimesFm(
            settings, lookback=lookback, horizon=horizon, variates=variates, context=context, **chosen
        )
        teacher.options = chosen if context == whole else {**chosen, "context": context}
        return teacher

    def rename(self, state: dict[str, Any]) -> dict[str, Any]:
        """Files call the two linear maps of an MLP ``ff0`` and ``ff1``, the modules ``fc1`` and ``fc2``."""
        return {
            name.replace(".mlp.ff0.", ".mlp.fc1.").replace(".mlp.ff1.", ".mlp.fc2."): tensor
            for name, tensor in state.items()
        }


def _check_lengths(settings: Settings, lookback: int, horizon: int, context: Any, patch: int) -> None:
    longest = settings.integer("context_length", 16384)
    if not isinstance(context, int) or context % patch or not lookback <= context <= longest:
        raise TeacherError(
            f"{settings.family}: context is {context!r} for lookback {lookback}, "
            f"expected a multiple of {patch} from {lookback} to {longest}"
        )
    steps = settings.integer("horizon_length", 128)
    if settings.config.get("use_continuous_quantile_head", True):
        steps = min(steps, settings.integer("output_quantile_len", 1024))
    if horizon > steps:
        raise TeacherError(
            f"{settings.family}: horizon is {horizon}, expected at most {steps}, one pass of the model"
        )


FRONTEND = TimesFmFrontend()
