"""iTransformer: one token a variate, attention over variates (paper B).

    x' = (x - mean) / std                                    per window and variate
    h  = Linear(L -> d)(x')                                  [B, D, d]
    h  = LN(h + attention(h));  h = LN(h + ffn(h))           per layer, post-norm, GELU
    h  = LN(h)                                               the variate embedding that FTA aligns
    y  = Linear(d -> H)(h) * std + mean

Values only: the release appends calendar marks as extra tokens, this one keeps a single input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base.errors import RecipeError
from ..ir.forecaster import Forecaster, Student
from .normalisation import Normalisation, denormalise, normalise


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, dropout: float, training: bool) -> Tensor:
    """Attention over variates, written out; ``query`` is scaled already.  All ``[B, D, d]``."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)

    scores = split(query) @ split(key).transpose(-2, -1)
    weights = F.dropout(torch.softmax(scores, dim=-1), dropout, training)
    return (weights @ split(value)).transpose(1, 2).flatten(2)


class EncoderLayer(nn.Module):
    """Post-norm transformer layer over variate tokens."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens [B, D, d]`` to ``[B, D, d]``."""

        def drop(x: Tensor) -> Tensor:
            return F.dropout(x, self.dropout, self.training)

        query = self.query(tokens) / math.sqrt(tokens.shape[-1] // self.heads)
        mixed = attend(query, self.key(tokens), self.value(tokens), self.heads, self.dropout, self.training)
        tokens = self.norm1(tokens + drop(self.out(mixed)))
        tokens = self.norm2(tokens + drop(self.down(drop(F.gelu(self.up(tokens))))))
        return tokens


class ITransformer(Student):
    """iTransformer (Liu et al., ICLR 2024) at the size of paper B: 3,465,312 parameters at L 512, H 96."""

    def __init__(
        self,
        lookback: int,
        horizon: int,
        width: int = 512,
        layers: int = 1,
        heads: int = 4,
        ffn: int = 2048,
        dropout: float = 0.1,
        normalisation: Normalisation = "instance",
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(
                f"student.width={width} is not a multiple of student.heads={heads}",
                hint="choose a width that the heads divide",
            )
        self.lookback, self.horizon, self.embedding_dim = lookback, horizon, width
        self.dropout, self.normalisation = dropout, normalisation
        self.config = {
            "kind": "itransformer",
            "lookback": lookback,
            "horizon": horizon,
            "width": width,
            "layers": layers,
            "heads": heads,
            "ffn": ffn,
            "dropout": dropout,
            "normalisation": normalisation,
        }
        self.embedding = nn.Linear(lookback, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, horizon)

    def encode(self, window: Tensor) -> Tensor:
        """Variate embeddings ``[B, D, d]`` of a normalised window ``[B, D, L]``."""
        tokens = F.dropout(self.embedding(window), self.dropout, self.training)
        for layer in self.encoder:
            tokens = layer(tokens)
        embedding: Tensor = self.norm(tokens)
        return embedding

    def embed(self, past: Tensor) -> Tensor:
        """Encoder output after the final norm, ``[B, D, d]``."""
        return self.encode(normalise(past, self.normalisation)[0])

    def forecast_and_embedding(self, past: Tensor) -> tuple[Tensor, Tensor]:
        window, offset, scale = normalise(past, self.normalisation)
        embedding = self.encode(window)
        return denormalise(self.head(embedding), offset, scale), embedding

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        return self.forecast_and_embedding(past)[0]

    @classmethod
    def folded_forms(cls) -> Mapping[str, type[Forecaster]]:
        return {"folded_itransformer": FoldedITransformer}

    @torch.no_grad()
    def fold(self) -> FoldedITransformer:
        """q, k, v in one matrix with the softmax scale inside q; the last norm's gain and offset in the head.

        All products are taken in float64 and rounded once.  The centring of the window is not folded into
        the embedding: at large offsets it would cancel digits that the subtraction keeps.
        """
        fields = {key: value for key, value in self.config.items() if key not in ("kind", "dropout")}
        folded = FoldedITransformer(**fields)
        folded.embedding.load_state_dict(self.embedding.state_dict())
        for new, old in zip(folded.encoder, self.encoder, strict=True):
            assert isinstance(new, FoldedLayer) and isinstance(old, EncoderLayer)
            scale = 1 / math.sqrt(self.embedding_dim // old.heads)
            weights = old.query.weight.double() * scale, old.key.weight.double(), old.value.weight.double()
            biases = old.query.bias.double() * scale, old.key.bias.double(), old.value.bias.double()
            new.qkv.weight.copy_(torch.cat(weights))
            new.qkv.bias.copy_(torch.cat(biases))
            for name in ("out", "norm1", "up", "down", "norm2"):
                getattr(new, name).load_state_dict(getattr(old, name).state_dict())
        gain, offset = self.norm.weight.double(), self.norm.bias.double()
        head = self.head.weight.double()
        # W (g * n + c) + b = (W diag(g)) n + (W c + b)
        folded.head.weight.copy_(head * gain)
        folded.head.bias.copy_(head @ offset + self.head.bias.double())
        return folded


class FoldedLayer(nn.Module):
    """``EncoderLayer`` with q, k and v in one matrix and the softmax scale inside it; inference only."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens [B, D, d]`` to ``[B, D, d]``."""
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        tokens = self.norm1(tokens + self.out(attend(query, key, value, self.heads, 0.0, False)))
        tokens = self.norm2(tokens + self.down(F.gelu(self.up(tokens))))
        return tokens


class FoldedITransformer(Forecaster):
    """What an iTransformer folds into: same function, fewer operators."""

    def __init__(
        self,
        lookback: int,
        horizon: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.lookback, self.horizon, self.normalisation = lookback, horizon, normalisation
        self.config = {
            "kind": "folded_itransformer",
            "lookback": lookback,
            "horizon": horizon,
            "width": width,
            "layers": layers,
            "heads": heads,
            "ffn": ffn,
            "normalisation": normalisation,
        }
        self.embedding = nn.Linear(lookback, width)
        self.encoder = nn.ModuleList(FoldedLayer(width, heads, ffn) for _ in range(layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.head = nn.Linear(width, horizon)

    def forward(self, past: Tensor) -> Tensor:
        """``past [B, D, L]`` to ``[B, D, H]``."""
        window, offset, scale = normalise(past, self.normalisation)
        tokens = self.embedding(window)
        for layer in self.encoder:
            tokens = layer(tokens)
        return denormalise(self.head(self.norm(tokens)), offset, scale)
