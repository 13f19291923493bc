"""``bench``: an artifact, and a small static program that measures it on a device without Python.

    artifact/...      as it is, with its self-test and, where it came along, its teacher
    bench             linked with the artifact, for its device, where that device's compiler is here
    vectors.bin       windows to measure with, and the self-test in scaled units, float32
    bench.c, bench_case.h, Makefile        what ``bench`` is built from

The program measures the artifact alone.  Where the device has Python, ``run.py bench --record`` measures the
teacher in the same run, and where it has onnxruntime, too, in its portable form.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...compiler.base.errors import LoweringError, TsfmcError, UsageError
from ...compiler.base.processes import run_process
from ..artifact.device.bench import listed_payload
from ..artifact.device.forecaster import Forecaster
from ..artifact.device.host import FLAGS
from ..native.devices import find_device
from .layout import Layout, Packed

TEMPLATE = Path(__file__).parent / "templates" / "bench.c"
PROGRAM, VECTORS, CASE = "bench", "vectors.bin", "bench_case.h"
SOURCES = {"c": "artifact/tsfmc_model.c", "tvm": "artifact/libtsfmc_model.a"}
"""What the program is linked with, by kind of target."""
WINDOWS = 64
COMPILE_SECONDS = 600.0
C_FLAGS = ("-std=c99", "-D_GNU_SOURCE", "-O3", "-ffp-contract=fast", "-Wall", "-Wextra")
STATIC = ("-static", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack")

MAKEFILE = """\
# make && ./bench > latency.json        and at home:  tsfmc bench ARTIFACT --record latency.json
CC = {compiler}
bench: bench.c bench_case.h {source}
\t$(CC) {arguments}
.PHONY: record
record: bench
\t./bench > latency.json
"""


class DeviceBench(Layout):
    """An artifact of a C program or library with what measures it."""

    name: ClassVar[str] = "bench"
    summary: ClassVar[str] = "the artifact and a static program that measures it on a device without Python"
    kinds: ClassVar[tuple[str, ...]] = tuple(SOURCES)

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the package, and builds its program where the device's compiler is here."""
        source, facts = SOURCES[artifact.kind], artifact.manifest["target"]
        if not artifact.files.has(Path(source).name):
            raise UsageError(
                f"the artifact has no {Path(source).name} to link a program with",
                hint="compile it in its runtime-free form, or let its run.py bench --record measure",
            )
        if facts["input_shape"][0] != 1:
            raise UsageError(f"the artifact forecasts {facts['input_shape'][0]} windows a call, expected 1")
        compiler = f"{prefix_of(facts)}gcc"
        artifact.copy_to(path / "artifact")
        shutil.copyfile(TEMPLATE, path / "bench.c")
        write_case(artifact, path)
        flags = [*C_FLAGS, *facts.get("flags", ())]
        arguments = [*flags, *STATIC, "-I", "artifact", "-o", PROGRAM, "bench.c", source, "-lm"]
        text = MAKEFILE.format(compiler=compiler, source=source, arguments=shlex.join(arguments))
        (path / "Makefile").write_text(text)
        if shutil.which(compiler):
            done = run_process([compiler, *arguments], seconds=COMPILE_SECONDS, cwd=path)
            if not done.ok:
                raise LoweringError(f"{compiler} {done.ending}: {done.last_line}")


def prefix_of(facts: Mapping[str, Any]) -> str:
    """The prefix of the device's compiler.

    Raises:
        UsageError: the device has no operating system to tell the time.
    """
    named = str(facts["device"])
    nowhere = UsageError(
        f"device {named} has no Linux to measure on", hint="its manifest has counts of instructions"
    )
    try:
        device = find_device(facts["target"] if named.startswith("custom ") else named)
    except TsfmcError:
        raise nowhere from None
    if device.board is not None:
        raise nowhere
    return "" if device.native else device.toolchain.prefix


def write_case(artifact: Packed, path: Path) -> None:
    """``vectors.bin``, and the header with what the program has to know of the artifact."""
    forecaster = Forecaster(artifact.files.directory, engine=_no_engine)
    past, expected = forecaster.selftest_windows()
    with (path / VECTORS).open("wb") as file:
        for numbers in (forecaster.example_windows(WINDOWS), past, expected):
            file.write(np.ascontiguousarray(numbers, dtype="<f4").tobytes())
    lines = {
        "CASE_PAYLOAD": f'"{listed_payload(artifact.files.sums or {})}"',
        "CASE_TOLERANCE": f'"{artifact.manifest["selftest"]["tolerance"]!r}"',
        "CASE_WINDOWS": str(WINDOWS),
        "CASE_SELFTESTS": str(len(past)),
        "CASE_FLAGS": ", ".join(f'"{flag}"' for flag in FLAGS),
    }
    (path / CASE).write_text("".join(f"#define {name} {value}\n" for name, value in lines.items()))


def _no_engine(*given: object) -> Any:
    """The program is for another machine: nothing of it is loaded here."""
    return None
