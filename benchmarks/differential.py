"""Every form of drawn students against float64 torch, on drawn windows of every kind.

    python benchmarks/differential.py                      5,000 draws, results/differential.{json,md}
    python benchmarks/differential.py --draws 300 --check  what CI runs

A draw is a student in all its forms on four windows of one kind.  A student is lowered once and meets every
kind of window, so 5,000 draws are about 400 students.  The tolerance is that of the case, see
``tests/differential/compare.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(HERE.parent / "tests"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from differential import compare  # noqa: E402
from differential.compare import Check, Truth  # noqa: E402
from differential.engines import available, engines  # noqa: E402
from differential.students import Drawn, draw_student  # noqa: E402
from differential.windows import KINDS, draw_windows  # noqa: E402

WORK = HERE.parent / ".build" / "differential"
EVERY = {"onnx": 1, "c": 2, "c int8": 3, "tvm library": 3, "tvm int8": 9, "tvm vm": 9}
"""A form is lowered for every so many students: TVM takes seconds."""


def main() -> int:
    asked = _arguments()
    torch.set_num_threads(1)
    began = time.monotonic()
    lines: list[dict[str, Any]] = []
    log = WORK / f"draws-{asked.seed}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    for line in draws(asked.draws, asked.seed, asked.first):
        lines.append(line)
        with log.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if not asked.check and len(lines) % 500 == 0:
            _write_results(lines, asked.seed, time.monotonic() - began)
        if line["failed"]:
            print(json.dumps(line), flush=True)
    seconds = time.monotonic() - began
    failed = [line for line in lines if line["failed"]]
    print(f"{len(lines)} draws, {len(failed)} disagree, {seconds:.0f} s", file=sys.stderr)
    print(report(lines))
    if not asked.check:
        _write_results(lines, asked.seed, seconds)
    return 1 if failed else 0


def draws(count: int, seed: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """One line a draw: the student, the kind of window, every ratio, and what failed."""
    forms, number, student = available(), 0, first
    while number < count:
        rng = random.Random(f"{seed}:{student}")
        drawn = draw_student(rng)
        wanted = [form for form in forms if student % EVERY[form] == 0]
        for line in examine(
            drawn, wanted, random.Random(f"{seed}:{student}:windows"), KINDS[: count - number]
        ):
            yield {"student": student, **line}
            number += 1
        student += 1


def examine(
    drawn: Drawn, forms: list[str], rng: random.Random, kinds: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """All draws of one student."""
    truth, generator = Truth(drawn), np.random.default_rng(rng.randrange(1 << 30))
    shape = [drawn.shape.lookback, drawn.shape.horizon, drawn.shape.variates]
    try:
        with engines(drawn, forms, draw_windows("walk", drawn.shape, generator)) as found:
            for kind in kinds:
                past = draw_windows(kind, drawn.shape, generator)
                yield _line(drawn, shape, kind, _checks(truth, dict(found), kind, past))
    except Exception as error:  # a form that cannot be made or run at all is a finding, not the end
        yield {
            "form": drawn.name,
            "shape": shape,
            "kind": "lowering",
            "failed": [f"{type(error).__name__}: {error}"[:500]],
            "ratios": {},
        }


def _checks(truth: Truth, found: dict[str, Any], kind: str, past: np.ndarray) -> list[Check]:
    checks = compare.agree(truth, found, past)
    if kind == "walk":
        checks += compare.alone(truth, found, past) + compare.concurrent(found, past)
    if kind in ("walk", "noise"):
        checks += compare.equivariances(truth, past)
    return checks


def _line(drawn: Drawn, shape: list[int], kind: str, checks: list[Check]) -> dict[str, Any]:
    failed = [f"{check.name}: {check.ratio:.3g} of {check.limit:g}" for check in checks if not check.passed]
    ratios = {check.name: check.ratio for check in checks}
    return {"form": drawn.name, "shape": shape, "kind": kind, "failed": failed, "ratios": ratios}


def report(lines: list[dict[str, Any]]) -> str:
    """Markdown: what was compared, how often, the ratios' quantiles, failures."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for name, value in line["ratios"].items():
            ratios[name].append(value)
    rows = [
        "| compared | draws | median | 99 % | largest | beyond the limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, values in sorted(ratios.items()):
        middle, most, largest = np.quantile(values, [0.5, 0.99, 1.0], method="higher")
        beyond = sum(any(text.startswith(f"{name}: ") for text in line["failed"]) for line in lines)
        rows.append(f"| {name} | {len(values)} | {middle:.2f} | {most:.2f} | {largest:.2f} | {beyond} |")
    return "\n".join(rows)


def _write_results(lines: list[dict[str, Any]], seed: int, seconds: float) -> None:
    stem = HERE / "results" / "differential"
    failed = [line for line in lines if line["failed"]]
    facts = {"method": METHOD, "seed": seed, "draws": len(lines), "seconds": round(seconds), "failed": failed}
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    listed = "\n".join(f"- {json.dumps({**line, 'ratios': None})}" for line in failed[:50]) or "None."
    stem.with_suffix(".md").write_text(
        f"# Forms against float64\n\n{METHOD}\n\nSeed {seed}, {len(lines)} draws, {len(failed)} disagree.\n\n"
        f"{report(lines)}\n\n## Disagreements\n\n{listed}\n"
    )


METHOD = (
    "Drawn students (lookback 1-720, horizon 1-336, 1-64 variates, every form, heavy-tailed weights among "
    "them), each in every form, on drawn windows of thirteen kinds. Numbers are errors in units of "
    "max(error of torch float32, 2^-23 max |forecast|) + 1/16 of what moves when every mean of n numbers is "
    "off by sqrt(n) roundings, on the same windows; the limit is "
    f"{compare.FACTOR:g}. Equivariances are held in float64 to the rounding of the weights; "
    "threads to the bit."
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first student, to repeat one")
    parser.add_argument("--check", action="store_true", help="write no results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
