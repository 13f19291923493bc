"""The disasters.  Each yields what went wrong, as ``(where, finding)``; nothing where all is well."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .world import Ended, World

Finding = tuple[str, str]
DISK_BYTES = (0, 4096, 16_384, 65_536, 262_144)
YEAR = 365 * 86_400.0


def killed_at_steps(world: World, name: str, every: int = 1) -> Iterator[Finding]:
    """SIGKILL when a step is announced, with nothing there before and with an old artifact there."""
    steps = count_steps(world, name)
    for number in range(1, steps + 1, every):
        for old in (False, True):
            where = f"{name} killed at step {number} of {steps}{', over an old artifact' if old else ''}"
            yield from (
                (where, each)
                for each in _kill(world, name, old, lambda run, n=number: run.kill_after_lines(n))
            )


def killed_at_moments(world: World, name: str, count: int, rng: random.Random) -> Iterator[Finding]:
    """SIGKILL after a drawn time."""
    world.reset()
    began = time.monotonic()
    world.run(name)
    whole = time.monotonic() - began
    for _ in range(count):
        moment = rng.uniform(0.0, 1.05 * whole)
        where = f"{name} killed after {moment:.2f} s of {whole:.2f}"
        yield from (
            (where, each)
            for each in _kill(world, name, rng.random() < 0.5, lambda run, t=moment: run.kill_after(t))
        )


def killed_again_and_again(world: World, name: str, times: int, rng: random.Random) -> Iterator[Finding]:
    """Kills in one place: what is left of them must not pile up."""
    world.reset()
    for _ in range(times):
        running = world.start(name)
        running.kill_after_lines(rng.randrange(3, 18))
        running.wait()
    yield from ((f"{name} killed {times} times in a row", each) for each in world.recovers(name))


def killed_signing(world: World, count: int, rng: random.Random) -> Iterator[Finding]:
    """SIGKILL of ``sign`` after a drawn time: signed as a whole or not at all, and then it can be signed."""
    world.reset()
    artifact = world.out / "onnx"
    shutil.copytree(world.folder / "base" / "onnx", artifact)
    began = time.monotonic()
    world.start_signing().wait()
    whole, signature = time.monotonic() - began, (artifact / "model.sig").read_bytes()
    for _ in range(count):
        moment = rng.uniform(0.0, 1.05 * whole)
        where = f"sign killed after {moment:.3f} s of {whole:.3f}"
        (artifact / "model.sig").unlink(missing_ok=True)
        killed = world.start_signing()
        killed.kill_after(moment)
        killed.wait()
        if (artifact / "model.sig").exists() and (artifact / "model.sig").read_bytes() != signature:
            yield where, "a part of a signature"
        yield from ((where, each) for each in world.broken())
        ended = world.start_signing().wait()
        if ended.code != 0:
            yield where, f"the next run ended with {ended.code}: {ended.stderr.strip()[-300:]}"
        elif (artifact / "model.sig").read_bytes() != signature:
            yield where, "the next run signed otherwise"
        yield from ((where, f"left behind: {each}") for each in world.litter())


def _kill(world: World, name: str, old: bool, kill: Callable[..., None]) -> list[str]:
    world.reset()
    if old and name != "teach":
        shutil.copytree(world.folder / "base" / "onnx", world.out / "onnx")
    running = world.start(name)
    kill(running)
    running.wait()
    return [*world.broken(), *world.recovers(name)]


def count_steps(world: World, name: str) -> int:
    """Steps that a command announces."""
    world.reset()
    running = world.start(name)
    running.wait()
    return max(1, running.steps)


def two_at_once(world: World, name: str, rounds: int, rng: random.Random) -> Iterator[Finding]:
    """Two runs in one output folder and one cache: each succeeds or refuses, and what is left is whole."""
    for number in range(rounds):
        where = f"two at once: {name}, round {number}"
        world.reset()
        first = world.start(name)
        first.read(rng.uniform(0.0, 2.0))
        second = world.start(name)
        endings = [_both(first, second), second.wait()]
        for ended in endings:
            if ended.code != 0 and not ended.refused:
                yield where, f"ended with {ended.code}: {ended.stderr.strip()[-300:]}"
        if all(ended.code != 0 for ended in endings):
            yield where, "neither succeeded"
        elif world.payload(name) != world.expected[name]:
            yield where, "other bytes"
        yield from ((where, each) for each in [*world.broken(), *world.recovers(name)])


def _both(first: object, second: object) -> Ended:
    """Waits for the first while the second is read too, or a full pipe would hold it."""
    from .world import Running

    assert isinstance(first, Running) and isinstance(second, Running)
    while first.read(0.05):
        second.read(0.0)
    return first.wait()


def full_disk(world: World, name: str) -> Iterator[Finding]:
    """Files may not grow beyond so many bytes: the command refuses in one line, the old artifact stays."""
    for size in DISK_BYTES:
        where = f"{name} with files of at most {size} bytes"
        yield from ((where, each) for each in _starved(world, name, lambda size=size: _limit_files(size)))
    for place in ("out", "cache", "tmp"):
        for size in DISK_BYTES[1:]:
            with small_disk(world, world.folder / place, size) as mounted:
                if not mounted:
                    continue
                where = f"{name} with {size} bytes in {place}"
                yield from ((where, each) for each in _starved(world, name, None, reset=False))


def _starved(world: World, name: str, prepare: Callable[[], None] | None, reset: bool = True) -> list[str]:
    if reset:
        world.reset()
    ended = world.run(name, prepare)
    found = []
    if ended.code != 0 and not ended.refused:
        found.append(f"ended with {ended.code}: {ended.stderr.strip()[-300:]}")
    if ended.code == 0 and world.payload(name) != world.expected[name]:
        found.append("success, and other bytes")
    return found + world.broken()


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def small_disk(world: World, place: Path, size: int) -> Iterator[bool]:
    """A disk of so many bytes at ``place``; gives False where this user may not mount one."""
    world.reset()
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = mounted and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def jumping_clock(world: World, name: str, seed: int) -> Iterator[Finding]:
    """Another time of the year at every look at the wall clock, years apart: the same bytes."""
    world.reset()
    ended = world.run(name, lambda: _jump(seed))
    where = f"{name} under a clock that jumps"
    if ended.code != 0:
        yield where, f"ended with {ended.code}: {ended.stderr.strip()[-300:]}"
    elif world.payload(name) != world.expected[name]:
        yield where, "other bytes"
    yield from ((where, each) for each in [*world.broken(), *world.recovers(name)])


def _jump(seed: int) -> None:
    rng, real = random.Random(seed), time.time

    def jumping() -> float:
        return real() + rng.uniform(-40, 40) * YEAR

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)
