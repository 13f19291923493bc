"""Published TTM checkpoints.

Revisions are those of granite-tsfm's own table (``tsfm_public/resources/model_paths_config/ttm.yaml``).
The two ``main`` revisions are pinned to a commit (r1 from a public listing of the repository that shows the
512-96 weights, r2 from public code that pins it); the others are pinned to the branch under which they are
published, because no public source gives their commit.  ``parameters`` is 0 where none gives the
architecture.

Pre-training data: the r1 model card lists Monash sets only (Australian electricity and weather, bitcoin,
KDD cup, London smart meters, Saugeen, solar, sunspots, US births, wind), so none of the standard sets.
For r2 no list was found: unknown.

Revisions trained with a frequency prefix (``-ft-``) are not here: ``resolution_prefix_tuning`` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ir.provenance import Overlap
from ..base import TeacherCard

_R1 = "ibm-granite/granite-timeseries-ttm-r1"
_R2 = "ibm-granite/granite-timeseries-ttm-r2"
_R1_MAIN = "4cda9a9140627f7d8a435ab88c931eec2a5c74c3"
_R2_MAIN = "d6a79570cac0f33d526601cd3a0fc7c80a8f9a2f"
_STANDARD = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "electricity", "traffic")
_SEEN_BY_R1: Mapping[str, Overlap] = dict.fromkeys(_STANDARD, "no")

_512_96: Mapping[str, Any] = {
    "model_type": "tinytimemixer",
    "context_length": 512,
    "prediction_length": 96,
    "patch_length": 64,
    "patch_stride": 64,
    "d_model": 192,
    "num_layers": 2,
    "adaptive_patching_levels": 3,
    "expansion_factor": 2,
    "decoder_d_model": 128,
    "decoder_num_layers": 2,
    "decoder_adaptive_patching_levels": 0,
    "scaling": "std",
    "loss": "mse",
}
_1024_96: Mapping[str, Any] = {**_512_96, "context_length": 1024, "patch_length": 128, "patch_stride": 128}


def _card(
    name: str,
    repo_id: str,
    revision: str,
    context: int,
    parameters: int = 0,
    config: Mapping[str, Any] | None = None,
) -> TeacherCard:
    return TeacherCard(
        name=name,
        family="ttm",
        repo_id=repo_id,
        revision=revision,
        parameters=parameters,
        context=context,
        licence="Apache-2.0",
        commercial=True,
        quantiles=False,
        overlap=_SEEN_BY_R1 if repo_id == _R1 else {},
        config=config,
    )


CARDS = (
    _card("ttm-r2", _R2, _R2_MAIN, 512, 805_280, _512_96),
    _card("ttm-r2-512-96", _R2, _R2_MAIN, 512, 805_280, _512_96),
    *(
        _card(f"ttm-r2-{context}-{horizon}", _R2, f"{context}-{horizon}-r2", context)
        for context in (512, 1024, 1536)
        for horizon in (96, 192, 336, 720)
        if (context, horizon) != (512, 96)
    ),
    _card("ttm-r1", _R1, _R1_MAIN, 512, 805_280, _512_96),
    _card("ttm-r1-512-96", _R1, _R1_MAIN, 512, 805_280, _512_96),
    _card("ttm-r1-1024-96", _R1, "1024_96_v1", 1024, 817_568, _1024_96),
)


def context_and_horizon(card: TeacherCard) -> tuple[int, int]:
    """The lookback that a revision takes and its longest horizon; the short names are 512-96."""
    parts = card.name.split("-")[2:]
    return (int(parts[0]), int(parts[1])) if parts else (512, 96)


def revisions_for(lookback: int, horizon: int) -> str:
    """A hint that names the published revisions with this lookback and at least this horizon."""
    fits = [card.name for card in CARDS if _fits(card, lookback, horizon)]
    if fits:
        return f"published for lookback {lookback} and horizon {horizon}: {', '.join(fits)}"
    lookbacks = sorted({context_and_horizon(card)[0] for card in CARDS})
    return f"published lookbacks: {lookbacks}, horizons up to 720"


def _fits(card: TeacherCard, lookback: int, horizon: int) -> bool:
    context, longest = context_and_horizon(card)
    return context == lookback and longest >= horizon
