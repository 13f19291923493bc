"""The kernels of the TVM target on their own: tiles, packing, products, reductions, functions, arena."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tsfmc.compiler.ir import program as ir
from tsfmc.targets.native.devices import AVX2, AVX512, DEVICES, RV64, host
from tsfmc.targets.native.processor import Processor
from tsfmc.targets.tvm.arena import ALIGNMENT, lifetimes, plan, size_of
from tsfmc.targets.tvm.importer import import_exported, optimise, rewrite_operators
from tsfmc.targets.tvm.matmul import pack, packed_size
from tsfmc.targets.tvm.program import Program, build_program
from tsfmc.targets.tvm.quantize import quantize_columns
from tsfmc.targets.tvm.schedule import Choices
from tsfmc.targets.tvm.tiles import Tile, choose, column_panels, fits, ranked, row_tiles
from tsfmc.targets.tvm.tir import BUILD_OPTIONS

TILES = [(1, 1), (3, 2), (5, 3)]
PROCESSORS = {name: device.processor for name, device in DEVICES.items()}


def relax_of(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """The fused Relax module of ``model`` at input ``shape [B, D, L]``."""
    exported = torch.export.export(model.eval(), (torch.zeros(shape),))
    batch, variates, lookback = shape
    program = ir.Program(exported, ir.Shape(variates, lookback, horizon=0))
    return optimise(import_exported(rewrite_operators(program, batch)))


def program_of(model: nn.Module, shape: tuple[int, int, int], **choices: Any) -> Program:
    """The scheduled program of ``model`` for this machine."""
    module = relax_of(model, shape)
    return build_program(module, Choices(host().processor, choices.pop("tiles", {}), **choices))


def run(program: Program, past: np.ndarray) -> np.ndarray:
    """Executes the steps one by one in this process; flat result."""
    functions = {name: kernel.func for name, kernel in program.kernels.items()}
    with tvm.transform.PassContext(opt_level=3, config=BUILD_OPTIONS):
        library = tvm.tirx.build(tvm.IRModule(functions), target=tvm.target.Target(dict(host().target)))
    values = [tvm.runtime.tensor(np.full(each.size, 7, each.dtype)) for each in program.values]
    constants = [tvm.runtime.tensor(each) for each in program.constants]
    values[program.input] = tvm.runtime.tensor(past.reshape(-1))
    for step in program.steps:
        operands = [
            values[each.value] if each.value is not None else constants[each.constant or 0]
            for each in step.operands
        ]
        library[step.kernel.name](*operands)
    return values[program.output].numpy()


def both(model: nn.Module, shape: tuple[int, ...], **choices: Any) -> tuple[np.ndarray, np.ndarray]:
    """(ours, torch), flat."""
    torch.manual_seed(1)
    past = torch.randn(shape)
    with torch.no_grad():
        expected = model.eval()(past).numpy().reshape(-1)
    return run(program_of(model, shape, **choices), past.numpy()), expected


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        return self.function(past)  # type: ignore[no-any-return]


@given(st.integers(1, 40), st.integers(1, 32))
def test_row_tiles_cover_the_rows_evenly(m: int, rows: int) -> None:
    sizes = row_tiles(m, rows)
    assert sum(sizes) == m and max(sizes) <= rows and max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300), st.sampled_from(sorted(PROCESSORS)), st.integers(1, 40), st.integers(1, 600))
def test_the_chosen_tile_fits_and_its_panels_cover_the_columns(m: int, name: str, n: int, k: int) -> None:
    cpu = PROCESSORS[name]
    tile = choose(m, k, n, cpu)
    panels = column_panels(n, tile, cpu)
    assert fits(tile, cpu)
    assert n <= sum(panels) < n + cpu.lanes


def test_a_tall_product_gets_enough_accumulators_to_hide_the_latency() -> None:
    for cpu in (AVX2, AVX512):
        tile = choose(21, 512, 512, cpu)
        assert tile.rows * tile.vectors >= cpu.latency * cpu.pipes
    assert all(fits(tile, RV64) for tile in ranked(7, 64, 64, RV64))


@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([(1, 1), (3, 2), (7, 4)]))
def test_packing_keeps_every_weight_and_pads_with_zeros(k: int, n: int, shape: tuple[int, int]) -> None:
    tile, cpu = Tile(*shape), AVX2
    weights = np.arange(1, k * n + 1, dtype=np.float32).reshape(k, n)
    packed = pack(weights, tile, cpu)
    assert packed.size == packed_size(k, n, tile, cpu)
    assert sorted(packed[packed != 0]) == sorted(weights.reshape(-1))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 24), st.integers(1, 40), st.integers(1, 70), st.sampled_from(TILES))
def test_products_of_any_size_equal_torch(rows: int, k: int, n: int, tile: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(k, n, bias=k % 2 == 0)
    ours, expected = both(model, (1, rows, k), tiles={(rows, k, n): Tile(*tile)})
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 7, 32), (2, 5, 21, 16), (1, 1, 3, 9)])
def test_products_of_activations_equal_torch(shape: tuple[int, ...]) -> None:
    batch, variates, length, width = shape

    def attend(past: torch.Tensor) -> torch.Tensor:
        x = past.reshape(batch, variates, length, width)
        return torch.softmax(x @ x.transpose(-1, -2) * 0.1, dim=-1) @ x

    ours, expected = both(Apply(attend), (batch, variates, length * width))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_product_whose_rows_are_two_axes_with_a_factor_for_one_of_them() -> None:
    """TVM's elimination of common subexpressions fails on its indices."""
    torch.manual_seed(0)
    weights, factors = torch.randn(64, 256), torch.randn(4, 256)
    model = Apply(lambda x: x.reshape(1, 7, 4, 64) @ weights * factors)
    ours, expected = both(model, (1, 7, 256))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


FUNCTIONS = {
    "exp": lambda x: torch.exp(x * 3),
    "erf": torch.erf,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": nn.functional.silu,
    "softmax": lambda x: torch.softmax(x * 4, dim=-1),
    "layer_norm": lambda x: nn.functional.layer_norm(x, x.shape[-1:]),
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "last": lambda x: x - x[..., -1:],
    "pool": lambda x: nn.functional.avg_pool1d(x, 5, stride=1, padding=2) if x.shape[-1] > 4 else x * 2,
    "pad": lambda x: torch.cat([x[..., :1].expand(-1, -1, 3), x, x[..., -1:] * 2], dim=-1),
    "transpose": lambda x: x.transpose(1, 2) * 2.0,
    "slice": lambda x: x[..., ::2] + 1,
    "sort": lambda x: torch.round(x).sort(-1, descending=True).values,
    "order": lambda x: torch.round(x).sort(stable=True).indices.to(x.dtype),
    "lerp": lambda x: torch.lerp(x.sort().values, x, torch.full(x.shape[-1:], 0.25)),
    "where": lambda x: torch.where(x > 0, x, 0.5) + x.where(x < 1, 2.0) + torch.where(x > 1, 3.0, x),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("length", [1, 7, 83])
def test_functions_equal_torch(name: str, length: int) -> None:
    ours, expected = both(Apply(FUNCTIONS[name]), (1, 3, length))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)


def test_not_a_number_and_the_ends_of_exp_survive() -> None:
    past = torch.tensor([math.nan, -1000.0, 1000.0, 0.0, -math.inf, 80.0, -80.0, 1.0]).reshape(1, 1, 8)
    for function in (torch.exp, torch.erf, torch.tanh, torch.sigmoid):
        model = Apply(function)
        ours = run(program_of(model, (1, 1, 8)), past.numpy())
        np.testing.assert_allclose(ours, function(past).numpy().reshape(-1), rtol=2e-6, atol=1e-37)


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(1, 8))
def test_int8_codes_are_within_half_a_step(k: int, n: int) -> None:
    weights = np.random.default_rng(k * n).standard_normal((k, n)).astype(np.float32)
    weights[:, 0] = 0.0
    codes, scale = quantize_columns(weights)
    assert codes.dtype == np.int8 and np.all(np.abs(codes * scale - weights) <= scale * 0.5001)


def test_int8_weights_compute_what_they_store() -> None:
    torch.manual_seed(0)
    model = nn.Linear(33, 41)
    codes, scale = quantize_columns(model.weight.detach().numpy().T)
    quantised = nn.Linear(33, 41)
    with torch.no_grad():
        quantised.weight.copy_(torch.from_numpy((codes * scale).T.copy()))
        quantised.bias.copy_(model.bias)
    past = torch.randn(1, 5, 33)
    ours = run(program_of(model, (1, 5, 33), int8_weights=True), past.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(ours, quantised(past).numpy().reshape(-1), rtol=1e-5, atol=1e-5)


def test_values_that_live_together_do_not_overlap() -> None:
    encoder = nn.Sequential(
        nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.LayerNorm(16), nn.Linear(16, 4)
    )
    program = program_of(encoder, (1, 3, 16))
    arena = plan(program)
    lives = {value: life for value, life in lifetimes(program).items() if value in arena.offsets}
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets.values())
    for one, (born, died) in lives.items():
        for other, (start, end) in lives.items():
            if one < other and born <= end and start <= died:
                a, b = arena.offsets[one], arena.offsets[other]
                assert a + size_of(program, one) <= b or b + size_of(program, other) <= a
    assert arena.size_bytes < sum(size_of(program, value) for value in lives)


def test_a_processor_without_vectors_uses_scalars() -> None:
    cpu = Processor(1, 8, 1, 1, 3)
    module = relax_of(nn.Linear(5, 3), (1, 2, 5))
    (step,) = build_program(module, Choices(cpu, {})).steps
    assert "Ramp" not in step.kernel.func.script()
