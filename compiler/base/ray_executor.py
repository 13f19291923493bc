"""Tasks on a Ray cluster: one that runs already, or one on this machine for the time of the run.

1. A worker is an actor.  It is given the work once, through the object store, which holds one copy a node.
2. It computes with as many threads as this process would, and with the same code: sums are then taken in the
   same order, and results are those of this process to the bit (on the same kind of processor).
3. ``AHEAD`` tasks a worker are under way, so memory does not grow with their number.  Results come back to
   this process, which alone writes: nodes need no shared disk.
4. A task whose worker was killed is done again by a new one; one that has ended ``ATTEMPTS`` of them ends
   the run.  What was handed out before is kept by whoever took it.

Actors and not Ray Data: blocks of a data set have no order unless asked for, go through Arrow, which has no
float16 tensors of five dimensions for free, and are retried without an end.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self

from .content import code_key
from .errors import EngineError, MissingError, UsageError, one_line
from .executors import Item, Result
from .parallel import Processes, cores, thread_counts
from .processes import run_process
from .ray_local import local_cluster

_LOG = logging.getLogger("tsfmc.engine")
AHEAD = 3
"""Tasks a worker: one that it computes, one that waits for it, and one whose result waits for its turn."""
ATTEMPTS = 3
"""Workers that one task may end."""
ANSWER_S = 20.0
"""How long an address may take to answer."""
PATIENCE_S = 30.0
"""How long no worker has started before the user is told what is waited for."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what it has to say of dead workers goes to stdout, which is data
    "RAY_worker_niceness": "0",  # 15 otherwise: a worker beside a busy program would hardly run
}
"""Of the environment, where the user has not set them."""
_PROBE = (
    "import logging, sys, ray; ray.init(sys.argv[1], logging_level=logging.ERROR, log_to_driver=False); "
    "ray.shutdown()"
)


class Ray:
    """See the module."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers", hint="expected at least 1")
        self.address, self.workers = address, workers
        self._cluster = ExitStack()

    def __enter__(self) -> Self:
        if Processes.current().world > 1:
            raise UsageError(
                f"{Processes.current().world} processes were started, and --engine ray starts its own",
                hint="start one process, without accelerate or torchrun, or leave --engine out",
            )
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        ray = _ray()
        if self.address is not None and not ray.is_initialized():
            _require_answer(self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()

    def rest(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        self._cluster.close()

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, ``AHEAD`` tasks a worker under way."""
        waiting = iter(items)
        first = list(islice(waiting, 1))
        if not first:  # no cluster is started for nothing
            return
        threads = thread_counts()
        self._connect(threads["OMP_NUM_THREADS"])
        crew = _Crew(_ray(), work, self._room(threads["OMP_NUM_THREADS"]), threads)
        try:
            yield from crew.results(chain(first, waiting))
        finally:
            crew.dismiss()

    def _connect(self, threads: int) -> None:
        ray = _ray()
        if ray.is_initialized():
            return
        try:
            if self.address is None:
                cpus = max(cores(), (self.workers or 1) * threads)
                self._cluster.enter_context(local_cluster(ray, cpus))
            else:
                self._cluster.callback(ray.shutdown)
                ray.init(self.address, logging_level=logging.CRITICAL, log_to_driver=False)
        except (Exception, SystemExit) as error:
            where = self.address or "this machine"
            raise EngineError(f"ray does not start on {where}: {_last_line(error)}") from error

    def _room(self, threads: int) -> int:
        """Workers that the cluster has room for, at most those that were asked for."""
        nodes = [node for node in _ray().nodes() if node["Alive"]]
        room = sum(int(node["Resources"].get("CPU", 0) // threads) for node in nodes)
        if not room:
            raise EngineError(
                f"a worker computes with {threads} threads as this process does, and no node of the cluster "
                "has as many CPUs",
                hint="set OMP_NUM_THREADS=1 for one thread a worker",
            )
        return min(self.workers or room, room)


@dataclass
class _Task:
    """One item on its way.

    Attributes:
        ended: workers that died of it, or while they had it.
    """

    item: Any
    seat: _Seat
    reference: Any = None
    ended: int = 0


@dataclass(eq=False)
class _Seat:
    """The place of a worker: who holds it may change, its tasks stay."""

    actor: Any
    tasks: deque[_Task] = field(default_factory=deque)


class _Crew:
    """The workers of one ``map``."""

    def __init__(self, ray: Any, work: Callable[..., Any], size: int, threads: dict[str, int]) -> None:
        self.ray, self.size = ray, size
        # In a list a reference arrives as it is, so that the worker looks at its code before it unpacks work.
        self.shipped = [_put(ray, work)]
        environment = {name: str(count) for name, count in threads.items()}
        self.kind = ray.remote(_Worker).options(
            num_cpus=threads["OMP_NUM_THREADS"], max_restarts=0, runtime_env={"env_vars": environment}
        )
        self.seats: list[_Seat] = []
        self.arrivals: list[Any] = []
        self.looked = False

    def results(self, items: Iterable[Any]) -> Iterator[Any]:
        """In the order of the items."""
        waiting = iter(items)
        under_way: deque[_Task] = deque()
        while True:
            for item in islice(waiting, AHEAD * self.size - len(under_way)):
                under_way.append(self._give(item))
            if not under_way:
                return
            task = under_way.popleft()
            yield self._result(task)

    def _give(self, item: Any) -> _Task:
        if len(self.seats) < self.size:
            self.seats.append(_Seat(self._hire()))
        seat = min(self.seats, key=lambda seat: self._unfinished(seat))
        task = _Task(item, seat)
        self._send(task)
        seat.tasks.append(task)
        return task

    def _unfinished(self, seat: _Seat) -> int:
        sent = [task.reference for task in seat.tasks if task.reference is not None]
        done = self.ray.wait(sent, num_returns=len(sent), timeout=0)[0] if sent else []
        return len(seat.tasks) - len(done)

    def _hire(self) -> Any:
        actor = self.kind.remote(software(), self.shipped)
        if not self.looked:
            self.arrivals.append(actor.ready.remote())  # before its tasks, which it does in this order
        return actor

    def _send(self, task: _Task) -> None:
        task.reference = task.seat.actor.run.remote(_put(self.ray, task.item))

    def _result(self, task: _Task) -> Any:
        """What a task gives; its worker has no other that comes before it."""
        while True:
            if task.reference is None:
                self._send(task)
            try:
                if not self.looked:
                    self._say_if_full()
                found = self.ray.get(task.reference)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self.ray.exceptions.RayError as error:
                self._replace(task, error)
            else:
                task.seat.tasks.remove(task)
                return found

    def _say_if_full(self) -> None:
        """Before the first result: a line where a cluster that others use has no CPU for a worker."""
        self.looked = True
        done, _ = self.ray.wait(self.arrivals, timeout=PATIENCE_S)
        if not done:
            _LOG.warning("warning: no worker has started in %.0f s; is the cluster full?", PATIENCE_S)

    def _replace(self, task: _Task, error: Exception) -> None:
        """Another worker in the place of one that is gone, for all that it had not finished."""
        why = _last_line(error)
        if getattr(error, "actor_init_failed", False):
            raise EngineError(
                f"a worker of the cluster cannot start: {why}", hint="install tsfmc on every node"
            ) from error
        task.ended += 1
        if task.ended == ATTEMPTS:
            raise EngineError(
                f"one task has ended {ATTEMPTS} workers of the cluster, the last one so: {why}",
                hint="what was finished is kept; give the workers more memory, or look into their logs",
            ) from error
        _LOG.warning("warning: a worker of the cluster is gone; another one does its tasks")
        seat = task.seat
        with suppress(Exception):
            self.ray.kill(seat.actor)
        seat.actor = self._hire()
        # One at a time: of two, the first could be finished and its result still be lost with the second.
        for each in seat.tasks:
            each.reference = None

    def dismiss(self) -> None:
        """Ends every worker, whatever it does."""
        for seat in self.seats:
            with suppress(Exception):
                self.ray.kill(seat.actor)


class _Worker:
    """One process of the cluster."""

    def __init__(self, expected: dict[str, str], shipped: list[Any]) -> None:
        self.problem = _difference(expected, software())
        self.shipped = shipped
        self.work: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Returns once this process is there."""

    def run(self, item: Any) -> Any:
        """What the work gives for an item."""
        if self.problem:
            raise EngineError(
                f"{platform.node()}: {self.problem}",
                hint="install the same on every node and on this machine",
            )
        if self.work is None:
            self.work = _ray().get(self.shipped[0])
        assert self.work is not None
        return self.work(item)


def software() -> dict[str, str]:
    """What the bits of a result depend on besides its inputs."""
    return {
        "tsfmc": code_key("compiler", "passes")[:16],
        "torch": version("torch"),
        "numpy": version("numpy"),
        "Python": platform.python_version(),
    }


def _difference(expected: dict[str, str], found: dict[str, str]) -> str:
    for name, here in expected.items():
        if found.get(name) != here:
            what = "other code of tsfmc" if name == "tsfmc" else f"another {name}"
            return f"this node has {what} ({found.get(name)}) than the process that drives it ({here})"
    return ""


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingError("--engine ray needs Ray", hint="pip install 'tsfmc[ray]'") from None
    return ray


def _require_answer(address: str) -> None:
    """Left to itself, Ray waits two minutes for an address and then ends the process."""
    tried = run_process([sys.executable, "-c", _PROBE, address], seconds=ANSWER_S)
    if tried.ok:
        return
    if "InvalidAuthToken" in tried.stderr:
        raise EngineError(
            f"the Ray cluster at {address} asks for a token that was not given or is not its own",
            hint="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as Ray's manual says",
        )
    if tried.code is None:
        why = f"no answer in {ANSWER_S:.0f} s"
    else:
        why = tried.last_line.partition(": ")[2] or tried.last_line or tried.ending
    raise EngineError(
        f"no Ray cluster at {address}: {why}",
        hint="give the address that ray start printed, or leave --address out to start one here",
    )


def _put(ray: Any, value: Any) -> Any:
    try:
        return ray.put(value)
    except (TypeError, pickle.PicklingError) as error:
        raise UsageError(
            f"a task cannot be sent to another process: {_last_line(error)}", hint="leave --engine out"
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1] if lines else type(error).__name__)
