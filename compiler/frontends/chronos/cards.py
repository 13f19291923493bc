"""Published Chronos-Bolt and Chronos-2 checkpoints (Apache-2.0).

Revisions are commits that public code pins for these repositories, each in several projects.

About the pre-training data of Chronos-2 nothing was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ir.provenance import Overlap
from ..base import TeacherCard

# The authors in amazon-science/chronos-forecasting, issue 245: the real data of Bolt are those of Chronos;
# used were "pretraining only" and "in-domain" of arXiv:2403.07815, table 3, not its zero-shot sets and not
# what the table does not list.  By that repository's scripts/evaluation/configs electricity is in-domain (its
# training part, hourly and in 15 minutes), ETT and traffic are zero-shot sets.  The Jena weather set is not
# listed; what is called weather there is the Australian one, and a zero-shot set too.
_SEEN_BY_BOLT: Mapping[str, Overlap] = {
    **dict.fromkeys(("ETTh1", "ETTh2", "ETTm1", "ETTm2", "traffic", "weather"), "no"),
    "electricity": "yes",
}
_DECILES = [level / 10 for level in range(1, 10)]
_BOLT: Mapping[str, Any] = {
    "architectures": ["ChronosBoltModelForForecasting"],
    "chronos_pipeline_class": "ChronosBoltPipeline",
    "chronos_config": {
        "context_length": 2048,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "prediction_length": 64,
        "quantiles": _DECILES,
        "use_reg_token": True,
    },
    "model_type": "t5",
    "d_kv": 64,
    "decoder_start_token_id": 0,
    "dense_act_fn": "relu",
    "is_gated_act": False,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "dropout_rate": 0.1,
}
_CHRONOS_2: Mapping[str, Any] = {
    "architectures": ["Chronos2Model"],
    "chronos_pipeline_class": "Chronos2Pipeline",
    "chronos_config": {
        "context_length": 8192,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "max_output_patches": 64,
        "output_patch_size": 16,
        "quantiles": [0.01, *(level / 20 for level in range(1, 20)), 0.99],
        "time_encoding_scale": 8192,
        "use_arcsinh": True,
        "use_reg_token": True,
    },
    "model_type": "t5",
    "d_kv": 64,
    "dense_act_fn": "relu",
    "dropout_rate": 0.1,
    "feed_forward_proj": "relu",
    "initializer_factor": 0.05,
    "is_gated_act": False,
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0,
    "reg_token_id": 1,
    "rope_theta": 10000.0,
    "vocab_size": 2,
}


def _bolt(size: str, commit: str, parameters: int, **sizes: int) -> TeacherCard:
    return TeacherCard(
        name=f"chronos-bolt-{size}",
        family="chronos-bolt",
        repo_id=f"amazon/chronos-bolt-{size}",
        revision=commit,
        parameters=parameters,
        context=2048,
        licence="Apache-2.0",
        commercial=True,
        quantiles=True,
        overlap=_SEEN_BY_BOLT,
        config={**_BOLT, **sizes},
    )


def _chronos_2(name: str, repo_id: str, revision: str, parameters: int = 0, **sizes: int) -> TeacherCard:
    return TeacherCard(
        name=name,
        family="chronos-2",
        repo_id=repo_id,
        revision=revision,
        parameters=parameters,
        context=8192,
        licence="Apache-2.0",
        commercial=True,
        quantiles=True,
        extra="chronos",
        config={**_CHRONOS_2, **sizes} if sizes else None,
    )


def _sizes(width: int, hidden: int, layers: int, heads: int) -> dict[str, int]:
    return {"d_model": width, "d_ff": hidden, "num_layers": layers, "num_heads": heads}


BOLT_CARDS = (
    _bolt("tiny", "a0e552de83495b5c28c14c71c374f3e33280b340", 8_652_672, **_sizes(256, 1024, 4, 4)),
    _bolt("mini", "251268337516a88e253628c43e1d26ec577b376b", 21_236_096, **_sizes(384, 1536, 4, 8)),
    _bolt("small", "772f3d25d38aec6d914c8949dab4462e2d46f5d8", 47_718_016, **_sizes(512, 2048, 6, 8)),
    _bolt("base", "5d9f166d69f47aef3401367a7b842e78fe97b121", 205_292_928, **_sizes(768, 3072, 12, 12)),
)
CHRONOS_2_CARDS = (
    _chronos_2(
        "chronos-2",
        "amazon/chronos-2",
        "29ec3766d36d6f73f0696f85560a422f50e8498c",
        119_477_664,
        **_sizes(768, 3072, 12, 12),
    ),
    _chronos_2(
        "chronos-2-small",
        "autogluon/chronos-2-small",
        "ddec01313e50b6bc58ebaa92ede81bc24a3d9f9a",
        28_262_560,
        **_sizes(512, 2048, 6, 8),
    ),
    _chronos_2("chronos-2-synth", "autogluon/chronos-2-synth", "3607918a9fd027d5c465d8213e46b98e2c041cea"),
)
