"""Progress on stderr: bars on a terminal, a line now and then otherwise.

Long work asks for a ``task`` and advances it; it never knows which of the two it talks to.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from .text import printable


class Task(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Says that ``steps`` more are done; ``note`` is shown beside the bar."""


class Progress(Protocol):
    """Where long work reports to."""

    def line(self, text: str) -> None:
        """One line that stays."""

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """A task of ``total`` steps, as a context manager."""


class Silent:
    """Reports nothing: the default of the Python interface."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Ignored."""

    def line(self, text: str) -> None:
        """Ignored."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """A task nobody sees."""
        yield self


class _LineTask:
    def __init__(self, title: str, total: int, every_s: float) -> None:
        self.title, self.total, self.every_s = title, total, every_s
        self.done, self.started = 0, time.monotonic()
        self.shown = self.started

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.shown >= self.every_s:
            self.shown = now
            left = (now - self.started) / max(self.done, 1) * (self.total - self.done)
            print(
                printable(
                    f"{self.title}  {self.done}/{self.total}  about {left:.0f} s left  {note}".rstrip()
                ),
                file=sys.stderr,
            )


class Lines:
    """One line per event, and one every ten seconds inside long tasks: for logs and CI."""

    def __init__(self, every_s: float = 10.0) -> None:
        self.every_s = every_s

    def line(self, text: str) -> None:
        """Prints to stderr."""
        print(printable(text), file=sys.stderr, flush=True)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """A task that prints now and then."""
        yield _LineTask(title, total, self.every_s)


class _BarTask:
    def __init__(self, bar: object, handle: object) -> None:
        self.bar, self.handle = bar, handle

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.bar.update(self.handle, advance=steps, note=note)  # type: ignore[attr-defined]


class Bars:
    """Bars by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    def line(self, text: str) -> None:
        """Prints to stderr."""
        self.console.print(printable(text), highlight=False, markup=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """A bar that disappears when the task ends."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield _BarTask(bar, bar.add_task(title, total=total, note=""))


def for_stderr() -> Bars | Lines | Silent:
    """Bars when stderr is a terminal, lines otherwise; of several processes only the first reports."""
    if int(os.environ.get("RANK", "0")) > 0:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
