"""The processes of one run: this one alone, or those that ``accelerate launch`` started."""

from __future__ import annotations

import os
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
