"""The attack: mutants of every format, each read in a process of its own.

    python benchmarks/fuzz.py                        10,000 mutants, results/fuzz.{json,md}
    python benchmarks/fuzz.py --mutants 500 --check  what CI runs: the kept cases and 500 mutants, no files
    python benchmarks/fuzz.py --resume               goes on where it was stopped

A mutant follows from the seed and its number alone.  ``tests/fuzz/judge.py`` says which outcomes are allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with one thread may be forked
sys.path.insert(0, str(HERE.parent / "tests"))

from fuzz.campaign import CASES, Campaign, counts, fingerprint, keep, read_case  # noqa: E402
from fuzz.child import limit_memory  # noqa: E402
from fuzz.corpus import build, formats  # noqa: E402
from fuzz.judge import ALLOWED  # noqa: E402

WORK = HERE.parent / ".build" / "fuzz"


def main() -> int:
    asked = _arguments()
    corpus = build(asked.corpus)
    chosen = [each for each in formats(corpus) if not asked.formats or each.name.split()[0] in asked.formats]
    began = time.monotonic()
    with Campaign(corpus, chosen) as campaign:
        limit_memory()  # making mutants must not take the machine either
        print(f"corpus and baselines after {time.monotonic() - began:.0f} s", file=sys.stderr)
        broken = [] if asked.formats else replay(campaign)
        log = asked.log or WORK / f"mutants-{asked.seed}.jsonl"
        lines = _attack(campaign, asked, log)
    failed = [each for each in lines if each["verdict"]["kind"] not in ALLOWED]
    seconds = time.monotonic() - began
    print(table(counts(lines)))
    print(
        f"{len(lines)} mutants, {len(failed)} failures, {len(broken)} kept cases broken, {seconds:.0f} s",
        file=sys.stderr,
    )
    if asked.results:
        _write_results(asked.results, lines, asked.seed, seconds)
    return 1 if failed or broken else 0


def replay(campaign: Campaign) -> list[Path]:
    """The kept cases that fail again."""
    broken = []
    for path in sorted(CASES.glob("*.json")):
        case = read_case(path)
        if case.format not in campaign.formats:
            continue  # a target that cannot lower here has no specimen
        verdict, ending = campaign.judge(case)
        if not verdict.allowed:
            broken.append(path)
            print(
                f"{path.name}: {verdict.kind}: {verdict.why}\n    {ending.stderr.strip()[-300:]}",
                file=sys.stderr,
            )
    return broken


def _attack(campaign: Campaign, asked: argparse.Namespace, log: Path) -> list[dict[str, Any]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        [json.loads(line) for line in log.read_text().splitlines()] if asked.resume and log.is_file() else []
    )
    done = {line["number"] for line in lines}
    seen: set[str] = set()
    with log.open("a" if asked.resume else "w") as stream:
        for found in campaign.attack((n for n in range(asked.mutants) if n not in done), asked.seed):
            stream.write(found.to_json() + "\n")
            stream.flush()
            lines.append(json.loads(found.to_json()))
            if found.verdict.allowed:
                continue
            if (mark := fingerprint(found)) not in seen:
                seen.add(mark)
                edits = json.dumps(found.case.edits)[:300]
                print(f"{found.number} {found.case.format}, {found.case.reader}: {found.verdict.kind}: "
                      f"{found.verdict.why}\n    {edits}", file=sys.stderr, flush=True)  # fmt: skip
            if asked.keep:
                keep(found)
    return lines


def table(found: Mapping[str, Counter[str]]) -> str:
    """Markdown: a row a format."""
    kinds = sorted({kind for row in found.values() for kind in row} - set(ALLOWED))
    head = ["format", "mutants", *ALLOWED, "failures", *kinds]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    total: Counter[str] = Counter()
    for name, row in sorted(found.items()):
        rows.append(_row(name, row, kinds))
        total += row
    rows.append(_row("all", total, kinds))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(name: str, row: Counter[str], kinds: Sequence[str]) -> list[str]:
    failures = sum(row[kind] for kind in kinds)
    return [
        name,
        str(row.total()),
        *(str(row[kind]) for kind in ALLOWED),
        str(failures),
        *(str(row[kind]) for kind in kinds),
    ]


def _write_results(stem: Path, lines: list[dict[str, Any]], seed: int, seconds: float) -> None:
    failures = Counter(_told(**line) for line in lines if line["verdict"]["kind"] not in ALLOWED)
    by_format = counts(lines)
    peak = max(line["peak_bytes"] for line in lines)
    slowest = max(line["seconds"] for line in lines)
    facts = {
        "method": METHOD,
        "seed": seed,
        "mutants": len(lines),
        "seconds": round(seconds),
        "largest_peak_bytes": peak,
        "slowest_s": round(slowest, 2),
        "by_format": {name: dict(row) for name, row in sorted(by_format.items())},
        "failures": dict(failures.most_common()),
    }
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    listed = "\n".join(f"- {count} x {what}" for what, count in failures.most_common()) or "None."
    stem.with_suffix(".md").write_text(
        f"# The attack on every format\n\n{METHOD}\n\nSeed {seed}, {len(lines)} mutants. Largest peak "
        f"memory of a reader {peak / 2**20:.0f} MiB, slowest reader {slowest:.1f} s.\n\n{table(by_format)}"
        f"\n\n## Failures\n\n{listed}\n"
    )


def _told(case: Mapping[str, Any], verdict: Mapping[str, Any], **_: object) -> str:
    return f"{case['format']}, {case['reader']}: {verdict['kind']}: {verdict['why']}"


METHOD = (
    "Every mutant is one small real specimen with one or two drawn edits (trees of JSON and TOML, headers, "
    "bytes, lines, zip entries, the files themselves), its hashes redone or not, handed to one drawn reader "
    "in a process of its own with limits of time and memory. Allowed: a documented error in one line, "
    "the result of the untouched specimen, or another result of an input that anybody may edit or whose "
    "hashes were redone."
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="*", help="first words of their names: artifact csv ...")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--check", action="store_true", help="write no results")
    parser.add_argument("--keep", action="store_true", help="write failures to tests/fuzz/cases")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "fuzz")
    asked = parser.parse_args()
    if asked.check:
        asked.results = None
    return asked


if __name__ == "__main__":
    sys.exit(main())
