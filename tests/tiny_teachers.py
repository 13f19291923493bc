"""One tiny random teacher of every family that has a configuration, in the true configuration format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from factory import TINY_TTM

from tsfmc.compiler.frontends import build_teacher
from tsfmc.compiler.frontends.moirai.moirai1 import FRONTEND as MOIRAI
from tsfmc.compiler.frontends.moirai.moirai2 import PUBLISHED
from tsfmc.compiler.ir.forecaster import Teacher

_DECODER = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 3}

Recipe = tuple[dict[str, Any], int, int]
"""Configuration, lookback, horizon."""

# The prunable families; horizons long enough for a second pass where a family rolls out.
TINY: Mapping[str, Recipe] = {
    "ttm": (TINY_TTM, 48, 12),
    "time-moe": (
        {
            "model_type": "time_moe",
            **_DECODER,
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "horizon_lengths": [1, 8, 32, 64],
            # A value near 0 is embedded near 0; the published 1e-6 would let a norm enlarge the rounding of
            # such a token a thousandfold, beyond what float32 comparisons at 1e-5 are about.
            "rms_norm_eps": 1e-2,
        },
        24,
        9,
    ),
    "timer": ({"model_type": "timer", **_DECODER, "input_token_len": 8, "output_token_lens": [8]}, 48, 12),
    "chronos-bolt": (
        {
            "architectures": ["ChronosBoltModelForForecasting"],
            "chronos_config": {
                "context_length": 64,
                "input_patch_size": 8,
                "input_patch_stride": 8,
                "prediction_length": 12,
                "quantiles": [0.1, 0.5, 0.9],
                "use_reg_token": True,
            },
            "model_type": "t5",
            "d_model": 16,
            "d_ff": 24,
            "d_kv": 6,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 3,
            "dense_act_fn": "relu",
            "is_gated_act": False,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 6,
        },
        40,
        20,
    ),
    "moirai": (
        {**MOIRAI.cards[0].config, "d_model": 128, "num_layers": 2, "patch_sizes": [4, 8, 16]},
        40,
        20,
    ),
    "moirai-2": (
        {**PUBLISHED, "d_model": 128, "d_ff": 24, "num_layers": 2, "patch_size": 4},
        40,
        20,
    ),
}

# Of these, the families with RMS norms: dims of their residual streams can be pruned.
STREAMS = ("time-moe", "chronos-bolt", "moirai", "moirai-2")

# Families whose blocks belong to their packages; one pass.
WHOLE: Mapping[str, Recipe] = {
    "chronos-2": (
        {
            "architectures": ["Chronos2Model"],
            "chronos_config": {
                "context_length": 64,
                "input_patch_size": 8,
                "input_patch_stride": 8,
                "max_output_patches": 4,
                "output_patch_size": 8,
                "quantiles": [0.1, 0.5, 0.9],
                "time_encoding_scale": 64,
                "use_arcsinh": True,
                "use_reg_token": True,
            },
            "model_type": "t5",
            "d_model": 12,
            "d_ff": 16,
            "d_kv": 6,
            "num_layers": 2,
            "num_heads": 2,
            "dropout_rate": 0.1,
            "feed_forward_proj": "relu",
            "layer_norm_epsilon": 1e-6,
            "rope_theta": 10000.0,
            "vocab_size": 2,
        },
        40,
        20,
    ),
    "timesfm": (
        {
            "model_type": "timesfm2_5",
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "output_quantile_len": 128,
            "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        },
        64,
        12,
    ),
}

HAVE_DEAD_WEIGHTS = {"chronos-bolt", "moirai", "time-moe"}
"""Families of which ``drop_dead_weights`` makes something smaller."""


def tiny_teacher(family: str, *, variates: int = 2, seed: int = 1, horizon: int | None = None) -> Teacher:
    """Random weights, norm weights about 1, so that nothing is hidden by a neutral value.

    Args:
        horizon: another one than the table's, for example one that needs no second pass.
    """
    config, lookback, steps = {**TINY, **WHOLE}[family]
    teacher = build_teacher(config, lookback=lookback, horizon=horizon or steps, variates=variates)
    generator = torch.Generator().manual_seed(seed)
    # Moirai's mean is an exponential of its head, Chronos-2's forecast a hyperbolic sine: smaller weights
    # keep them in a range that float32 resolves.
    scale = 0.1 if family.startswith(("moirai", "chronos-2")) else 0.3
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            drawn = scale * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return teacher
