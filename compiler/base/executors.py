"""Where the tasks of long stages run: in this process, or on an engine that somebody else has written.

A stage that can be cut into tasks (the labels of a shard of windows, the sums over a piece of training) says

    for result in executor.map(work, items): ...

and gets ``work(item)`` of every item, in the order of the items.  It adds or writes them in that order, so
what comes out has the same bytes wherever the tasks ran and however often one had to be repeated.  What
stays out of this interface on purpose: shared state, nested tasks, anything that is not ``items -> results``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

from .errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Runs tasks.  Entering it says at once what is missing; leaving it leaves no process behind."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        """
        Args:
            address: of an engine that runs already; None starts one here where the engine needs that.
            workers: tasks at a time; None for as many as there is room for.
        """

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``work(item)`` in the order of ``items``, which are taken a few ahead of the results at most.

        Args:
            work: what every worker is given once, such as a teacher's labels; the same item gives the same
                result whoever computes it.

        Raises:
            EngineError: workers could not be had, or an item has ended several of them.
            TsfmcError: whatever ``work`` raises.
        """

    def rest(self) -> None:
        """Gives back what runs beside this process until the next ``map``: something is to be timed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Local:
    """In this process, one task after the other, each when its result is asked for."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if address is not None or workers is not None:
            option = "--address" if address is not None else "--workers"
            raise UsageError(f"{option} is for an engine of several workers", hint="add --engine ray")

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As Python's own."""
        return map(work, items)

    def rest(self) -> None:
        """There is nothing beside this process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to end."""
