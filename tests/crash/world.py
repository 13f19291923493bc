"""A folder with small inputs, the commands that write, and what must hold whatever happened to them."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz.child import load_modules
from fuzz.corpus import SMALL, TASK

QUICK = ("--set", "measure.duration_s=0.05", "--set", "measure.min_queries=64")
SECONDS = 180.0
REFUSALS = range(2, 7)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, minus the signal that ended it, or None after ``SECONDS``."""

    code: int | None
    stderr: str

    @property
    def refused(self) -> bool:
        """Whether it is a documented error: its exit code and one line."""
        lines = self.stderr.splitlines()
        return self.code in REFUSALS and any(line.startswith("error: ") for line in lines)


class Running:
    """A command in a child of this process, which has imported everything already."""

    def __init__(self, world: World, arguments: Sequence[str], prepare: Callable[[], None] | None) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _child(world, arguments, writing, prepare)
        os.close(writing)
        self.stderr, self.text = reading, ""
        self.until = time.monotonic() + SECONDS

    def read(self, seconds: float) -> bool:
        """Waits for more on stderr; whether there may be still more after it."""
        if not select.select([self.stderr], [], [], max(0.0, seconds))[0]:
            return True
        piece = os.read(self.stderr, 1 << 16)
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)

    def kill_after_lines(self, count: int) -> None:
        """SIGKILL as soon as so many steps have been announced; ends by itself where there are fewer."""
        while time.monotonic() < self.until and self.steps < count:
            if not self.read(1.0):
                return
        self.kill()

    def kill_after(self, seconds: float) -> None:
        """SIGKILL after so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self.read(left):
                return
        self.kill()

    @property
    def steps(self) -> int:
        """Steps announced so far: lines that begin with their number."""
        return sum(line[:3].isdigit() for line in self.text.splitlines())

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Its end; a command that does not end in time is killed, and its code is None."""
        in_time = True
        while self.read(self.until - time.monotonic()):
            if time.monotonic() > self.until:
                in_time = False
                self.kill()
                break
        self_ended = os.waitpid(self.pid, 0)[1]
        self.kill()  # whatever it started
        os.close(self.stderr)
        return Ended(os.waitstatus_to_exitcode(self_ended) if in_time else None, self.text)


def _child(world: World, arguments: Sequence[str], writing: int, prepare: Callable[[], None] | None) -> None:
    code: object = 1
    try:
        os.setsid()
        os.chdir(world.folder)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
        os.environ.update(TSFMC_CACHE=str(world.cache), TMPDIR=str(world.temporary))
        import tempfile

        tempfile.tempdir = None
        if prepare is not None:
            prepare()
        from tsfmc.compiler.cli import main

        sys.argv = ["tsfmc", *arguments]
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class World:
    """Inputs from the corpus of the attack; everything written goes below ``folder``.

    Attributes:
        expected: command -> hash of what it writes when nothing happens.
    """

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.corpus, self.folder = corpus, folder
        self.out, self.cache, self.temporary = folder / "out", folder / "cache", folder / "tmp"
        self.expected: dict[str, str] = {}
        (folder / "new.csv").write_text(new_rows(corpus / "series.csv"))
        shutil.copytree(corpus / "out", folder / "base")
        for name in ("tvm", "trt", "c"):
            shutil.rmtree(folder / "base" / name, ignore_errors=True)

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Name -> arguments.  Each writes below ``out``."""
        data = ("--data", str(self.corpus / "series.csv"))
        store = ("--teacher-store", str(self.corpus / "store"))
        return {
            "compile": ("compile", *store, *data, *SMALL, "-o", "out"),
            "teach": (
                "teach",
                "--teacher",
                str(self.corpus / "teacher"),
                *data,
                *TASK,
                *QUICK,
                "-o",
                "out/store",
            ),
            "update": ("update", "base/onnx", "--data", "new.csv", "-o", "out"),
        }

    def reset(self) -> None:
        """Nothing written, nothing cached."""
        for path in (self.out, self.cache, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()

    def start(self, name: str, prepare: Callable[[], None] | None = None) -> Running:
        return Running(self, self.commands()[name], prepare)

    def start_signing(self) -> Running:
        """``sign`` of the artifact in ``out``."""
        return Running(self, ("sign", "out/onnx", "--key", str(self.corpus / "private.pem")), None)

    def run(self, name: str, prepare: Callable[[], None] | None = None) -> Ended:
        return self.start(name, prepare).wait()

    def warm(self) -> None:
        """Every command once: what it writes, and what it imports, which later children then share."""
        for name in self.commands():
            self.reset()
            listing = self.folder / "modules"
            ended = self.run(name, partial(_list_modules, listing))
            if ended.code != 0:
                raise RuntimeError(f"{name}: {ended.stderr[-2000:]}")
            self.expected[name] = self.payload(name)
            load_modules(set(listing.read_text().split()))

    def payload(self, name: str) -> str:
        """Hash of what must be byte-equal whenever a command ends well."""
        patterns = {
            "compile": ("onnx/model.onnx", "onnx/selftest/*", "statistics.safetensors", "recipe.lock.toml"),
            "teach": ("store/*/*.npy",),
            "update": ("onnx/model.onnx", "onnx/selftest/*", "statistics.safetensors"),
        }[name]
        digest = hashlib.sha256()
        for pattern in patterns:
            for path in sorted(self.out.glob(pattern)):
                digest.update(path.relative_to(self.out).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()

    def broken(self) -> list[str]:
        """What is wrong with an artifact or store that stands under its final name."""
        from tsfmc.targets.artifact.device.check import find_problems

        found = list(find_problems(self.out / "onnx")) if (self.out / "onnx").exists() else []
        return [f"the artifact that is left is broken: {problem}" for problem in found]

    def litter(self) -> list[str]:
        """Unfinished things that a successful run has left in the output, beside it, or in the cache."""
        places = [path for root in (self.out, self.cache) if root.is_dir() for path in root.rglob("*")]
        names = [path for path in places if path.name.startswith(".") or path.suffix in (".tmp", ".partial")]
        work = self.cache / "work"
        names += list(work.iterdir()) if work.is_dir() else []
        return [str(path.relative_to(self.folder)) for path in names]

    def recovers(self, name: str) -> list[str]:
        """The same command again must succeed, write the same bytes and leave nothing unfinished."""
        ended = self.run(name)
        if ended.code != 0:
            return [f"the next run ended with {ended.code}: {ended.stderr.strip()[-300:]}"]
        found = [] if self.payload(name) == self.expected[name] else ["the next run wrote other bytes"]
        if litter := self.litter():
            found.append(f"left behind after the next run: {', '.join(litter[:5])}")
        return found + self.broken()


def _list_modules(path: Path) -> None:
    real = os._exit

    def leave(code: int) -> None:
        path.write_text("\n".join(sys.modules))
        real(code)

    os._exit = leave  # type: ignore[assignment]


def new_rows(series: Path, rows: int = 120) -> str:
    """Rows that follow those of a series, one step later each."""
    import pandas as pd

    frame = pd.read_csv(series, parse_dates=["date"])
    new = frame.tail(rows).copy()
    new["date"] += frame["date"].iloc[-1] - new["date"].iloc[0] + pd.Timedelta(hours=1)
    text: str = new.to_csv(index=False)
    return text
