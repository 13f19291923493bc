"""An artifact of another processor under qemu-user: what it computes, and how many instructions it takes.

The artifact's own archive is linked with its own example, and that program is run.  Instructions are counted
by qemu itself: translated one at a time and logged one a line, for two windows and for one, of which the
difference is one forecast.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.base.errors import TsfmcError
from ...compiler.base.processes import run_process
from ..base import Emulation
from ..native.devices import Device, find_device
from .build import link_example
from .names import ARCHIVE, EXAMPLE, HEADER, STATIC_BINARY
from .toolchain import can_emulate, require_compiler, run_static_binary

TIME_LIMIT_S = 60.0
ONE_AT_A_TIME = ("-one-insn-per-tb", "-singlestep")
"""The option's name from qemu 8.1 on, and before."""


def emulate(directory: Path, facts: Mapping[str, Any]) -> Emulation | None:
    """The artifact under its device's emulator; None without emulator, compiler, or runtime-free form, and
    for boards, whose instructions were counted when they were compiled for.

    Args:
        facts: the ``target`` of its manifest.
    """
    try:
        named = str(facts["device"])
        device = find_device(facts["target"] if named.startswith("custom ") else named)
        require_compiler(device)
    except TsfmcError:
        return None
    if (
        device.board is not None
        or not can_emulate(device)
        or not all((directory / name).is_file() for name in (ARCHIVE, HEADER, EXAMPLE))
    ):
        return None
    emulated = _Emulated(device, directory, tuple(facts["input_shape"]), tuple(facts["output_shape"]))
    return Emulation(emulated, Path(emulated.emulator[0]).name, emulated.instructions)


class _Emulated:
    """``past [B, D, L] -> forecast [B, D, H]`` by the static example."""

    def __init__(
        self, device: Device, directory: Path, shape: tuple[int, ...], output: tuple[int, ...]
    ) -> None:
        self.device, self.shape, self.output = device, shape, output
        self.emulator: Sequence[str] = device.toolchain.emulator or ()
        folder = tempfile.TemporaryDirectory(prefix="tsfmc-")
        weakref.finalize(self, folder.cleanup)
        self.folder = Path(folder.name)
        for name in (ARCHIVE, HEADER, EXAMPLE):
            shutil.copyfile(directory / name, self.folder / name)
        link_example(device, self.folder)

    def __call__(self, past: np.ndarray) -> np.ndarray:
        size = self.shape[0]
        calls = -(-len(past) // size)
        padding = np.repeat(past[:1], calls * size - len(past), axis=0)
        windows = np.concatenate([past, padding]).reshape(calls, *self.shape)
        binary = self.folder / STATIC_BINARY
        forecast = run_static_binary(self.device, binary, windows, self.output, TIME_LIMIT_S)
        return forecast.reshape(-1, *self.output[1:])[: len(past)]

    def instructions(self, past: np.ndarray) -> int | None:
        """Of one call, whose batch is the program's own."""
        window = np.resize(past, self.shape).astype(np.float32)
        for option in ONE_AT_A_TIME:
            counts = [self._count(option, np.repeat(window[None], calls, axis=0)) for calls in (1, 2)]
            if all(counts):
                return counts[1] - counts[0]
        return None

    def _count(self, option: str, windows: np.ndarray) -> int:
        """Instructions of the whole program; 0 where qemu has no such option or does not finish."""
        windows.tofile(self.folder / "count.bin")
        emulator, *arguments = self.emulator
        command = [emulator, option, "-d", "nochain,exec", "-D", "/dev/stderr", *arguments]
        command += [f"./{STATIC_BINARY}", "count.bin", "counted.bin"]
        shell = f"{shlex.join(command)} 2>&1 >/dev/null | grep -c ^Trace"
        done = run_process(["sh", "-c", shell], seconds=TIME_LIMIT_S, cwd=self.folder)
        return int(done.stdout) if done.stdout.strip().isdigit() and done.code is not None else 0
