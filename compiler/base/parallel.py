"""The processes of one run: this one alone, or those that ``accelerate launch`` started; and its threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """Rank of this process and how many there are."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Processes:
        """As the launcher's environment says; a single process does not import accelerate for it."""
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls()
        import torch
        from accelerate import PartialState

        # Left to itself, accelerate sees one process each where there is no accelerator.
        state = PartialState(cpu=not torch.accelerator.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """The process that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch: thousands of small products wait for each other longer than they compute.

    On two cores that other work shares, two threads took fifty times as long as one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_counts() -> dict[str, int]:
    """Variables of the environment with which another process computes in as many threads as this one.

    The order in which a product is summed follows from the number of threads, and with it the last bits.
    """
    import torch

    threads = torch.get_num_threads()
    # numpy's library counts for itself, when it is imported, and knows nothing of torch's setting.
    own = next(
        (os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if name in os.environ), ""
    )
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": int(own) if own.isdecimal() and int(own) else cores(),
    }
