"""Which part of a program forecasts which item of a panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Fleet:
    """The slots of a fleet's program.

    Attributes:
        slots: names of the variates of the program; the first is the fleet's head, for whoever is unknown.
        slot_of: ``[N]`` slot of each item of the panel.
    """

    slots: tuple[str, ...]
    slot_of: npt.NDArray[np.int64]


FLEET = "fleet"
"""Name of the slot of all items."""
EVERYONE = Fleet((FLEET,), np.zeros(0, dtype=np.int64))
