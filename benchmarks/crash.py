"""Kills, full disks, two compiles at once, a clock that jumps: what is left, and whether a new run mends it.

python benchmarks/crash.py           every step, many moments, results/crash.{json,md}
python benchmarks/crash.py --check   what CI runs: some of each, no files
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(HERE.parent / "tests"))

from crash import scenarios  # noqa: E402
from crash.scenarios import Finding  # noqa: E402
from crash.world import World  # noqa: E402
from fuzz.corpus import build  # noqa: E402

WORK = HERE.parent / ".build" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="some of each, and write no results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    asked = parser.parse_args()
    corpus, began = build(asked.corpus), time.monotonic()
    done: Counter[str] = Counter()
    findings: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="tsfmc-crash-") as folder:
        world = World(corpus, Path(folder))
        world.warm()
        print(f"warm after {time.monotonic() - began:.0f} s", file=sys.stderr)
        for kind, found in disasters(world, asked.seed, short=asked.check):
            done[kind] += 1
            for where, what in found:
                findings.append((kind, where, what))
                print(f"{where}: {what}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"{done.total()} disasters, {len(findings)} findings, {seconds:.0f} s", file=sys.stderr)
    if not asked.check:
        _write_results(done, findings, asked.seed, seconds)
    return 1 if findings else 0


def disasters(world: World, seed: int, *, short: bool) -> Iterator[tuple[str, list[Finding]]]:
    """Everything that is tried: its kind, and what it found."""
    rng = random.Random(seed)
    for name in world.commands():
        yield "SIGKILL at steps", list(scenarios.killed_at_steps(world, name, every=6 if short else 1))
        moments = 2 if short else 12
        yield "SIGKILL at drawn moments", list(scenarios.killed_at_moments(world, name, moments, rng))
        yield (
            "SIGKILL again and again",
            list(scenarios.killed_again_and_again(world, name, 3 if short else 10, rng)),
        )
        yield "two at once", list(scenarios.two_at_once(world, name, 1 if short else 6, rng))
        yield "clock", list(scenarios.jumping_clock(world, name, seed))
        if not short or name == "compile":
            yield "full disk", list(scenarios.full_disk(world, name))
    yield "SIGKILL while signing", list(scenarios.killed_signing(world, 6 if short else 60, rng))


def _write_results(
    done: Counter[str], findings: list[tuple[str, str, str]], seed: int, seconds: float
) -> None:
    stem = HERE / "results" / "crash"
    facts = {"seed": seed, "seconds": round(seconds), "tried": dict(done), "findings": findings}
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    listed = "\n".join(f"- {where}: {' '.join(what.split())}" for _, where, what in findings) or "None."
    stem.with_suffix(".md").write_text(
        "# Kills, full disks, two at once, a jumping clock\n\nAfter every disaster: an artifact under its "
        "final name is whole, the same command succeeds, writes the same bytes, and leaves nothing "
        "unfinished behind.\n\n"
        f"## Findings\n\n{listed}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
