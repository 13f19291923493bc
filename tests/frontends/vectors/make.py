"""Makes the vectors of one family with its upstream package: inputs, and what upstream gives for them.

    python make.py FAMILY

Upstream packages exclude each other, so each family is made in an environment that has its package (the
table in README.md); this script needs numpy, torch and safetensors beside it, and nothing of tsfmc.  It
writes ``FAMILY/meta.json`` (configuration, tensors, settings) and ``FAMILY/golden.safetensors``.  Weights are
not stored: ``weights.py`` draws them again from their names.  All inputs are synthetic.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from weights import draw

Cases = dict[str, tuple[dict[str, Any], dict[str, Tensor]]]
"""Name of a case -> its settings and its tensors."""


GAIN = {"chronos-2": 0.5}
"""Its forecast is a hyperbolic sine: smaller weights keep it in a range that float32 resolves."""


def series(seed: int, *shape: int) -> Tensor:
    """Cycles of two periods, a random walk and noise; each series with a level and a scale of its own."""
    rng = np.random.default_rng(seed)
    steps = np.arange(shape[-1])
    lead = (*shape[:-1], 1)
    cycles = np.sin(2 * np.pi * steps / 24 + rng.uniform(0, 6, lead)) + 0.5 * np.sin(2 * np.pi * steps / 168)
    walk = 0.1 * rng.standard_normal(shape).cumsum(-1) + 0.2 * rng.standard_normal(shape)
    values = rng.uniform(0.5, 5, lead) * (cycles + walk) + rng.uniform(-10, 10, lead)
    return torch.from_numpy(values.astype(np.float32))


def gaps(past: Tensor) -> Tensor:
    """Missing values: the start of one series, all over the second, a patch and the end of the third."""
    past = past.clone()
    past[0, :20] = torch.nan
    past[1, ::3] = torch.nan
    past[2, 32:49] = torch.nan
    past[2, -16:] = torch.nan
    return past


def fill(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draws every parameter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(draw(name, parameter.shape, gain)))
    return model.eval()


def fill_published(model: Any) -> Any:
    """``fill`` for a class whose files have other names than its modules: drawn by the names in the file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        drawn = {name: torch.from_numpy(draw(name, shape)) for name, shape in shapes.items()}
        save_file(drawn, path, metadata={"format": "pt"})
        return type(model).from_pretrained(folder).eval()


def published(model: Any, gain: float) -> tuple[dict[str, Any], dict[str, list[int]], str]:
    """Configuration, tensors and dtype as upstream's own ``save_pretrained`` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in stored.items():
        if not np.array_equal(tensor.float().numpy(), draw(name, tensor.shape, gain)):
            raise SystemExit(f"{name} is not a drawn parameter: it would have to be stored")
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in stored.values()}
    return config, {name: list(tensor.shape) for name, tensor in stored.items()}, dtypes.pop()


def standardised(past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(past - mean) / std`` with the unbiased std, the mean and the std."""
    mean, std = past.mean(-1, keepdim=True), past.std(-1, keepdim=True)
    return (past - mean) / std, mean, std


def chronos_bolt() -> tuple[Any, Cases]:
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    chronos = {
        "context_length": 256,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "prediction_length": 24,
        "quantiles": [0.1, 0.3, 0.5, 0.7, 0.9],
        "use_reg_token": True,
    }
    config = T5Config(
        architectures=["ChronosBoltModelForForecasting"],
        chronos_config=chronos,
        d_model=32,
        d_ff=48,
        d_kv=12,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        feed_forward_proj="relu",
        dropout_rate=0.1,
        decoder_start_token_id=0,
        pad_token_id=0,
        vocab_size=2,
    )
    model = fill(ChronosBoltModelForForecasting(config))

    def one_pass(context: Tensor) -> Tensor:
        quantiles: Tensor = model(context=context).quantile_preds.transpose(1, 2)
        return quantiles

    def median_path(context: Tensor, horizon: int) -> Tensor:
        """The median is appended, padded on the left to whole patches, and normalised anew."""
        blocks = [one_pass(context)]
        while sum(block.shape[1] for block in blocks) < horizon:
            context = torch.cat([context, blocks[-1][..., 2]], -1)[:, -256:]
            padding = torch.full((len(context), -context.shape[-1] % 16), torch.nan)
            blocks.append(one_pass(torch.cat([padding, context], -1)))
        return torch.cat(blocks, 1)[:, :horizon]

    def case(context: Tensor, horizon: int = 24) -> tuple[dict[str, Any], dict[str, Tensor]]:
        quantiles = median_path(context, horizon)
        tensors = {"context": context, "quantiles": quantiles, "point": quantiles[..., 2]}
        if horizon == 24:
            tensors["hidden"] = model.encode(context)[0][:, :-1]  # without the REG token
        return {"context": context.shape[-1], "horizon": horizon}, tensors

    flat = torch.stack([torch.full((96,), 3.0), torch.zeros(96), 1e4 + series(9, 96)])
    nothing = torch.cat([torch.full((1, 64), torch.nan), series(4, 1, 64)])
    return model, {
        "c128": case(series(1, 3, 128)),
        "c100": case(series(2, 3, 100)),
        "nan": case(gaps(series(3, 3, 128))),
        "const": case(flat),
        "allnan": case(nothing),
        "h60_median": case(series(5, 2, 128), 60),
        "h60_median_c100_nan": case(gaps(series(6, 3, 100)), 60),
        "long": case(series(7, 1, 300)),
    }


def chronos_2() -> tuple[Any, Cases]:
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    config = Chronos2CoreConfig(
        architectures=["Chronos2Model"],
        chronos_config={
            "context_length": 256,
            "input_patch_size": 16,
            "input_patch_stride": 16,
            "max_output_patches": 8,
            "output_patch_size": 16,
            "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95],
            "time_encoding_scale": 256,
            "use_arcsinh": True,
            "use_reg_token": True,
        },
        d_model=32,
        d_ff=48,
        d_kv=12,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.1,
        feed_forward_proj="relu",
        vocab_size=2,
    )
    model = fill(Chronos2Model(config), GAIN["chronos-2"])

    def case(past: Tensor, horizon: int, joint: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        batch, variates, length = past.shape
        context, patches = past.reshape(-1, length), -(-horizon // 16)
        groups = torch.arange(batch).repeat_interleave(variates) if joint else torch.arange(len(context))
        quantiles = model(context=context, group_ids=groups, num_output_patches=patches).quantile_preds
        hidden = model.encode(context=context, group_ids=groups, num_output_patches=patches)[0][0]
        settings = {
            "context": length,
            "horizon": horizon,
            "batch": batch,
            "variates": variates,
            "joint": joint,
        }
        return settings, {
            "context": context,
            "quantiles": quantiles[..., :horizon].transpose(1, 2),
            "hidden_context": hidden[:, : -(-length // 16)],
        }

    nan = gaps(series(3, 3, 100))[None]
    return model, {
        "grouped_v3": case(series(1, 2, 3, 128), 40, True),
        "independent": case(series(2, 1, 3, 96), 40, False),
        "nan_grouped_c100": case(nan, 24, True),
    }


def time_moe() -> tuple[Any, Cases]:
    from sktime.libs.timemoe.timemoe import TimeMoeForPrediction
    from sktime.libs.timemoe.timemoe_config import TimeMoeConfig

    config = TimeMoeConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_experts=4,
        num_experts_per_tok=2,
        horizon_lengths=[1, 8, 32, 64],
        max_position_embeddings=512,
        attn_implementation="eager",
    )
    model = fill(TimeMoeForPrediction(config))

    def roll_out(past: Tensor, horizon: int) -> Tensor:
        """Upstream's greedy loop without a cache: the longest head that fits, the last token's output."""
        known = past
        while (left := horizon - (known.shape[-1] - past.shape[-1])) > 0:
            output = model(known[..., None], use_cache=False, max_horizon_length=left)
            known = torch.cat([known, output.logits[:, -1]], -1)
        return known[:, past.shape[-1] :]

    def case(past: Tensor, horizon: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        normed, mean, std = standardised(past)
        forecast = roll_out(normed, horizon)
        first = model(
            normed[..., None], use_cache=False, max_horizon_length=horizon, output_hidden_states=True
        )
        return {"context": past.shape[-1], "horizon": horizon}, {
            "context": past,
            "normed": normed,
            "forecast_normed": forecast,
            "forecast": forecast * std + mean,
            "hidden": first.hidden_states[-1],
            "first_head_last8": first.logits[:, -8:],
        }

    # Horizons of 64 and more: the first pass is that of the longest head.
    return model, {"c96_h96": case(series(1, 2, 96), 96), "c50_h73": case(series(2, 2, 50), 73)}


def timer() -> tuple[Any, Cases]:
    from sktime.libs.timer.configuration_timer import TimerConfig
    from sktime.libs.timer.modeling_timer import TimerForPrediction

    config = TimerConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        input_token_len=24,
        output_token_lens=[24],
        max_position_embeddings=64,
    )
    model = fill(TimerForPrediction(config))

    def case(past: Tensor, horizon: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        options = {"use_cache": False, "max_output_length": horizon, "return_dict": True}
        output = model(past, revin=True, output_hidden_states=True, **options)
        normed = model(standardised(past)[0], revin=False, **options)
        return {"context": past.shape[-1], "horizon": horizon}, {
            "context": past,
            "forecast": output.logits,
            "hidden": output.hidden_states[-1],
            "forecast_normed": normed.logits,
        }

    return model, {"c120_h24": case(series(1, 3, 120), 24), "c24_h24": case(series(2, 2, 24), 24),
                   "c168_h17": case(series(3, 2, 168), 17)}  # fmt: skip


def timesfm() -> tuple[Any, Cases]:
    from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction

    config = TimesFm2_5Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        output_quantile_len=128,
    )
    model = fill_published(TimesFm2_5ModelForPrediction(config))

    def case(past: Tensor, context: int, flip: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        output = model(past_values=list(past), forecast_context_len=context, force_flip_invariance=flip)
        return {
            "context": past.shape[-1],
            "forecast_context_len": context,
            "horizon": 128,
            "force_flip_invariance": flip,
        }, {
            "context": past,
            "full_predictions": output.full_predictions,
            "point": output.mean_predictions,
            "last_hidden_state": output.last_hidden_state,
        }

    past = series(1, 2, 128)
    return model, {
        "c128_flip": case(past, 128, True),
        "c128_noflip": case(past, 128, False),
        "c100_padded_to_160": case(series(2, 2, 100), 160, True),
        "positive": case(series(3, 2, 96).abs() + 1, 96, True),
    }


def ttm() -> tuple[Any, Cases]:
    from tsfm_public.models.tinytimemixer import TinyTimeMixerConfig, TinyTimeMixerForPrediction

    config = TinyTimeMixerConfig(
        context_length=96,
        prediction_length=24,
        patch_length=16,
        patch_stride=16,
        d_model=24,
        num_layers=2,
        adaptive_patching_levels=2,
        expansion_factor=2,
        decoder_d_model=12,
        decoder_num_layers=2,
        scaling="std",
        loss="mse",
    )
    model = fill(TinyTimeMixerForPrediction(config))

    def case(past: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """``past [B, L, D]``, upstream's layout."""
        output = model(past_values=past)
        return {"context": past.shape[1], "horizon": 24, "variates": past.shape[2]}, {
            "past": past,
            "forecast": output.prediction_outputs,
            "backbone_hidden_state": output.backbone_hidden_state,
        }

    flat = torch.stack([torch.full((96,), 3.5), series(3, 96)], -1)[None]
    cases = {f"v{d}": case(series(d, 2, d, 96).transpose(1, 2).contiguous()) for d in (1, 3, 7)}
    return model, {**cases, "const": case(flat)}


def _observed(past: Tensor) -> dict[str, Tensor]:
    """uni2ts' inputs for a fully observed ``past [B, D, L]``."""
    target = past.transpose(1, 2)
    return {
        "past_target": target,
        "past_observed_target": torch.ones_like(target, dtype=torch.bool),
        "past_is_pad": torch.zeros(target.shape[:2], dtype=torch.bool),
    }


def _encoder_states(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, Tensor]:
    """What ``run`` returns, and the encoder's output the first time that it is called: ``[B, tokens, d]``."""
    seen: list[Tensor] = []
    hook = model.get_submodule("encoder").register_forward_hook(lambda _, __, output: seen.append(output))
    found = run()
    hook.remove()
    return found, seen[0]


def moirai(width: int = 64) -> tuple[Any, Cases]:
    from uni2ts.distribution import (
        LogNormalOutput,
        MixtureOutput,
        NegativeBinomialOutput,
        NormalFixedScaleOutput,
        StudentTOutput,
    )
    from uni2ts.model.moirai import MoiraiForecast, MoiraiModule

    components = [StudentTOutput(), NormalFixedScaleOutput(), NegativeBinomialOutput(), LogNormalOutput()]
    model = fill(
        MoiraiModule(
            distr_output=MixtureOutput(components),
            d_model=width,
            num_layers=2,
            patch_sizes=(8, 16, 32),
            max_seq_len=512,
            attn_dropout_p=0.0,
            dropout_p=0.0,
            scaling=True,
        )
    )

    def case(past: Tensor, horizon: int, patch: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        variates, length = past.shape[1:]
        forecast = MoiraiForecast(
            prediction_length=horizon,
            target_dim=variates,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=0,
            context_length=length,
            module=model,
            patch_size=patch,
        )
        mixture, tokens = _encoder_states(model, lambda: forecast._get_distr(patch, **_observed(past)))
        states = tokens[:, : variates * -(-length // patch)].unflatten(1, (variates, -1))
        future = tokens[:, -variates * -(-horizon // patch) :].unflatten(1, (variates, -1))

        def steps(values: Tensor) -> Tensor:
            found = forecast._format_preds(patch, values[None], variates)[:, 0]
            return (found[..., None] if variates == 1 else found).transpose(1, 2)

        parts = mixture.base_dist  # in normalised space
        student, normal, binomial, log_normal = parts.components
        weights = parts.weights.logits.softmax(-1)
        settings = {"context": length, "horizon": horizon, "patch": patch, "variates": variates}
        return settings, {
            "past": past,
            "mean": steps(mixture.mean),
            "hidden_context": states,
            "hidden_future": future,
            "mixture_weights": torch.stack([steps(weight) for weight in weights.unbind(-1)], -1),
            "student_t": torch.stack([steps(student.df), steps(student.loc), steps(student.scale)], -1),
            "normal": torch.stack([steps(normal.loc), steps(normal.scale)], -1),
            "negative_binomial": torch.stack([steps(binomial.total_count), steps(binomial.logits)], -1),
            "log_normal": torch.stack([steps(log_normal.loc), steps(log_normal.scale)], -1),
        }

    return model, {
        "c100_h24_p16_v3": case(series(1, 2, 3, 100), 24, 16),
        "c96_h40_p32_v1": case(series(2, 2, 1, 96), 40, 32),
        "c64_h20_p8_v2": case(series(3, 2, 2, 64), 20, 8),
    }


def moirai_heads() -> tuple[Any, Cases]:
    return moirai(128)


def moirai_2() -> tuple[Any, Cases]:
    from uni2ts.model.moirai2 import Moirai2Forecast, Moirai2Module

    model = fill(
        Moirai2Module(
            d_model=128,
            d_ff=64,
            num_layers=1,
            patch_size=8,
            max_seq_len=512,
            attn_dropout_p=0.0,
            dropout_p=0.0,
            scaling=True,
            num_predict_token=4,
            quantile_levels=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        )
    )

    def case(past: Tensor, horizon: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        variates, length = past.shape[1:]
        forecast = Moirai2Forecast(
            prediction_length=horizon,
            target_dim=variates,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=0,
            context_length=length,
            module=model,
        )
        found, tokens = _encoder_states(model, lambda: forecast(**_observed(past)))
        steps = (found[..., None] if variates == 1 else found).permute(0, 3, 2, 1)
        states = tokens[:, : variates * -(-length // 8)].unflatten(1, (variates, -1))
        return {"context": length, "horizon": horizon, "variates": variates}, {
            "past": past,
            "quantiles": steps,
            "point": steps[..., 4],
            "hidden_context": states,
        }

    # Above one block of 32 steps the package takes one variate only.
    return model, {
        "h32_v3_c100": case(series(1, 2, 3, 100), 32),
        "h20_v1": case(series(2, 2, 1, 96), 20),
        "h50_v1": case(series(3, 2, 1, 96), 50),
    }


def fracast() -> tuple[None, Cases]:
    """The package's own weights, which it installs; nothing of them is stored here."""
    from fracast import FracastModel

    model = FracastModel.from_pretrained(weights="fp32")

    def case(past: Tensor, horizon: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        found = model.forecast_batch(past.flatten(0, 1).numpy(), horizon=horizon)
        quantiles = torch.from_numpy(np.asarray(found, np.float32)).unflatten(0, past.shape[:2])
        settings = {"context": past.shape[-1], "horizon": horizon, "variates": past.shape[1]}
        return settings, {"past": past, "quantiles": quantiles}

    return None, {"c300_h48": case(series(1, 1, 2, 300), 48), "c512_h96": case(series(2, 1, 2, 512), 96)}


FAMILIES: Mapping[str, tuple[Callable[[], tuple[Any, Cases]], tuple[str, ...]]] = {
    "chronos-bolt": (chronos_bolt, ("chronos-forecasting", "transformers")),
    "chronos-2": (chronos_2, ("chronos-forecasting", "transformers")),
    "moirai-1": (moirai, ("timecopilot-uni2ts",)),
    "moirai-1-heads": (moirai_heads, ("timecopilot-uni2ts",)),
    "moirai-2": (moirai_2, ("timecopilot-uni2ts",)),
    "timemoe": (time_moe, ("sktime", "transformers")),
    "timer": (timer, ("sktime", "transformers")),
    "timesfm-2.5": (timesfm, ("transformers",)),
    "ttm": (ttm, ("granite-tsfm", "transformers")),
    "fracast": (fracast, ("fracast",)),
}


def main(family: str) -> None:
    """Writes the vectors of one family."""
    make, packages = FAMILIES[family]
    torch.set_num_threads(1)
    with torch.no_grad():
        model, cases = make()
    folder = Path(__file__).parent / family
    folder.mkdir(exist_ok=True)
    tensors = {
        f"{case}.{name}": tensor.detach().float().contiguous().clone()
        for case, (_, found) in cases.items()
        for name, tensor in found.items()
    }
    save_file(tensors, folder / "golden.safetensors")
    meta: dict[str, Any] = {
        "family": family,
        "produced_by": {package: version(package) for package in (*packages, "torch")},
        "cases": {case: {"settings": settings} for case, (settings, _) in cases.items()},
    }
    if model is not None:
        gain = GAIN.get(family, 1.0)
        config, shapes, dtype = published(model, gain)
        meta |= {"config": config, "dtype": dtype, "gain": gain, "tensors": shapes}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{family}: {len(cases)} cases, {size} bytes")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or sys.exit(f"usage: make.py {' | '.join(FAMILIES)}"):
        main(wanted)
