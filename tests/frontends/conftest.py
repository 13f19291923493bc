"""The kit of these tests: tiny random checkpoints, and the checks that own forward passes go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsfmc.compiler.frontends import build_teacher
from tsfmc.compiler.ir.forecaster import Teacher
from tsfmc.compiler.ir.prunable import Group, Span, Tap


class Kit:
    """Helpers as one fixture, because test folders are no packages."""

    @staticmethod
    def randomise(module: nn.Module, *, scale: float = 0.3) -> None:
        """Draws every parameter anew: norm weights about 1, so that nothing is hidden by a neutral value."""
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * scale
                parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)

    @staticmethod
    def write_checkpoint(directory: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
        """A checkpoint directory in upstream's format."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config))
        save_file({name: tensor.clone() for name, tensor in state.items()}, directory / "model.safetensors")
        return directory

    @staticmethod
    def tiny_teacher(config: Mapping[str, Any], **task: Any) -> Teacher:
        """A teacher with random weights."""
        teacher = build_teacher(config, **task)
        Kit.randomise(teacher)
        return teacher

    @staticmethod
    def close(got: Tensor, expected: Tensor, relative: float = 1e-4, absolute: float = 1e-5) -> None:
        """The rule of the golden vectors: within ``relative`` standard deviations plus ``absolute``."""
        assert got.shape == expected.shape, (got.shape, expected.shape)
        assert torch.equal(got.isnan(), expected.isnan())
        limit = relative * expected.nan_to_num().std().item() + absolute
        difference = (got - expected).nan_to_num().abs().max().item()
        assert difference <= limit, f"{difference} > {limit}"

    @staticmethod
    def indices(group: Group, spans: tuple[Span, ...], units: list[int]) -> list[int]:
        """Channel indices of some units of a group."""
        assert all(unit < group.units for unit in units)
        return sorted(at for span in spans for unit in units for at in span.indices(unit))

    @staticmethod
    def silence(teacher: Teacher, tap: Tap, channels: list[int]) -> RemovableHandle:
        """Zeros in these channels until the hook is removed."""

        def silence_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = inputs[0].clone()
            hidden[..., channels] = 0
            return (hidden, *inputs[1:])

        def silence_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            hidden = output.clone()
            hidden[..., channels] = 0
            return hidden

        module = teacher.get_submodule(tap.module)
        if tap.side == "in":
            return module.register_forward_pre_hook(silence_input)
        return module.register_forward_hook(silence_output)

    @staticmethod
    def masked_and_sliced(
        teacher: Teacher, group: Group, dead: list[int], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The forecast with ``dead`` units of one group masked at its first tap, and with them cut out.

        Taps that act together are masked all.
        """
        hooks = [
            Kit.silence(teacher, tap, Kit.indices(group, tap.spans, dead))
            for tap in group.taps[: None if group.together else 1]
        ]
        with torch.no_grad():
            masked = teacher(past)
        for hook in hooks:
            hook.remove()

        state = teacher.state_dict()
        for member in group.members:
            gone = set(Kit.indices(group, member.spans, dead))
            tensor = state[member.parameter]
            keep = torch.tensor(
                [at for at in range(tensor.shape[member.dim]) if at not in gone], dtype=torch.long
            )
            state[member.parameter] = tensor.index_select(member.dim, keep)
        own = teacher.config["tsfmc"]
        before = own.get("kept", {}).get(group.name, list(range(group.units)))
        kept = {**own.get("kept", {}), group.name: [before[u] for u in range(group.units) if u not in dead]}
        sliced = build_teacher({**teacher.config, "tsfmc": {**own, "kept": kept}})
        sliced.load_state_dict(state, strict=True)
        with torch.no_grad():
            return masked, sliced(past)

    @staticmethod
    def onnx_forecast(teacher: Teacher, path: Path, example: Tensor) -> Callable[[Tensor], Tensor]:
        """Exports with a dynamic batch and returns the model as onnxruntime runs it."""
        with torch.no_grad():
            program = torch.export.export(
                teacher, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
            )
            torch.onnx.export(program, dynamo=True, optimize=True).save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(past: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(session.run(None, {name: past.numpy()})[0]))

        return run

    @staticmethod
    def assert_exports(teacher: Teacher, path: Path) -> None:
        """torch.export and ONNX agree with the module at 1e-4, at batch sizes that were not exported."""
        generator = torch.Generator().manual_seed(3)

        def draw(batch: int) -> Tensor:
            return torch.randn(batch, teacher.variates, teacher.lookback, generator=generator).cumsum(-1)

        run = Kit.onnx_forecast(teacher, path, draw(2))
        for batch in (1, 5):
            past = draw(batch)
            with torch.no_grad():
                Kit.close(run(past), teacher(past), relative=1e-4, absolute=1e-4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """See :class:`Kit`."""
    return Kit
