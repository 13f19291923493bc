"""Upstream's Moirai, as sktime carries it, behind plain functions.

The forecast classes are Lightning modules.  Only their conversion of series to tokens and back is needed
here, which reads nothing but the module and a few settings, so an instance is filled by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from sktime.libs.uni2ts.distribution.log_normal import LogNormalOutput
from sktime.libs.uni2ts.distribution.mixture import MixtureOutput
from sktime.libs.uni2ts.distribution.negative_binomial import NegativeBinomial, NegativeBinomialOutput
from sktime.libs.uni2ts.distribution.normal import NormalFixedScaleOutput
from sktime.libs.uni2ts.distribution.student_t import StudentTOutput
from sktime.libs.uni2ts.forecast import MoiraiForecast, SampleNLLLoss
from sktime.libs.uni2ts.moirai2_forecast import Moirai2Forecast
from sktime.libs.uni2ts.moirai2_module import Moirai2Module
from sktime.libs.uni2ts.moirai_module import MoiraiModule
from torch import Tensor

from tsfmc.compiler.ir.forecaster import Teacher

# The default that uni2ts has and sktime's copy lost; the mixture's log_prob relies on it.
NegativeBinomial.sample.__defaults__ = (torch.Size(),)

_FIELDS = ("d_model", "num_layers", "max_seq_len", "attn_dropout_p", "dropout_p", "scaling")


def _inputs(past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Target, observed mask and padding mask, time first."""
    target = past.transpose(1, 2)
    return target, torch.ones_like(target, dtype=torch.bool), torch.zeros(target.shape[:2], dtype=torch.bool)


def _settings(teacher: Teacher, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        prediction_length=teacher.horizon,
        target_dim=teacher.variates,
        context_length=teacher.lookback,
        **more,
    )


class UpstreamMoirai:
    """Upstream's Moirai 1 with the weights and the task of ``teacher``."""

    def __init__(self, teacher: Teacher, patch_size: int) -> None:
        config: Mapping[str, Any] = teacher.config
        normal = config["distr_output"]["components"][1]["scale"]
        module = MoiraiModule(
            distr_output=MixtureOutput(
                [
                    StudentTOutput(),
                    NormalFixedScaleOutput(normal),
                    NegativeBinomialOutput(),
                    LogNormalOutput(),
                ]
            ),
            patch_sizes=tuple(config["patch_sizes"]),
            **{name: config[name] for name in _FIELDS},
        )
        module.load_state_dict(teacher.state_dict(), strict=True)
        self.patch_size = patch_size
        self.forecast = MoiraiForecast.__new__(MoiraiForecast)
        self.forecast.module = module.eval()
        self.forecast.hparams = _settings(teacher, patch_size=patch_size)
        self.forecast.per_sample_loss_func = SampleNLLLoss()

    def mean(self, past: Tensor) -> Tensor:
        """Analytic mean ``[B, D, H]``."""
        return self._steps(self.forecast._get_distr(self.patch_size, *_inputs(past)).mean[None], past)[
            :, :, 0
        ]

    def samples(self, past: Tensor, count: int) -> Tensor:
        """``[B, D, count, H]``."""
        distribution = self.forecast._get_distr(self.patch_size, *_inputs(past))
        return self._steps(distribution.sample(torch.Size((count,))), past)

    def loss(self, windows: Tensor) -> Tensor:
        """Validation loss ``[B]`` of ``windows [B, D, L + H]``, as ``patch_size="auto"`` computes it."""
        target, observed, padded = _inputs(windows)
        loss: Tensor = self.forecast._val_loss(self.patch_size, target, observed, padded)
        return loss

    def states(self, past: Tensor) -> Tensor:
        """Encoder output of all tokens ``[B, S, d]``."""
        seen: list[Tensor] = []
        hook = self.forecast.module.encoder.register_forward_hook(lambda _, __, output: seen.append(output))
        self.mean(past)
        hook.remove()
        return seen[0]

    def _steps(self, tokens: Tensor, past: Tensor) -> Tensor:
        steps = self.forecast._format_preds(self.patch_size, tokens, past.shape[1])
        steps = steps[..., None] if past.shape[1] == 1 else steps
        ordered: Tensor = steps.permute(0, 3, 1, 2)
        return ordered


class UpstreamMoirai2:
    """Upstream's Moirai 2 with the weights and the task of ``teacher``."""

    def __init__(self, teacher: Teacher) -> None:
        config: Mapping[str, Any] = teacher.config
        fields = (*_FIELDS, "d_ff", "patch_size", "num_predict_token", "quantile_levels")
        module = Moirai2Module(**{name: config[name] for name in fields})
        module.load_state_dict(teacher.state_dict(), strict=True)
        self.forecast = Moirai2Forecast.__new__(Moirai2Forecast)
        self.forecast.module, self.forecast.device = module.eval(), "cpu"
        self.forecast.hparams = _settings(teacher)

    def quantiles(self, past: Tensor) -> Tensor:
        """``[B, D, H, Q]``."""
        (steps,), _, _ = self.forecast.forward(*_inputs(past))
        steps = steps[..., None] if past.shape[1] == 1 else steps
        ordered: Tensor = steps.permute(0, 3, 1, 2)
        return ordered

    def states(self, past: Tensor) -> Tensor:
        """Encoder output of all tokens of the first pass ``[B, S, d]``."""
        seen: list[Tensor] = []
        hook = self.forecast.module.encoder.register_forward_hook(lambda _, __, output: seen.append(output))
        self.quantiles(past)
        hook.remove()
        return seen[0]
