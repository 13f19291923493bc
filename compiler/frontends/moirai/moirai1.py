"""Moirai 1.0 and 1.1 (uni2ts): a masked encoder over the patches of all variates, with a mixture head.

Source: parity with uni2ts.  With patch size p, left zeros up to a multiple of p:

1. loc, scale of each variate's lookback (:func:`~.moirai_encoder.location_and_scale`); the zero padding is
   normalised with the rest, so it enters as ``-loc / scale``;
2. a patch of p values becomes a token by the projection of this patch size; each of the ceil(H / p) future
   tokens of every variate is ``mask_encoding``;
3. one encoder over all tokens of all variates (:mod:`~.moirai_encoder`);
4. the states of the future tokens give the parameters of a mixture a step (:mod:`~.moirai_mixture`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import TeacherError
from ...ir.forecaster import Teacher, TeacherOutputs
from ...ir.provenance import Overlap
from ...ir.prunable import Kept, Member, PrunableStructure
from ..base import Frontend, TeacherCard
from ..checkpoint import build_with
from ..options import choose
from ..settings import Settings
from .encoder import STREAM, Encoder, TokenLayout, check_encoder, location_and_scale
from .mixture import Mixture, MixtureHead, PatchRows
from .patch import keep_one_patch_size, patch_sizes

Point = Literal["mean", "median"]

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PREFERRED_PATCH = 32
"""The one size that upstream trains on for every frequency from daily to minutes."""

_MIXTURE = ("StudentTOutput", "NormalFixedScaleOutput", "NegativeBinomialOutput", "LogNormalOutput")


class PatchEmbedding(nn.Module):
    """The projection that one patch size uses of upstream's ``MultiInSizeLinear``."""

    def __init__(self, width: int, sizes: tuple[int, ...], patch: int) -> None:
        super().__init__()
        self.row, self.patch = sizes.index(patch), patch
        self.weight = nn.Parameter(torch.empty(len(sizes), width, max(sizes)))
        self.bias = nn.Parameter(torch.empty(len(sizes), width))
        nn.init.uniform_(self.weight, -(patch**-0.5), patch**-0.5)
        nn.init.uniform_(self.bias, -(patch**-0.5), patch**-0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """``[..., patch]`` to ``[..., d]``."""
        return F.linear(patches, self.weight[self.row, :, : self.patch], self.bias[self.row])


class Moirai(Teacher):
    """Moirai with fixed lookback, horizon, variates and patch size; variates attend to each other.

    Args:
        settings: upstream's ``config.json``, with ``tsfmc.kept`` after pruning.
        lookback: L, any.  Upstream pads on the left to whole patches; so does this.
        horizon: H, any; one pass.
        variates: D.
        patch_size: one of the checkpoint's.  The default is the largest that is at most 32 and at most L,
            else the smallest: 32 is the one size that upstream trains on for every frequency from daily to
            minutes.  Upstream's ``auto`` runs all sizes on ctx + horizon of the past and takes the lowest
            validation loss; :func:`~.moirai_select.select_patch_size` does that, once.
        point: what ``forward`` gives.  ``mean``, the default, is the analytic mean of the mixture: it is what
            both papers use (one by 100 samples, one in closed form), it exports, and it has gradients.  It
            can explode on a real checkpoint, because the log-normal's mean is exp(loc + scale^2 / 2).
            ``median`` cannot: it is the mixture's exact median, found on the host without sampling (see
            :meth:`~.moirai_mixture.Mixture.quantile`), meant for labels; it neither exports nor trains.
        quantiles: ``none``, the default, or ``deciles``: nine exact quantiles, which cost a few times the
            forward pass.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        lookback: int,
        horizon: int,
        variates: int,
        patch_size: int,
        point: Point,
        quantiles: str,
    ) -> None:
        super().__init__()
        self.config = settings.config
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.patch_size, self.point = patch_size, point
        self.quantile_levels = DECILES if quantiles == "deciles" else ()
        width, sizes = settings.integer("d_model"), patch_sizes(settings.config)
        self.past_tokens, self.future_tokens = -(-lookback // patch_size), -(-horizon // patch_size)
        stream = Kept(settings.config).count(STREAM, width)
        self.mask_encoding = nn.Embedding(1, stream)
        self.in_proj = PatchEmbedding(stream, sizes, patch_size)
        self.encoder = Encoder(settings, (4 * width * 2 // 3 + 7) // 8 * 8)
        self.param_proj = MixtureHead(stream, sizes, patch_size, _normal_scale(settings))
        self.layout = self._layout()

    def forward(self, past: Tensor) -> Tensor:
        """Point forecast ``[B, D, H]`` of ``past [B, D, L]``; see ``point`` of the class."""
        return self._point(*self.mixture(past))

    def states(self, past: Tensor) -> Tensor:
        """Encoder outputs, after the final norm, of the past tokens ``[B, D, ceil(L / p), d]``."""
        return self._past_states(self._encode(past, every=True)[0])

    def quantiles(self, past: Tensor) -> Tensor:
        """``[B, D, H, Q]`` at ``quantile_levels``; with the option ``quantiles="none"`` Q is 0."""
        return self._quantiles(*self.mixture(past))

    def outputs(self, past: Tensor, *, states: bool = True) -> TeacherOutputs:
        """Forecast, quantiles and states in one evaluation."""
        asked, loc, scale = self._encode(past, every=states)
        mixture = self._future_mixture(asked)
        return TeacherOutputs(
            forecast=self._point(mixture, loc, scale),
            quantiles=self._quantiles(mixture, loc, scale) if self.quantile_levels else None,
            states=self._past_states(asked) if states else None,
        )

    def mixture(self, past: Tensor) -> tuple[Mixture, Tensor, Tensor]:
        """The normalised mixture of every step ``[B, D, H]``, and loc and scale ``[B, D, 1]`` to undo it."""
        asked, loc, scale = self._encode(past, every=False)
        return self._future_mixture(asked), loc, scale

    def structure(self) -> PrunableStructure:
        """Heads and value dims of every attention, the units of every FFN, and the dims of the stream."""
        writers = ("in_proj.weight", "in_proj.bias", "mask_encoding.weight")
        rows = [name for name, part in self.named_modules() if isinstance(part, PatchRows)]
        stream = self.encoder.stream(
            entering=(Member(name, 1) for name in writers),
            leaving=(Member(f"{name}.weight", 2) for name in rows),
        )
        return PrunableStructure((*self.encoder.groups(), stream))

    def without_dead_weights(self) -> Moirai:
        """With the patch size in use alone (:func:`~.moirai_patch.keep_one_patch_size`)."""
        if len(patch_sizes(self.config)) == 1:
            return self
        config, state = keep_one_patch_size(self.config, self.state_dict(), self.patch_size)
        smaller = build_with(
            FRONTEND,
            config,
            lookback=self.lookback,
            horizon=self.horizon,
            variates=self.variates,
            **self.options,
        )
        smaller.load_state_dict(state, strict=True)
        return cast(Moirai, smaller)

    def _layout(self) -> TokenLayout:
        """Upstream's order: the past tokens of every variate, then the future tokens of every variate."""
        variate, past, future = (
            torch.arange(self.variates),
            torch.arange(self.past_tokens),
            torch.arange(self.past_tokens, self.past_tokens + self.future_tokens),
        )
        return TokenLayout(
            torch.cat([variate.repeat_interleave(len(past)), variate.repeat_interleave(len(future))]),
            torch.cat([past.repeat(self.variates), future.repeat(self.variates)]),
            self.encoder.head_width,
            causal=False,
        )

    def _encode(self, past: Tensor, *, every: bool) -> tuple[Tensor, Tensor, Tensor]:
        """States of all tokens or of the future ones ``[B, S or D * Tf, d]``; loc and scale ``[B, D, 1]``."""
        loc, scale = location_and_scale(past)
        missing = self.past_tokens * self.patch_size - self.lookback
        padded = F.pad(past, (missing, 0)) if missing else past
        patches = torch.unflatten((padded - loc) / scale, -1, (self.past_tokens, self.patch_size))
        known = self.in_proj(patches).flatten(1, 2)
        future = self.variates * self.future_tokens
        unknown = self.mask_encoding.weight.expand(known.shape[0], future, -1)
        tokens = torch.cat([known, unknown], dim=1)
        return self.encoder(tokens, self.layout, slice(0 if every else -future, None)), loc, scale

    def _past_states(self, every: Tensor) -> Tensor:
        past = every[:, : self.variates * self.past_tokens]
        return torch.unflatten(past, 1, (self.variates, self.past_tokens))

    def _future_mixture(self, asked: Tensor) -> Mixture:
        future = asked[:, -self.variates * self.future_tokens :]
        mixture: Mixture = self.param_proj(
            torch.unflatten(future, 1, (self.variates, self.future_tokens)), self.horizon
        )
        return mixture

    def _point(self, mixture: Mixture, loc: Tensor, scale: Tensor) -> Tensor:
        normalised = mixture.mean() if self.point == "mean" else mixture.quantile((0.5,))[..., 0]
        return normalised * scale + loc

    def _quantiles(self, mixture: Mixture, loc: Tensor, scale: Tensor) -> Tensor:
        return mixture.quantile(self.quantile_levels) * scale[..., None] + loc[..., None]


def _default_first(sizes: tuple[int, ...], lookback: int) -> tuple[int, ...]:
    fitting = [size for size in sizes if size <= min(PREFERRED_PATCH, lookback)]
    default = max(fitting) if fitting else min(sizes)
    return (default, *(size for size in sizes if size != default))


def _normal_scale(settings: Settings) -> float:
    """Width of the narrow normal.

    Raises:
        TeacherError: the head is not the published mixture.
    """
    head = settings.table("distr_output")
    components = head.config.get("components")
    tables = [one for one in components if isinstance(one, Mapping)] if isinstance(components, list) else []
    names = tuple(str(one.get("_target_")).rpartition(".")[2] for one in tables)
    if str(head.config.get("_target_")).rpartition(".")[2] != "MixtureOutput" or names != _MIXTURE:
        raise TeacherError(
            f"{settings.family} config: distr_output {head.config.get('_target_')!r} of {list(names)} is not "
            f"implemented, expected MixtureOutput of {list(_MIXTURE)}"
        )
    return Settings(settings.family, tables[1]).number("scale", 1e-3)


def _published(width: int, layers: int) -> Mapping[str, Any]:
    components: list[dict[str, Any]] = [
        {"_target_": f"uni2ts.distribution.{file}.{name}"}
        for file, name in zip(
            ("student_t", "normal", "negative_binomial", "log_normal"), _MIXTURE, strict=True
        )
    ]
    components[1]["scale"] = 0.001
    return {
        "attn_dropout_p": 0.0,
        "d_model": width,
        "distr_output": {"_target_": "uni2ts.distribution.mixture.MixtureOutput", "components": components},
        "dropout_p": 0.0,
        "max_seq_len": 512,
        "num_layers": layers,
        "patch_sizes": [8, 16, 32, 64, 128],
        "scaling": True,
    }


_SIZES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "small": (13_827_528, _published(384, 6)),
    "base": (91_357_728, _published(768, 12)),
    "large": (310_970_624, _published(1024, 24)),
}
_COMMITS: Mapping[tuple[str, str], str] = {
    ("1.0", "small"): "f5bd5d01f0d67de856107d43abdd637380aae0a3",
    ("1.0", "base"): "4fa939a8800d9da346c0280f3d9aeba0d2d35877",
    ("1.0", "large"): "b6b84e3fbeb9e6927d4271d625441fb51ab6bbd8",
    ("1.1", "small"): "0c24ab99db2c1a70ea2a0fc03bf113329772ac64",
    ("1.1", "base"): "bac14547132e0d670ef515e40e6895c84bf7de76",
    ("1.1", "large"): "95030981747a0494968b46f6453b820e1fbd9d1a",
}
"""What several public projects pin, for 1.0 with the parameters counted in the files (those of ``_SIZES``);
for 1.1-R-base and -large the hub's own listings, which show the weights at these commits."""

# arXiv:2402.02592, section on long sequence forecasting: evaluated are ETT, electricity and weather; left out
# are sets that have "datasets from the same source present in our pre-training data".  The list of LOTSA in
# uni2ts (cli/conf/pretrain/data/lotsa_v1_weighted.yaml) agrees: it has none of them (its "weather" is the
# Australian set of the Monash archive), but it has that archive's traffic_hourly, all but the last week.
_SEEN_BY_1_0: Mapping[str, Overlap] = {
    **dict.fromkeys(("ETTh1", "ETTh2", "ETTm1", "ETTm2", "electricity", "weather"), "no"),
    "traffic": "yes",
}


def _card(name: str, version: str, size: str) -> TeacherCard:
    parameters, config = _SIZES[size]
    return TeacherCard(
        name=name,
        family="moirai",
        repo_id=f"Salesforce/moirai-{version}-R-{size}",
        revision=_COMMITS.get((version, size), "main"),
        parameters=parameters,
        context=5000,
        licence="CC-BY-NC-4.0",
        commercial=False,
        quantiles="quantiles=deciles",
        overlap=_SEEN_BY_1_0 if version == "1.0" else {},
        config=config,
    )


class MoiraiFrontend(Frontend):
    """Moirai 1.0-R and 1.1-R; the short names ``moirai-small``, ``-base``, ``-large`` are 1.1-R.

    The card of 1.1-R says that it is an update of 1.0-R, and not on which data it was trained.
    ``context`` of the cards is the longest that the authors evaluate; the architecture has no limit.
    """

    family: ClassVar[str] = "moirai"
    licence: ClassVar[str] = "CC-BY-NC-4.0"
    commercial: ClassVar[bool] = False
    cards: ClassVar[tuple[TeacherCard, ...]] = (
        *(_card(f"moirai-{size}", "1.1", size) for size in _SIZES),
        *(_card(f"moirai-{version}-{size}", version, size) for version in ("1.1", "1.0") for size in _SIZES),
    )

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By ``patch_sizes`` and ``distr_output``."""
        return "patch_sizes" in config and "distr_output" in config

    def build(
        self, config: Mapping[str, Any], *, lookback: int, horizon: int, variates: int, **options: Any
    ) -> Moirai:
        """See ``Frontend.build``; the options are ``patch_size``, ``point``, ``quantiles`` of ``Moirai``."""
        settings = Settings(self.family, config)
        check_encoder(settings)
        choices = {
            "patch_size": _default_first(patch_sizes(settings.config), lookback),
            "point": get_args(Point),
            "quantiles": ("none", "deciles"),
        }
        chosen = choose(self.family, options, choices)
        teacher = Moirai(settings, lookback=lookback, horizon=horizon, variates=variates, **chosen)
        teacher.options = chosen
        return teacher


FRONTEND = MoiraiFrontend()
