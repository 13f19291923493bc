"""Do the tests bite?  Small faults, one at a time, each against the tests of its module.

    python benchmarks/mutation.py                      210 faults of a seed, and the named ones
    python benchmarks/mutation.py --only learning/     those of some modules
    python benchmarks/mutation.py --named              the named ones alone

The working tree is copied, a fault is written into the copy, and a process forked from one that has the
heavy libraries imported runs the module's own tests until the first failure.  A fault is killed when a test
fails or none ends in time; else it survives, and ``mutation_judged.toml`` says why it may, or it is a hole.
A killed run goes on: what was killed before counts, survivors are tried again when their module or its tests
have changed, and ``--again`` tries everything.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kept
from mutants import Mutant, draw, mutants_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/mutation.json"
JUDGED = ROOT / "benchmarks/mutation_judged.toml"
MODULES = ("passes/*.py", "compiler/learning/*.py", "targets/artifact/**/*.py", "targets/measure/*.py")
_PRIOR = (
    "tests/compiler/learning/test_prior.py",
    "tests/compiler/learning/test_rolling_origin.py",
    "tests/passes/test_solve_affine.py",
)
# Tests of a module beside the file that mirrors it, the quick ones first.
FURTHER: Mapping[str, tuple[str, ...]] = {
    "compiler/learning/affine.py": ("tests/compiler/learning/test_rolling_origin.py",),
    "compiler/learning/branch_origin.py": ("tests/passes/test_add_branch.py",),
    "compiler/learning/evaluate.py": ("tests/compiler/learning/test_cost.py",),
    "compiler/learning/grid.py": _PRIOR,
    "compiler/learning/judging.py": _PRIOR,
    "compiler/learning/statistics.py": ("tests/compiler/learning/test_prior.py",),
    "compiler/learning/synthetic.py": ("tests/passes/test_add_prior.py",),
    "compiler/learning/training.py": ("tests/passes/test_distill.py",),
    "passes/align_temporal.py": ("tests/compiler/ir/test_objective.py",),
    "passes/distill.py": ("tests/passes/test_add_branch.py",),
    **{
        f"targets/artifact/device/{name}.py": (
            "tests/targets/artifact/test_rows.py",
            "tests/targets/artifact/test_tables.py",
        )
        for name in ("rows", "steps", "output")
    },
    **{
        f"targets/artifact/device/{name}.py": (
            "tests/attacks/test_artifact_attacks.py",
            "tests/targets/artifact/test_run_py.py",
        )
        for name in ("bench", "check", "cli", "errors", "files", "forecaster", "manifest")
    },
    **{
        f"targets/artifact/{name}.py": (
            "tests/attacks/test_artifact_attacks.py",
            "tests/targets/artifact/test_write.py",
        )
        for name in ("archive", "hashes", "manifest", "open", "runner", "tables", "write")
    },
}
# Those with a true clock say nothing on a machine that does other work.
_LATENCY = "tests/targets/measure/test_latency.py::test_"
INSTEAD: Mapping[str, tuple[str, ...]] = {
    "targets/measure/latency.py": (
        "tests/targets/measure/test_rounds.py",
        f"{_LATENCY}collector_and_threads_are_as_before_even_after_a_failure",
    ),
    "targets/measure/cold_start.py": (
        f"{_LATENCY}cold_start_is_measured_in_a_fresh_process",
        f"{_LATENCY}cold_start_never_runs_code_of_the_artifact",
    ),
    **{
        f"targets/artifact/device/{name}.py": (
            "tests/targets/measure/test_rounds.py",
            "tests/targets/measure/test_timings.py",
        )
        for name in ("modes", "rounds", "scenarios", "timings")
    },
}
# What takes five seconds and more and shows what its quicker neighbours show for another case.  A survivor is
# to be tried against these by hand before it is called a hole.
_PRUNE = "tests/passes/test_prune_channels.py::test_"
_SURGERY = "tests/passes/test_surgery.py::test_"
LEFT_OUT = (
    "tests/compiler/learning/test_teacher_store.py::test_two_processes_give_the_same_store",
    "tests/passes/test_finetune.py::test_a_killed_run_goes_on",
    "tests/passes/test_finetune.py::test_prune_then_finetune_recovers",
    "tests/passes/test_refit_affine.py::test_the_rows_are_those_without_a_refit",
    "tests/passes/test_scores.py::test_scores_predict_the_true_ablation",
    "tests/targets/artifact/test_write.py::test_two_equal_compiles_give_equal_bytes",
    f"{_PRUNE}a_killed_run_goes_on",
    f"{_PRUNE}equal_runs_are_equal",
    f"{_PRUNE}options_change_the_result",
    f"{_PRUNE}residual_dims_leave_on_demand[moirai-2]",
    f"{_PRUNE}the_cache_gives_the_pruned_teacher_back",
    f"{_PRUNE}the_share_that_survives",
    f"{_PRUNE}whole_branches_may_die",
    *(
        f"{_SURGERY}every_member_is_needed[{name}]"
        for name in ("time-moe", "moirai", "moirai-2", "chronos-bolt")
    ),
    *(
        f"{_SURGERY}masked_equals_sliced_for_any_masks[{name}]"
        for name in ("time-moe", "moirai", "moirai-2", "chronos-bolt")
    ),
)
# A clock's seconds for one of the processor, after which a test that waits is taken to wait for ever.
WAITING = 6
PRELOAD = (
    "accelerate, hypothesis, numpy, onnx, onnxruntime, pandas, psutil, pyarrow, pydantic, pytest, "
    "rich.progress, safetensors.torch, torch, torch.export, torch.nn.attention, torch.utils.data, "
    "torch.utils.flop_counter"
)


@dataclass(frozen=True)
class Named:
    """A fault that once survived: where, what was there, and what stands there instead."""

    name: str
    module: str
    pattern: str
    after: str


NAMED = (
    Named(
        "MAE doubled",
        "compiler/learning/evaluate.py",
        r"float\(per_variate\.mean\(\)\)|absolute / elements",
        r"2 * \g<0>",
    ),
    Named("MASE without the deviation", "compiler/learning/evaluate.py", r" / data\.std\)", ")"),
    Named(
        "seasonal naive from the first season",
        "compiler/learning/evaluate.py",
        r"(?:lookback|past\.shape\[-1\]) - season \+ steps",
        "steps",
    ),
    Named(
        "the same shuffle every epoch",
        "compiler/learning/training.py",
        r"(class _EpochBatches(?:.|\n)*?manual_seed\(self\.seed \* 100_003) \+ self\.epoch\)",
        r"\1)",
    ),
    Named(
        "averaged weights left in the model",
        "compiler/learning/training.py",
        r"self\._put\(now\)",
        "pass",
    ),
    Named(
        "finished shards recomputed on resume",
        "compiler/learning/teacher_store.py",
        r"\[shard for shard in mine if not _mark\(folder, \*shard\)\.is_file\(\)\]",
        "list(mine)",
    ),
    Named(
        "the aligner's scale at the start",
        "passes/align_temporal.py",
        r" / math\.sqrt\(factors\)",
        "",
    ),
    Named(
        "weight decay ignored",
        "compiler/learning/training.py",
        r"weight_decay=plan\.weight_decay",
        "weight_decay=0.0",
    ),
    Named(
        "the warm-up ignored",
        "targets/artifact/device/rounds.py",
        r"done = len\(times\) >= calls and passed >= seconds",
        "done = True",
    ),
)


def main() -> int:
    arguments = _arguments()
    paths = [path for pattern in MODULES for path in sorted(ROOT.glob(pattern))]
    modules = [path.relative_to(ROOT).as_posix() for path in paths]
    every = [mutant for module in modules for mutant in mutants_of(ROOT / module, module)]
    named, drawn = named_mutants(), draw(every, arguments.count, arguments.seed)
    wanted = named if arguments.named else [m for m in (*named, *drawn) if arguments.only in m.module]
    results = arguments.results
    faults = kept.read(results, {"faults": {}})["faults"]
    faults = {mutant.key: faults[mutant.key] for mutant in (*named, *drawn) if mutant.key in faults}
    found = {"seed": arguments.seed, "drawn": len(drawn), "in_all": len(every), "faults": faults}
    if not arguments.report:
        try_all(wanted, found, results, again=arguments.again)
    kept.write(results, found)
    results.with_suffix(".md").write_text(render(found))
    return 1 if any(faults[m.key]["outcome"] == "survived" for m in named if m.key in faults) else 0


def try_all(mutants: Sequence[Mutant], found: dict[str, Any], results: Path, *, again: bool) -> None:
    """Tries what has not been tried, and keeps what it finds after every fault."""
    faults = found["faults"]
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        runner = Runner(copy_of_the_tree(Path(folder)))
        for number, mutant in enumerate(mutants, 1):
            state, known = _state(mutant), faults.get(mutant.key)
            stale = known is None or (known["outcome"] == "survived" and known["state"] != state)
            if stale or again:
                faults[mutant.key] = {**_record(mutant), **runner.try_out(mutant), "state": state}
                kept.write(results, found)
            place = f"{mutant.module}:{mutant.line}  {mutant.operator}"
            print(f"{number}/{len(mutants)}  {faults[mutant.key]['outcome']:8}  {place}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=210, help="faults to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the module's path")
    parser.add_argument("--named", action="store_true", help="the named faults alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write the page anew and try nothing")
    parser.add_argument("--again", action="store_true", help="also what was tried before")
    return parser.parse_args()


def named_mutants() -> list[Mutant]:
    """The named faults, at the place where their pattern stands now."""
    found = []
    for named in NAMED:
        source = (ROOT / named.module).read_text()
        matches = list(re.finditer(named.pattern, source))
        if len(matches) != 1:
            raise SystemExit(f"{named.name}: its pattern occurs {len(matches)} times in {named.module}")
        match = matches[0]
        start, end = (len(source[:place].encode()) for place in match.span())
        line = source.count("\n", 0, match.end()) + 1
        key = f"{named.module} | named | {named.name}"
        after = match.expand(named.after)
        found.append(Mutant(key, named.module, "named", line, start, end, match[0], after))
    return found


def tests_of(module: str) -> list[str]:
    """Test files of a module: the one that mirrors it, and further ones."""
    if module in INSTEAD:
        return list(INSTEAD[module])
    path = Path(module)
    mirror = f"tests/{path.parent}/test_{path.stem}.py"
    further = [test for part, tests in FURTHER.items() if module.startswith(part) for test in tests]
    found = [test for test in dict.fromkeys([mirror, *further]) if (ROOT / test).exists()]
    if not found:
        raise SystemExit(f"{module} has no tests: expected {mirror}")
    # A folder that is run whole contains its files.
    return [test for test in found if not any(test.startswith(f"{other}/") for other in found)]


def copy_of_the_tree(folder: Path) -> Path:
    """The tracked and untracked files of the working tree as the package ``tsfmc`` in ``folder``."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file() and name:
            (folder / "tsfmc" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tsfmc" / name)
    return folder / "tsfmc"


class Runner:
    """Runs tests in processes forked from this one, after the heavy imports."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.baseline_s: dict[tuple[str, ...], float] = {}
        os.environ |= {"OMP_NUM_THREADS": "1", "TSFMC_CACHE": str(tree.parent / "cache")}
        os.environ.pop("PYTHONPATH", None)  # a device that tests set up must not find this package
        for name in PRELOAD.split(", "):
            __import__(name)
        for plugin in importlib.metadata.entry_points(group="pytest11"):
            plugin.load()

    def try_out(self, mutant: Mutant) -> dict[str, Any]:
        """Whether the tests notice, which of them, and after how many seconds of the processor."""
        tests = tests_of(mutant.module)
        if tuple(tests) not in self.baseline_s:
            self.baseline_s[tuple(tests)] = self._baseline(tests)
        path = self.tree / mutant.module
        source = path.read_bytes()
        try:
            self._write(path, mutant.apply(source))
            limit = 20 + 3 * self.baseline_s[tuple(tests)]
            code, seconds, output = self._run(tests, limit)
        finally:
            self._write(path, source)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        outcome = {0: "survived", None: "timeout"}.get(code, "killed")
        return {"outcome": outcome, "by": failed[0] if failed else None, "seconds": round(seconds, 1)}

    def _baseline(self, tests: Sequence[str]) -> float:
        code, seconds, output = self._run(tests, 600)
        if code != 0:
            raise SystemExit(f"{', '.join(tests)} fail without a fault:\n{output[-3000:]}")
        return seconds

    def _write(self, path: Path, source: bytes) -> None:
        """Equal size and second would let Python take the compiled file for the source."""
        path.write_bytes(source)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def _run(self, tests: Sequence[str], limit_s: float) -> tuple[int | None, float, str]:
        """Exit code (none after ``limit_s`` seconds of its processor), those seconds, and the output.

        Seconds of the processor, since on a machine that does other work a clock would kill the faultless.
        """
        log = self.tree.parent / "log"
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 1))
            self._tests(tests, log)
        while True:
            done, status, used = os.wait4(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() - began > WAITING * limit_s:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.05)
        code = os.waitstatus_to_exitcode(status)
        out_of_time = code in (-signal.SIGXCPU, -signal.SIGKILL)
        seconds = used.ru_utime + used.ru_stime
        return None if out_of_time else code, seconds, log.read_text(errors="replace")

    def _tests(self, tests: Sequence[str], log: Path) -> None:
        """In the child: never returns."""
        code = 3
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(self.tree)
            sys.path[:] = [
                str(self.tree.parent),
                *(p for p in sys.path if Path(p or ".").resolve() != ROOT / "benchmarks"),
            ]
            import pytest

            options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            options += ["--assert=plain", f"--basetemp={self.tree.parent / 'tests'}"]
            options += [f"--deselect={test}" for test in LEFT_OUT]
            code = int(pytest.main([*tests, *options]))
        finally:
            sys.stdout.flush()
            os._exit(code)


def _state(mutant: Mutant) -> str:
    """Hash of the module and of its tests."""
    digest = hashlib.sha256((ROOT / mutant.module).read_bytes())
    for test in tests_of(mutant.module):
        place = ROOT / test.partition("::")[0]
        for path in [place] if place.is_file() else sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _record(mutant: Mutant) -> dict[str, Any]:
    return {
        "module": mutant.module,
        "line": mutant.line,
        "operator": mutant.operator,
        "before": " ".join(mutant.before.split())[:160],
        "after": " ".join(mutant.after.split())[:160],
    }


def render(found: Mapping[str, Any]) -> str:
    """The results as a page."""
    judged = tomllib.loads(JUDGED.read_text()) if JUDGED.is_file() else {}
    faults = list(found["faults"].items())
    drawn = [(key, fault) for key, fault in faults if fault["operator"] != "named"]
    left = [(key, fault) for key, fault in drawn if fault["outcome"] == "survived"]
    equal = [key for key, _ in left if key in judged]
    lines = [
        "# Mutation run",
        "",
        f"{found['drawn']} of {found['in_all']} faults were drawn with seed {found['seed']}, "
        f"{len(drawn)} of them tried so far, each against the tests of its module.",
        "",
        f"Survived: {len(left)} ({len(left) / max(1, len(drawn)):.1%}), of which {len(equal)} cannot be "
        f"noticed by their results and {len(left) - len(equal)} are holes.",
        "",
        "| module | faults | killed | survived |",
        "|---|---|---|---|",
    ]
    for module in sorted({fault["module"] for _, fault in drawn}):
        mine = [fault for _, fault in drawn if fault["module"] == module]
        survived = sum(fault["outcome"] == "survived" for fault in mine)
        lines.append(f"| {module} | {len(mine)} | {len(mine) - survived} | {survived} |")
    lines += ["", "## Named faults", "", "| fault | outcome | by |", "|---|---|---|"]
    for key, fault in faults:
        if fault["operator"] == "named":
            by = (fault["by"] or "-").rpartition("/")[2]
            lines.append(f"| {key.rpartition('| ')[2]} | {fault['outcome']} | {by} |")
    lines += ["", "## Survivors", ""]
    for key, fault in left:
        change = f"`{fault['before']}` -> `{fault['after']}`"
        lines.append(f"- {fault['module']}:{fault['line']} {change}: {judged.get(key, 'a hole')}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
