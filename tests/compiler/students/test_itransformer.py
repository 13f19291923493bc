"""iTransformer: tokens are variates, the embedding is what the head reads, folding keeps the function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tsfmc.compiler.base.errors import RecipeError
from tsfmc.compiler.ir.verify import function_change
from tsfmc.compiler.students import from_config
from tsfmc.compiler.students.itransformer import ITransformer, attend

L, H, D = 24, 5, 4
SMALL: dict[str, Any] = {"width": 16, "heads": 4, "ffn": 24, "layers": 2}


def student(**options: Any) -> ITransformer:
    """Random weights that no neutral value hides, in eval mode."""
    model = ITransformer(L, H, **{**SMALL, **options}).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return model


def test_attention_against_pytorch() -> None:
    query, key, value = (torch.randn(2, D, 12) for _ in range(3))
    heads = [x.unflatten(-1, (3, 4)).transpose(1, 2) for x in (query / 2, key, value)]
    expected = nn.functional.scaled_dot_product_attention(heads[0] * 2, *heads[1:])
    torch.testing.assert_close(
        attend(query / 2, key, value, 3, 0.0, False), expected.transpose(1, 2).flatten(2)
    )


def test_against_pytorchs_encoder_layer() -> None:
    """The same layer as the post-norm one of PyTorch, with the same weights."""
    model = student(layers=1)
    ours = model.encoder[0]
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=False).eval()
    state = ours.state_dict()
    parts = ("query", "key", "value")
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([state[f"{part}.weight"] for part in parts]),
            "self_attn.in_proj_bias": torch.cat([state[f"{part}.bias"] for part in parts]),
            "self_attn.out_proj.weight": state["out.weight"],
            "self_attn.out_proj.bias": state["out.bias"],
            "linear1.weight": state["up.weight"],
            "linear1.bias": state["up.bias"],
            "linear2.weight": state["down.weight"],
            "linear2.bias": state["down.bias"],
            **{n: state[n] for n in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")},
        }
    )
    tokens = torch.randn(3, D, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)


def test_variates_have_no_order_and_see_each_other() -> None:
    model, past, order = student(), torch.randn(3, D, L), [2, 0, 3, 1]
    with torch.no_grad():
        forecast = model(past)
        torch.testing.assert_close(model(past[:, order]), forecast[:, order], rtol=1e-4, atol=1e-5)
        changed = past.clone()
        changed[:, 0] = torch.randn(3, L)
        assert not torch.allclose(model(changed)[:, 1:], forecast[:, 1:])


def test_the_head_reads_the_embedding() -> None:
    model, past = student(), torch.randn(3, D, L)
    with torch.no_grad():
        forecast, embedding = model.forecast_and_embedding(past)
        assert embedding.shape == (3, D, 16) == (*past.shape[:2], model.embedding_dim)
        assert torch.equal(model.embed(past), embedding) and torch.equal(model(past), forecast)
        scale = torch.sqrt(past.var(-1, keepdim=True, unbiased=False) + 1e-5)
        torch.testing.assert_close(forecast, model.head(embedding) * scale + past.mean(-1, keepdim=True))


@pytest.mark.parametrize("normalisation", ["none", "instance", "last"])
@pytest.mark.parametrize("layers", [1, 2])
def test_folding_keeps_the_function(normalisation: Any, layers: int) -> None:
    model = student(normalisation=normalisation, layers=layers)
    folded = model.fold().eval()
    offsets = torch.tensor([0.0, 5.0, -20.0, 0.0])[:, None, None]
    past = torch.randn(4, D, L) * torch.tensor([1.0, 0.1, 30.0, 0.0])[:, None, None] + offsets
    assert function_change(model, folded, past) <= 1e-5
    rebuilt = from_config(folded.config).eval()
    rebuilt.load_state_dict(folded.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(rebuilt(past), folded(past))
    assert not any(isinstance(module, nn.Dropout) for module in folded.modules())


def test_dropout_is_for_training_alone() -> None:
    model, past = student(dropout=0.5), torch.randn(3, D, L)
    with torch.no_grad():
        assert torch.equal(model(past), model(past))
        model.train()
        assert not torch.equal(model(past), model(past))
        model = student(dropout=0.0).train()
        assert torch.equal(model(past), model(past))


def test_config_rebuilds_it() -> None:
    model = student(dropout=0.2, normalisation="last")
    rebuilt = from_config(model.config)
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict(), strict=True)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(RecipeError, match=r"width=18 is not a multiple of student.heads=4"):
        ITransformer(L, H, width=18, heads=4)
