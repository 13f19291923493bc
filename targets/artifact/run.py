#!/usr/bin/env python3
"""Runs the forecaster in this folder.  Needs numpy and the runtime that manifest.json names, nothing else.

    python run.py forecast past.csv [-o out.csv]   the last rows of a CSV in, the forecast as CSV out
    python run.py verify                           every file against its hash
    python run.py selftest                         forecasts against those of the original PyTorch model
    python run.py bench                            load time, memory and latency on this device

or, as a module:

    from run import Forecaster
    forecast = Forecaster(threads=1).forecast(past)   # [D, L] or [B, D, L], in the units of the data

Exit codes: 0 ok, 2 bad input, 3 the runtime is missing or cannot load it, 5 the artifact is broken or edited.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import json
import math
import os
import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

STARTED_NS = time.perf_counter_ns()  # before the slow imports, so that `bench` reports the whole cold start

import numpy as np  # noqa: E402

SCHEMA = 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
SELFTEST_PAST, SELFTEST_FORECAST = "selftest/past.npy", "selftest/forecast.npy"

# Caps that are checked before anything is read, so that a made-up artifact cannot exhaust a small device.
MAX_LISTING_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILES = 1000
MAX_FILE_BYTES = 4 << 30
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")

USER_SUFFIXES = (".csv",)  # data a user may keep beside run.py: nothing in an artifact ever loads it
CONFIDENCE = 0.99


class ArtifactError(Exception):
    """The artifact is broken, truncated or edited."""

    exit_code = 5


class InputError(ValueError):
    """The history that was given cannot be forecast."""

    exit_code = 2


class EngineError(RuntimeError):
    """The engine cannot be loaded on this device: the target's runtime is missing, too old, or refuses."""

    exit_code = 3


Engine: Any = None  # <engine> here the packer puts the target's class Engine


# --- files -------------------------------------------------------------------------------------------


def is_safe_name(name: str) -> bool:
    """Whether ``name`` is a plain relative path: no ``..``, no absolute path, no hidden or odd character."""
    return len(name) <= 200 and SAFE_NAME.fullmatch(name) is not None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def read_sums(directory: Path) -> dict[str, str]:
    """``SHA256SUMS`` as name -> hex digest.

    Raises:
        ArtifactError: missing, too large, malformed, or a name that leaves the directory.
    """
    text = _read_text(directory, SUMS, MAX_LISTING_BYTES)
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ArtifactError(f"{SUMS} line {number}: expected '<sha256>  <file>', got {line[:80]!r}")
        if not is_safe_name(name) or name == SUMS or name in sums:
            raise ArtifactError(f"{SUMS} line {number}: the file name {name[:80]!r} is not allowed here")
        sums[name] = digest
    if len(sums) > MAX_FILES:
        raise ArtifactError(f"{SUMS} lists {len(sums)} files, expected at most {MAX_FILES}")
    if MANIFEST not in sums:
        raise ArtifactError(f"{SUMS} does not list {MANIFEST}")
    return sums


def find_problems(directory: Path) -> Iterator[str]:
    """Everything that is wrong with the files of an artifact, one line each; nothing when it is intact."""
    try:
        sums = read_sums(directory)
    except ArtifactError as error:
        yield str(error)
        return
    made_here = _device_files(directory)
    for name in _present(directory):
        if name not in sums and name != SUMS and name not in made_here and not _may_be_unlisted(name, sums):
            yield f"{name} is not listed in {SUMS}: move it out of the artifact"
    broken = set()
    for name in sorted(sums):
        problem = _file_problem(directory, name, sums[name])
        if problem:
            broken.add(name)
            yield problem
    if MANIFEST not in broken:
        yield from _manifest_problems(directory, sums, broken)


def _present(directory: Path) -> Iterator[str]:
    """Names of all files and links below ``directory``; links are never followed."""
    for folder, folders, files in os.walk(directory, followlinks=False):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted(files + links):
            yield (Path(folder) / name).relative_to(directory).as_posix()


def _may_be_unlisted(name: str, sums: dict[str, str]) -> bool:
    """A user's own data, or what Python itself writes when a script of the artifact is imported."""
    compiled = re.fullmatch(r"__pycache__/(\w+)\.[\w-]+\.pyc", name)
    return name.endswith(USER_SUFFIXES) or (compiled is not None and f"{compiled[1]}.py" in sums)


def _device_files(directory: Path) -> list[str]:
    """Files that a device makes beside the payload, such as an engine built there: no hash is known."""
    try:
        names = read_manifest(directory)["target"].get("device_files", [])
    except ArtifactError:
        return []  # reported with the manifest itself
    return names if isinstance(names, list) else []


def _file_problem(directory: Path, name: str, expected: str) -> str | None:
    path = directory
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return f"{name} is a symbolic link, expected a plain file"
    try:
        found = path.lstat()
    except OSError:
        return f"{name} is listed in {SUMS} but missing"
    if not stat.S_ISREG(found.st_mode):
        return f"{name} is not a plain file"
    if found.st_size > MAX_FILE_BYTES:
        return f"{name} has {found.st_size} bytes, expected at most {MAX_FILE_BYTES}"
    got = sha256_file(path)
    return (
        None if got == expected else f"{name} was changed: sha256 {got[:16]}..., expected {expected[:16]}..."
    )


def _manifest_problems(directory: Path, sums: dict[str, str], broken: set[str]) -> Iterator[str]:
    """Where the manifest does not agree with the files; ``broken`` ones are known already."""
    try:
        manifest = read_manifest(directory)
    except ArtifactError as error:
        yield str(error)
        return
    declared = manifest["files"]
    for name in sorted(set(sums) - {MANIFEST} | set(declared)):
        entry = declared.get(name)
        if not isinstance(entry, dict) or entry.get("sha256") != sums.get(name):
            yield f"{MANIFEST} field files: {name} does not agree with {SUMS}"
        elif name not in broken and (directory / name).stat().st_size != entry.get("bytes"):
            yield f"{name} has {(directory / name).stat().st_size} bytes, expected {entry.get('bytes')}"
    if manifest["target"]["entry"] not in sums:
        yield f"{MANIFEST} field target.entry: {manifest['target']['entry']!r} is not a file of the artifact"


def check_files(directory: Path) -> None:
    """Raises ArtifactError for the first problem."""
    for problem in find_problems(directory):
        raise ArtifactError(f"{directory}: {problem}")


def _read_text(directory: Path, name: str, cap: int) -> str:
    path = directory / name
    try:
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{name} is missing or not a plain file: {directory} is not an artifact")
        if path.stat().st_size > cap:
            raise ArtifactError(f"{name} has {path.stat().st_size} bytes, expected at most {cap}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{name} cannot be read: {error}") from None


# --- manifest ----------------------------------------------------------------------------------------


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest with the fields that running needs checked; hashes are not looked at here.

    Raises:
        ArtifactError: names the field.
    """
    text = _read_text(directory, MANIFEST, MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{MANIFEST} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(f"{MANIFEST} has schema {got!r}, this runner reads schema {SCHEMA}")
    task, scaling, target = (_part(manifest, name) for name in ("task", "input", "target"))
    for name in ("lookback", "horizon"):
        if type(task.get(name)) is not int or task[name] < 1:
            raise ArtifactError(
                f"{MANIFEST} field task.{name}: expected a positive integer, got {task.get(name)!r}"
            )
    variates = task.get("variates")
    if not isinstance(variates, list) or not variates or not all(isinstance(name, str) for name in variates):
        raise ArtifactError(f"{MANIFEST} field task.variates: expected a list of names")
    for name in ("mean", "std"):
        values = scaling.get(name)
        if not isinstance(values, list) or len(values) != len(variates) or not all(map(_is_number, values)):
            raise ArtifactError(f"{MANIFEST} field input.{name}: expected {len(variates)} finite numbers")
    if min(scaling["std"]) <= 0:
        raise ArtifactError(
            f"{MANIFEST} field input.std: expected numbers above 0, got {min(scaling['std'])}"
        )
    if not isinstance(target.get("entry"), str) or not is_safe_name(target["entry"]):
        raise ArtifactError(
            f"{MANIFEST} field target.entry: expected a file name, got {target.get('entry')!r}"
        )
    _part(manifest, "files")
    return manifest


def _part(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(manifest.get(name), dict):
        raise ArtifactError(f"{MANIFEST} field {name}: expected an object, got {manifest.get(name)!r}")
    part: dict[str, Any] = manifest[name]
    return part


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


# --- the forecaster ----------------------------------------------------------------------------------


def window_scale(past: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Scale ``[B]`` of each window: max |past| + max |forecast| over ``past [B, D, L], forecast [B, D, H]``.

    An engine may differ from the model by ``tolerance`` times this.  Rounding errors are proportional to
    the numbers that enter a sum as much as to its result, so the past counts too: where a forecast
    cancels to nearly nothing, its own size alone would ask for more digits than float32 has.  No
    absolute term is added, which would let any error pass on windows of tiny numbers.
    """
    scale: np.ndarray = np.abs(past).max(axis=(1, 2)) + np.abs(forecast).max(axis=(1, 2))
    return scale


class Forecaster:
    """The artifact in ``directory``, checked and loaded.

    Args:
        directory: the artifact; by default the folder of this file.
        threads: threads of the engine.
        engine: another engine class than the one packed into this file.

    Attributes:
        manifest: the manifest as plain dictionaries.
        engine: the program alone, ``[B, D, L] -> [B, D, H]`` float32 in scaled units.

    Raises:
        ArtifactError: a file is missing, truncated, edited or not listed.
        EngineError: the target's runtime is not installed here, or cannot load the payload.
    """

    def __init__(
        self,
        directory: Path | None = None,
        threads: int = 1,
        engine: Callable[..., Callable[[np.ndarray], np.ndarray]] | None = None,
    ) -> None:
        self.directory = Path(directory) if directory is not None else Path(__file__).resolve().parent
        check_files(self.directory)
        self.manifest = read_manifest(self.directory)
        task, scaling = self.manifest["task"], self.manifest["input"]
        self.lookback: int = task["lookback"]
        self.horizon: int = task["horizon"]
        self.variates: tuple[str, ...] = tuple(task["variates"])
        self._mean = np.array(scaling["mean"], dtype=np.float64)[:, None]
        self._std = np.array(scaling["std"], dtype=np.float64)[:, None]
        if threads < 1:
            raise InputError(f"threads: expected at least 1, got {threads}")
        try:
            self.engine = (engine or Engine)(self.directory, self.manifest, threads)
        except Exception as error:  # every runtime has its own; the files are intact, so it is this device
            needs = ", ".join(self.manifest.get("runtime_requirements", [])) or "no package"
            reason = " ".join(str(error).split())[:300]
            raise EngineError(
                f"the engine cannot be loaded here: {reason} (this artifact needs {needs})"
            ) from error

    def forecast(self, past: np.ndarray) -> np.ndarray:
        """``[D, L]`` -> ``[D, H]`` or ``[B, D, L]`` -> ``[B, D, H]``, float64, in the units of the data.

        Raises:
            InputError: another shape, or a value that is not a finite number.
        """
        windows = self._checked(past)
        forecast = self._in_scaled_units((windows - self._mean) / self._std) * self._std + self._mean
        result: np.ndarray = forecast[0] if np.ndim(past) == 2 else forecast
        return result

    def verify(self) -> list[str]:
        """What is wrong with the files now, one line each; empty when the artifact is intact."""
        return list(find_problems(self.directory))

    def selftest(self) -> dict[str, Any]:
        """Compares with the forecasts of the original PyTorch model that travel with the artifact.

        Returns:
            ``windows``, ``max_abs`` (scaled units), ``max_rel`` (of ``window_scale``), ``tolerance`` and
            ``passed``.
        """
        tolerance = self.manifest.get("selftest", {}).get("tolerance")
        if not _is_number(tolerance) or not 0 < tolerance < 1:
            raise ArtifactError(
                f"{MANIFEST} field selftest.tolerance: expected a number in (0, 1), got {tolerance!r}"
            )
        past = self._vectors(SELFTEST_PAST, self.lookback)
        expected = (self._vectors(SELFTEST_FORECAST, self.horizon) - self._mean) / self._std
        if len(past) != len(expected):
            raise ArtifactError(f"{SELFTEST_FORECAST} has {len(expected)} windows, expected {len(past)}")
        scaled = (self._checked(past) - self._mean) / self._std
        error = np.abs(self._in_scaled_units(scaled) - expected)
        scale = window_scale(scaled, expected)
        relative = error.max(axis=(1, 2)) / np.where(scale > 0, scale, 1.0)
        return {
            "windows": len(past),
            "max_abs": float(error.max()),
            "max_rel": float(relative.max()),
            "tolerance": tolerance,
            "passed": bool((relative <= tolerance).all()),
        }

    def example_windows(self, count: int) -> np.ndarray:
        """``[count, D, L]`` float32, scaled: the self-test's real windows, each rolled by another time."""
        vectors = (self._vectors(SELFTEST_PAST, self.lookback) - self._mean) / self._std
        rolled = [np.roll(vectors[n % len(vectors)], 7 * n, axis=-1) for n in range(count)]
        return np.stack(rolled).astype(np.float32)

    def bench(self, queries: int = 1024) -> dict[str, Any]:
        """First call, peak memory and single-stream latency on this device; see the method string.

        Percentiles are left out where ``queries`` do not support them.
        """
        windows = list(self.example_windows(64)[:, None] * self._std + self._mean)
        began = time.perf_counter_ns()
        self.forecast(windows[0])
        result: dict[str, Any] = {
            "load_ms": (began - STARTED_NS) / 1e6,
            "first_call_ms": (time.perf_counter_ns() - began) / 1e6,
            "peak_rss_mb": peak_rss_mb(),
        }
        if queries < 1:
            return result
        warm_until = time.perf_counter_ns() + 500_000_000
        warmed = 0
        while warmed < 50 or time.perf_counter_ns() < warm_until:
            self.forecast(windows[warmed % len(windows)])
            warmed += 1
        samples = []
        gc.disable()
        try:
            for query in range(queries):
                window = windows[query % len(windows)]
                start = time.perf_counter_ns()
                self.forecast(window)
                samples.append(time.perf_counter_ns() - start)
        finally:
            gc.enable()
        for percent in (50, 90, 99):
            value = percentile_bound(samples, percent / 100)
            if value is not None:
                result[f"p{percent}_us"] = value / 1e3
        result["n"] = queries
        result["method"] = (
            f"single-stream, batch 1, L {self.lookback}, H {self.horizon}, D {len(self.variates)}, "
            f"warm-up {warmed}, n {queries}, 64 windows rolled from the self-test windows, "
            "scaling and host copies in"
        )
        return result

    def _checked(self, past: np.ndarray) -> np.ndarray:
        """``past`` as float64 ``[B, D, L]``."""
        try:
            windows = np.asarray(past, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("past: expected an array of numbers") from None
        variates, lookback = len(self.variates), self.lookback
        if windows.ndim not in (2, 3) or windows.shape[-2:] != (variates, lookback) or windows.shape[0] == 0:
            raise InputError(
                f"past has shape {list(windows.shape)}, expected [D, L] = [{variates}, {lookback}] "
                f"or [B, D, L], variates in the order {', '.join(self.variates[:8])}"
            )
        windows = windows.reshape(-1, variates, lookback)
        bad = np.argwhere(~np.isfinite(windows))
        if len(bad):
            window, variate, step = bad[0]
            raise InputError(
                f"past: variate {self.variates[variate]!r}, window {window}, step {step} is "
                f"{windows[window, variate, step]}, expected a finite number"
            )
        return windows

    def _in_scaled_units(self, past: np.ndarray) -> np.ndarray:
        """``[B, D, L]`` -> ``[B, D, H]`` float64, through the engine."""
        with np.errstate(over="ignore"):
            windows = np.ascontiguousarray(past, dtype=np.float32)
        if not np.isfinite(windows).all():
            raise InputError("past: the scaled values do not fit into float32")
        forecast = np.asarray(self.engine(windows), dtype=np.float64)
        expected = (len(windows), len(self.variates), self.horizon)
        if forecast.shape != expected or not np.isfinite(forecast).all():
            raise ArtifactError(
                f"the engine returned shape {list(forecast.shape)}, "
                f"all finite: {bool(np.isfinite(forecast).all())}, "
                f"expected finite numbers of shape {list(expected)}"
            )
        return forecast

    def _vectors(self, name: str, steps: int) -> np.ndarray:
        """Self-test vectors ``[N, D, steps]`` float64.  Memory-mapped first, so that a made-up header with a
        huge shape is refused before anything is allocated; pickled objects are refused always."""
        try:
            with np.errstate(over="ignore"):
                array = np.load(self.directory / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as error:
            raise ArtifactError(f"{name} is not a plain array of numbers: {error}") from None
        if array.dtype != np.float64 or array.ndim != 3 or array.shape[1:] != (len(self.variates), steps):
            raise ArtifactError(
                f"{name} holds {array.dtype} {list(array.shape)}, "
                f"expected float64 [N, {len(self.variates)}, {steps}]"
            )
        if not len(array):
            raise ArtifactError(f"{name} holds no window")
        return np.array(array)


# --- measuring ---------------------------------------------------------------------------------------


def percentile_bound(samples: Sequence[float], percentile: float) -> float | None:
    """MLPerf's early-stopping estimate of one percentile: an upper bound at confidence 0.99.

    With ``t`` the largest count for which P(Binomial(n, 1 - percentile) <= t) <= 0.01, the estimate is the
    t-th largest sample.  None where ``n`` does not allow t = 1: below 11 samples for p50, 64 for p90,
    130 for p95, 662 for p99 and 6636 for p99.9.
    """
    n, slower = len(samples), 1.0 - percentile
    below = 0.0  # P(Binomial(n, slower) <= t), summed term by term
    t = -1
    while t < n:
        log_term = math.lgamma(n + 1) - math.lgamma(t + 2) - math.lgamma(n - t)
        below += math.exp(log_term + (t + 1) * math.log(slower) + (n - t - 1) * math.log(percentile))
        if below > 1.0 - CONFIDENCE:
            break
        t += 1
    return sorted(samples)[n - t] if t >= 1 else None


def peak_rss_mb() -> float | None:
    """Highest resident memory of this process so far, or None where the system does not tell."""
    try:  # not getrusage: on Linux its figure starts with the memory of the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# --- CSV ---------------------------------------------------------------------------------------------


class History:
    """The last rows of a CSV: ``values [D, L]``, and the timestamps where the file has them."""

    def __init__(self, values: np.ndarray, time_column: str, times: list[datetime] | None) -> None:
        self.values, self.time_column, self.times = values, time_column, times


def read_csv(path: Path, manifest: dict[str, Any]) -> History:
    """The last L rows of a CSV with named columns; columns that are no variate of the task are ignored.

    Raises:
        InputError: names file, row and column.
    """
    task = manifest["task"]
    rows: deque[tuple[int, list[str]]] = deque(maxlen=task["lookback"])
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            rows.extend((reader.line_num, row) for row in reader if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None
    missing = [name for name in task["variates"] if header.count(name) != 1]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} occurs {header.count(missing[0])} times in the header, "
            f"expected once; the columns are {', '.join(header[:12]) or 'none'}"
        )
    if len(rows) < task["lookback"]:
        raise InputError(f"{path} has {len(rows)} rows, expected at least {task['lookback']} (the lookback)")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path} line {line} has {len(row)} fields, expected {len(header)}")
    columns = [header.index(name) for name in task["variates"]]
    values = np.array([[_number(path, line, header[c], row[c]) for line, row in rows] for c in columns])
    time_at = _time_column(header, rows[-1][1], set(columns))
    if time_at is None:
        return History(values, "step", None)
    times = [_time(path, line, header[time_at], row[time_at]) for line, row in rows]
    _check_times(path, [line for line, _ in rows], times, task.get("step_seconds"))
    return History(values, header[time_at], times)


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path} line {line}, column {column!r}: expected a number, got {cell[:40]!r}")
    return value


def _parse_time(cell: str) -> datetime | None:
    text = cell.strip()
    try:
        return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return None


def _time_column(header: Sequence[str], row: Sequence[str], taken: set[int]) -> int | None:
    free = (index for index in range(len(header)) if index not in taken)
    return next((index for index in free if _parse_time(row[index]) is not None), None)


def _time(path: Path, line: int, column: str, cell: str) -> datetime:
    parsed = _parse_time(cell)
    if parsed is None:
        raise InputError(
            f"{path} line {line}, column {column!r}: expected an ISO timestamp, got {cell[:40]!r}"
        )
    return parsed


def _check_times(path: Path, lines: list[int], times: list[datetime], step: float | None) -> None:
    for line, before, after in zip(lines[1:], times, times[1:]):  # noqa: B905 (Python 3.8 has no strict)
        try:
            gap = (after - before).total_seconds()
        except TypeError:
            raise InputError(
                f"{path} line {line}: timestamps with and without a time zone are mixed"
            ) from None
        if gap <= 0 or (step and gap != step):
            expected = f"{step:g} s after the row before" if step else "later than the row before"
            raise InputError(
                f"{path} line {line}: timestamp {after} is {gap:g} s after the row before, "
                f"expected {expected}"
            )


def write_csv(stream: Any, history: History, forecast: np.ndarray, manifest: dict[str, Any]) -> None:
    """``forecast [D, H]`` as CSV: future timestamps where the step is known in seconds, else step numbers."""
    step = manifest["task"].get("step_seconds")
    writer = csv.writer(stream, lineterminator="\n")
    dated = history.times is not None and step
    writer.writerow([history.time_column if dated else "step", *manifest["task"]["variates"]])
    for ahead, values in enumerate(forecast.T, 1):
        when = history.times[-1] + timedelta(seconds=ahead * step) if history.times and step else ahead
        writer.writerow([when, *(repr(float(value)) for value in values)])


# --- command -----------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description="Runs the forecaster in this folder.")
    parser.add_argument(
        "--artifact", type=Path, default=Path(__file__).resolve().parent, help="another folder"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine (default 1)")
    commands = parser.add_subparsers(dest="command", required=True)
    forecast = commands.add_parser("forecast", help="forecast from the last rows of a CSV")
    forecast.add_argument("past", type=Path)
    forecast.add_argument("-o", "--output", type=Path, help="a file instead of standard output")
    commands.add_parser("verify", help="check every file against its hash")
    commands.add_parser("selftest", help="compare with the forecasts of the original model")
    bench = commands.add_parser("bench", help="measure on this device, as JSON")
    bench.add_argument("--queries", type=int, default=1024, help="0 measures the cold start only")
    arguments = parser.parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except (ArtifactError, InputError, EngineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 0


def _forecast(arguments: argparse.Namespace) -> int:
    forecaster = Forecaster(arguments.artifact, arguments.threads)
    history = read_csv(arguments.past, forecaster.manifest)
    forecast = forecaster.forecast(history.values)
    if arguments.output is None:
        write_csv(sys.stdout, history, forecast, forecaster.manifest)
        return 0
    try:
        with arguments.output.open("w", newline="", encoding="utf-8") as stream:
            write_csv(stream, history, forecast, forecaster.manifest)
    except OSError as error:
        raise InputError(f"{arguments.output} cannot be written: {error}") from None
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    problems = list(find_problems(arguments.artifact))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return ArtifactError.exit_code
    print(f"ok: {len(read_sums(arguments.artifact))} files match {SUMS}")
    return 0


def _selftest(arguments: argparse.Namespace) -> int:
    result = Forecaster(arguments.artifact, arguments.threads).selftest()
    print(json.dumps(result, sort_keys=True))
    return 0 if result["passed"] else ArtifactError.exit_code


def _bench(arguments: argparse.Namespace) -> int:
    print(
        json.dumps(Forecaster(arguments.artifact, arguments.threads).bench(arguments.queries), sort_keys=True)
    )
    return 0


COMMANDS = {"forecast": _forecast, "verify": _verify, "selftest": _selftest, "bench": _bench}

if __name__ == "__main__":
    sys.exit(main())
