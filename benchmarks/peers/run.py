"""The same students through what a user would otherwise pick, side by side.

    python benchmarks/peers/run.py --environments DIR      sets up one environment a peer, measures every case
    python benchmarks/peers/run.py --environments DIR --only shared-D7 --rounds 9

Each runtime is a process of its own on the same core, one thread, and they take turns: a round gives every
runtime one burst of calls that follow each other (the ``stream`` scenario), in a rotating order.  A burst
lasts ``--burst-ms`` by the runtime's own clock, so how slow one is changes nothing for another.  A round's
ratio is a runtime's mean call over onnxruntime's; a row is the median over rounds with a bootstrap interval.
Weights are drawn: a forecast costs the same with any.  A runtime that cannot take a case says why in its row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, cases, folder, windows
from runtimes import RUNTIMES

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
REFERENCE = "onnxruntime"
SOURCE = HERE.parents[1] / ".build"
"""A folder in which the package is called tsfmc (``make lint`` makes it), for the peers' environments."""


def environment(root: Path, name: str) -> Path:
    """The Python of a runtime: this one, or that of a virtual environment made at the first use."""
    needs = RUNTIMES[name].needs
    if not needs:
        return Path(sys.executable)
    place = root / name.split()[0].lower()
    python = place / "bin" / "python"
    if not (place / "ok").exists():
        venv.create(place, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        constraints = ["-c", str(HERE.parents[1] / "constraints.txt")]
        subprocess.run([*pip, *constraints, "numpy", "pydantic", *needs], check=True)
        (place / "ok").touch()
    return python


class Worker:
    """A runtime with a case in its own process; ``error`` where it cannot take it."""

    def __init__(self, python: Path, name: str, case: Case, root: Path, seconds: float) -> None:
        self.name, self.error, self.facts, self.root = name, "", dict[str, Any](), root
        self.times: list[dict[str, float]] = []
        command = [str(python), str(HERE / "worker.py")]
        place = [name, case.label, str(root)]
        variables = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
        self.log = (folder(root, case) / f"{name}.log").open("w+")
        try:
            prepared = subprocess.run(
                [*command, "prepare", *place],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                timeout=seconds,
                check=True,
            )
            self.facts |= json.loads(prepared.stdout.splitlines()[-1])
            self.process = subprocess.Popen(
                [*command, "serve", *place],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
            )
            self.facts |= self._answer()
            self.calls(20)
        except (subprocess.SubprocessError, json.JSONDecodeError, IndexError) as problem:
            self.error = self._reason() or type(problem).__name__

    def calls(self, count: int) -> dict[str, float]:
        """Mean wall and CPU seconds of ``count`` calls that follow each other."""
        assert self.process.stdin
        print(count, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        if not self.error:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait(timeout=60)
        self.log.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def _reason(self) -> str:
        """The last line of the log that looks like an error, without where on this machine it was."""
        self.log.flush()
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        named = [line for line in lines if "Error" in line or "error:" in line]
        return (named or lines or [""])[-1].replace(f"{self.root}/", "")[:160]


def compare(case: Case, names: list[str], given: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """A row for each runtime."""
    folder(root, case).mkdir(parents=True, exist_ok=True)
    workers = [
        Worker(environment(given.environments, name), name, case, root, given.prepare_s) for name in names
    ]
    running = [worker for worker in workers if not worker.error]
    sizes = {}
    for worker in running:
        worker.calls(max(1, int(0.5 / worker.calls(20)["wall"])))  # warm for half a second
        sizes[worker.name] = max(5, int(given.burst_ms / 1e3 / worker.calls(50)["wall"]))
    for number in range(given.rounds):
        turn = number % len(running)
        for worker in running[turn:] + running[:turn]:
            worker.calls(max(2, sizes[worker.name] // 10))  # the caches are this runtime's again
            worker.times.append(worker.calls(sizes[worker.name]))
    truth = np.load(folder(root, case) / f"{REFERENCE}.npy")
    rows = [row(worker, running, truth, folder(root, case)) for worker in workers]
    for worker in workers:
        worker.close()
    return [{"case": case.name, "variates": case.variates, "wanted": case.wanted, **each} for each in rows]


def row(worker: Worker, running: list[Worker], truth: np.ndarray, place: Path) -> dict[str, Any]:
    """Medians, ratio to onnxruntime with its interval, and what must be shipped."""
    if worker.error:
        return {"runtime": worker.name, "error": worker.error}
    reference = next(each for each in running if each.name == REFERENCE)
    wall = np.array([time["wall"] for time in worker.times])
    ratios = wall / np.array([time["wall"] for time in reference.times])
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    forecast = np.load(place / f"{worker.name}.npy")
    return {
        "runtime": worker.name,
        "wall_us": float(np.median(wall)) * 1e6,
        "cpu_us": float(np.median([time["cpu"] for time in worker.times])) * 1e6,
        "ratio": float(np.median(ratios)),
        "interval": [float(value) for value in np.quantile(resampled, (0.025, 0.975))],
        "spread": float(np.median(np.abs(wall - np.median(wall))) / np.median(wall)),
        "difference": float(np.abs(forecast - truth).max() / (1 + np.abs(truth).max())),
        **{name: worker.facts[name] for name in ("bytes", "library_bytes", "cold_start_ms", "peak_rss_mb")},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one table of ratios, a line a runtime, a column a case; one of sizes."""
    labels = list(dict.fromkeys((each["case"], each["variates"]) for each in rows))
    names = list(dict.fromkeys(each["runtime"] for each in rows))
    found = {(each["runtime"], each["case"], each["variates"]): each for each in rows}
    heads = " | ".join(f"{name} D={variates}" for name, variates in labels)
    lines = [f"| runtime | {heads} |", "|" + "---|" * (len(labels) + 1)]
    for name in names:
        cells = [_cell(found.get((name, *label)), found, label) for label in labels]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| runtime | model bytes | libraries MB | cold start ms | peak RSS MB |",
        "|---|---|---|---|---|",
    ]
    sample = labels[min(4, len(labels) - 1)]
    for name in names:
        each = found.get((name, *sample), {"error": "not run"})
        if "error" not in each:
            facts = f"{each['bytes']:,} | {each['library_bytes'] / 1e6:.1f} | "
            lines.append(f"| {name} | {facts}{each['cold_start_ms']:.0f} | {each['peak_rss_mb']:.0f} |")
    lines += ["", f"Sizes, cold start (imports, load, first call) and memory: {sample[0]}, D={sample[1]}."]
    problems = {(each["runtime"], each["error"]) for each in rows if "error" in each}
    lines += [f"{name}: {error}" for name, error in sorted(problems)]
    return "\n".join(lines) + "\n"


def _cell(each: dict[str, Any] | None, found: dict[Any, dict[str, Any]], label: tuple[str, int]) -> str:
    if each is None or "error" in each:
        return "-"
    best = min(one["ratio"] for key, one in found.items() if key[1:] == label and "ratio" in one)
    text = f"{each['ratio']:.2f}"
    return f"**{text}**" if each["ratio"] == best else text


def main() -> None:
    """Measures and writes the results."""
    from tsfmc.targets.measure.host import host_record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--only", help="cases whose label starts with this")
    parser.add_argument("--runtimes", help="some runtimes, by name, with commas")
    parser.add_argument("--rounds", type=int, default=33)
    parser.add_argument("--burst-ms", type=float, default=30.0)
    parser.add_argument("--prepare-s", type=float, default=600.0, help="limit for a runtime's own compiler")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    given = parser.parse_args()
    names = given.runtimes.split(",") if given.runtimes else list(RUNTIMES)
    if REFERENCE not in names:
        names.insert(0, REFERENCE)
    names.sort(key=list(RUNTIMES).index)  # the reference exports the ONNX file that others read
    given.environments.mkdir(parents=True, exist_ok=True)
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    rows: list[dict[str, Any]] = []
    for case in cases():
        if given.only and not case.label.startswith(given.only):
            continue
        with tempfile.TemporaryDirectory() as root:
            rows += compare(case, names, given, Path(root))
        for each in rows[-len(names) :]:
            result = (
                each.get("error") or f"{each['wall_us']:10.1f} us  {each['ratio']:.3f} {each['interval']}"
            )
            print(f"{case.label:22s} {each['runtime']:20s} {result}", file=sys.stderr, flush=True)
        method = (
            f"stream, batch 1, L {windows(case).shape[-1]}, H 96, fp32, 1 thread, one process each on core "
            f"{core}, {given.rounds} rounds of {given.burst_ms:.0f} ms bursts in rotating order, 64 windows, "
            "host copies in, ratio = median over rounds of mean call over onnxruntime's, interval = 95 % "
            "bootstrap over rounds"
        )
        record = {"method": method, "host": host_record(), "rows": rows}
        given.out.write_text(json.dumps(record, indent=1) + "\n")
        head = f"# Peers\n\nTime of a forecast over that of onnxruntime on the plain export. {method}.\n\n"
        given.out.with_suffix(".md").write_text(head + table(rows))


if __name__ == "__main__":
    main()
