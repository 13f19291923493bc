"""Tasks on a real Ray cluster of two worker processes on this machine: the same bytes, whatever is killed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from factory import make_unit, write_series, write_teacher
from required import absent
from tiny_teachers import tiny_teacher

from tsfmc.compiler import api
from tsfmc.compiler.base import ray_executor
from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.engines import EXECUTORS, executor_of
from tsfmc.compiler.base.errors import EngineError, MissingError, UsageError, VerificationError
from tsfmc.compiler.base.executors import Executor, Local
from tsfmc.compiler.base.parallel import Processes, one_thread, thread_counts
from tsfmc.compiler.base.progress import Silent
from tsfmc.compiler.base.ray_executor import ATTEMPTS, SETTINGS, Ray
from tsfmc.compiler.data import synthetic_data
from tsfmc.compiler.ir.unit import CompileUnit
from tsfmc.compiler.learning import pieces
from tsfmc.compiler.learning.labelling import StoreOptions
from tsfmc.compiler.learning.statistics import Sums, WindowStatistics
from tsfmc.compiler.learning.teacher_store import write_store
from tsfmc.targets.artifact.hashes import payload_sha256

os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})  # read once
try:
    import ray
    from ray import cloudpickle
except ImportError:
    ray = None

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests: what is used where ``ray`` is connected already."""
    if ray is None:
        absent("ray")
    # Workers cannot import this module, so what it defines travels with the task.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
    ray.init("local", num_cpus=2, **quiet)
    yield
    ray.shutdown()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def executor(cluster: None) -> Iterator[Executor]:
    with Ray(workers=2) as executor:
        yield executor


def workers() -> list[psutil.Process]:
    """Processes of the actors that compute."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::_Worker")]


def write(unit: CompileUnit, folder: Path, executor: Executor, progress: Any = None, **options: Any) -> Path:
    assert unit.teacher is not None and unit.teacher_info is not None
    write_store(
        folder,
        unit.teacher,
        unit.teacher_info,
        unit.data,
        lookback=unit.teacher.lookback,
        horizon=12,
        options=StoreOptions(**options),
        progress=progress or Silent(),
        processes=Processes(),
        executor=executor,
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_store_has_the_bytes_of_a_local_one(unit: CompileUnit, tmp_path: Path, executor: Executor) -> None:
    options = {"states": ("train",), "state_positions": 3, "train_windows": 300}
    bolt = unit.with_(teacher=tiny_teacher("chronos-bolt", variates=3, horizon=12))
    here = contents(write(bolt, tmp_path / "local", Local(), **options))
    assert here == contents(write(bolt, tmp_path / "ray", executor, **options))
    assert {"train/states.npy", "test/quantiles.npy", "store.json"} < here.keys()


def test_killed_workers_lose_nothing(
    tmp_path: Path, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are killed after the first shard; what is done is not done again, and the store is the same."""
    unit = make_unit(tmp_path, rows=3000)
    local = write(unit, tmp_path / "local", Local())

    class Killing(Silent):
        shards = 0

        def advance(self, steps: int = 1, note: str = "") -> None:
            self.shards += 1
            if self.shards == 1:
                for process in workers():
                    process.kill()

    killing = Killing()
    there = write(unit, tmp_path / "ray", executor, killing)
    assert contents(local) == contents(there)
    assert killing.shards == len(list((there / "shards").iterdir()))
    assert "a worker of the cluster is gone; another one does its tasks" in caplog.text


class Deadly:
    """Ends the process that does one of its items."""

    def __call__(self, item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * item


def test_a_task_that_ends_every_worker_ends_the_run(executor: Executor) -> None:
    found = []
    with pytest.raises(EngineError, match=rf"one task has ended {ATTEMPTS} workers of the cluster") as error:
        for result in executor.map(Deadly(), range(8)):
            found.append(result)
    assert found == [0, 10, 20] and "\n" not in str(error.value)
    assert list(executor.map(Deadly(), [1, 2])) == [10, 20]  # the cluster is none the worse for it


class Unborn:
    """Ends every process that it is unpacked in."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)

    def __call__(self, item: int) -> int:
        return item


def test_workers_that_always_die_end_the_run(executor: Executor) -> None:
    with pytest.raises(EngineError, match=r"one task has ended 3 workers"):
        list(executor.map(Unborn(), range(4)))


class Echo:
    """Gives what it is given."""

    def __call__(self, item: int) -> int:
        return item


def test_few_tasks_are_under_way(executor: Executor) -> None:
    """Items are taken as results are: memory does not grow with their number."""
    items = iter(range(100))
    results = executor.map(Echo(), items)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert next(items) <= 5 + ray_executor.AHEAD * 2
    results.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers() == []


class Refusing:
    """Finds its item wrong, as a teacher's labels may be."""

    def __call__(self, item: int) -> int:
        raise VerificationError(f"item {item} is wrong", hint="take another")


def test_errors_of_a_task_are_those_of_a_local_run(executor: Executor) -> None:
    for where in (Local(), executor):
        with pytest.raises(VerificationError, match=r"^item 7 is wrong \(take another\)$") as error:
            list(where.map(Refusing(), [7, 8]))
        assert error.value.hint == "take another" and type(error.value) is VerificationError


def numbers(sums: Sums) -> list[bytes]:
    tensors = [sums.gram, *sums.cross.values(), *sums.square.values()]
    return [np.int64(sums.count).tobytes(), *(tensor.numpy().tobytes() for tensor in tensors)]


def test_statistics_have_the_bits_of_local_ones(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pieces in a block, labels from a file; and windows that have no rows in common."""
    monkeypatch.setattr(pieces, "PIECE_WINDOWS", 100)
    unit = make_unit(tmp_path, rows=2500)
    count = len(unit.data.windows("train", 48, 12))
    file = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.dtype("float32"), (count, 3, 12))
    file[:] = np.random.default_rng(0).standard_normal(file.shape)
    labels = [("teacher", lambda first, last: np.asarray(file[first:last]))]
    here = WindowStatistics(unit.data, 48, 12, labels)
    there = WindowStatistics(unit.data, 48, 12, labels, executor=executor)
    for fold, other in zip(here.folds(), there.folds(), strict=True):
        assert fold.name == other.name and numbers(fold.judged) == numbers(other.judged)
        assert numbers(fold.fit) == numbers(other.fit)
    assert numbers(there.all()) == numbers(WindowStatistics(unit.data, 48, 12, labels).all())
    synthetic = synthetic_data("h", lookback=48, horizon=12, windows=3000)
    there = WindowStatistics(synthetic, 48, 12, executor=executor)
    assert numbers(there.all()) == numbers(WindowStatistics(synthetic, 48, 12).all())


class Threads:
    """In how many threads a worker computes."""

    def __call__(self, name: str) -> str | int:
        import torch

        return torch.get_num_threads() if name == "torch" else os.environ[name]


def test_workers_compute_in_as_many_threads_as_this_process(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(executor.map(Threads(), ["torch", "OPENBLAS_NUM_THREADS"])) == [2, "3"]
        with one_thread():
            assert thread_counts() == {
                "OMP_NUM_THREADS": 1,
                "MKL_NUM_THREADS": 1,
                "OPENBLAS_NUM_THREADS": 3,
            }
        torch.set_num_threads(64)
        with pytest.raises(EngineError, match=r"with 64 threads .* no node .*set OMP_NUM_THREADS=1"):
            list(executor.map(Threads(), ["torch"]))
    finally:
        torch.set_num_threads(before)


def test_other_code_on_a_node_is_refused(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the work is unpacked."""
    mine = ray_executor.software()
    for name, said in (("tsfmc", "other code of tsfmc"), ("torch", "another torch")):
        monkeypatch.setattr(ray_executor, "software", lambda name=name: {**mine, name: "0.0"})
        with pytest.raises(EngineError, match=rf"this node has {said} .*install the same on every node"):
            list(executor.map(Echo(), [1]))


def test_a_compile_gives_the_same_artifact(
    unit: CompileUnit, tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels and statistics elsewhere; the workers rest before anything is timed."""
    rested: list[str] = []
    monkeypatch.setattr(executor, "rest", lambda: rested.append("rested"))
    written = {}
    for name, engine in (("local", Local()), ("ray", executor)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write(unit, Path("store"), engine, states=())
        result = api.compile(
            data="../series.csv",
            target="onnx",
            engine=engine,
            cache=False,
            lookback=48,
            horizon=12,
            baseline=False,
            teacher_store="store",
            set=["measure.duration_s=0.2"],
        )
        kept = [Path("out/statistics.safetensors"), Path("out/recipe.lock.toml"), Path("store/store.json")]
        written[name] = [payload_sha256(result.artifacts["onnx"]), *(path.read_bytes() for path in kept)]
    assert written["local"] == written["ray"]
    assert rested == 3 * ["rested"]  # before the latency of a store, before that of an artifact, at the end


TEACH = ["--teacher", "teacher", "--data", "long.csv", "--lookback", "48", "--horizon", "12"]


def ended(folder: Path, marks: int, end: Callable[[int], None]) -> tuple[int, str]:
    """``tsfmc teach --engine ray`` in a group of its own, as a terminal starts it, ended by ``end(pid)`` once
    so many shards are done: its code, and what it said.  None of its processes is left."""
    command = [sys.executable, "-m", "tsfmc", "teach", *TEACH, "-o", "there", "--engine", "ray"]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=folder,
        env={**os.environ, "TSFMC_CACHE": str(cache_root()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: len(list((folder / "there").glob("shards/*"))) >= marks)
        below = psutil.Process(process.pid).children(recursive=True)
        assert sum(each.name().startswith("ray::_Worker") for each in below) == 2
        end(process.pid)
        _, said = process.communicate(timeout=60)
        until(lambda: not [each for each in below if alive(each)])
        return process.returncode, said
    finally:
        process.kill()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Returns when it holds, fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def test_an_ended_run_leaves_no_process_and_goes_on(
    tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is killed; it is started again and gets Ctrl-C, which a terminal sends to the whole group;
    then a local run does the rest.  No shard is computed twice, and the store is that of one run."""
    write_teacher(tmp_path / "teacher")
    write_series(tmp_path / "long.csv", 12000)
    shards = tmp_path / "there/shards"
    code, _ = ended(tmp_path, 2, lambda pid: os.kill(pid, signal.SIGKILL))
    first = {mark: mark.stat().st_mtime_ns for mark in shards.iterdir()}
    assert code == -signal.SIGKILL and len(first) >= 2
    code, said = ended(tmp_path, len(first) + 2, lambda pid: os.killpg(pid, signal.SIGINT))
    assert code == 130 and said.splitlines()[-1].startswith("interrupted;") and "Traceback" not in said
    assert not (tmp_path / "there/store.json").exists()
    second = {mark: mark.stat().st_mtime_ns for mark in shards.iterdir()}
    monkeypatch.chdir(tmp_path)
    recipe = api.make_recipe(teacher="teacher", data="long.csv", lookback=48, horizon=12)
    unit = api.transform(recipe, stop_after="import")
    there = contents(write(unit, tmp_path / "there", Local()))
    last = {mark: mark.stat().st_mtime_ns for mark in shards.iterdir()}
    assert first.items() < second.items() < last.items()
    assert there == contents(write(unit, tmp_path / "here", Local()))


def test_an_address_without_a_cluster_is_refused_in_time(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens; somebody listens and says nothing.  Left to itself, Ray takes two minutes."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_executor, "ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("", "ray://"):
            address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
            began = time.monotonic()
            with (
                pytest.raises(EngineError, match=rf"no Ray cluster at {address}: no answer in 1 s"),
                Ray(address),
            ):
                pass
            assert time.monotonic() - began < 10


def test_without_ray_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"--engine ray needs Ray \(pip install 'tsfmc\[ray\]'\)"), Ray():
        pass


def test_what_cannot_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for refused, said in (
        (lambda: Local("auto"), r"--address is for an engine of several workers \(add --engine ray\)"),
        (lambda: Local(None, 2), r"--workers is for"),
        (lambda: Ray(workers=0), r"0 workers \(expected at least 1\)"),
        (lambda: executor_of("rey"), r"unknown engine 'rey' \(did you mean 'ray'\? known: local, ray\)"),
    ):
        with pytest.raises(UsageError, match=said):
            refused()
    assert EXECUTORS["ray"] is Ray and isinstance(executor_of("local"), Local)
    monkeypatch.setattr(Processes, "current", lambda: Processes(1, 2))
    with pytest.raises(UsageError, match=r"2 processes were started, and --engine ray starts its own"), Ray():
        pass
