"""Coupled channel groups: what must leave a model together so that removal is exact.

A group has ``units`` interchangeable units.  Each ``Member`` says which indices of which parameter
belong to unit ``i``; each ``Tap`` says at which linear layer, and on which side, a unit's channels
can be multiplied by a mask.  Surgery is then generic: slice every member, write the kept unit
indices into the configuration, rebuild the module, load the sliced state strictly.

The configuration carries ``{"tsfmc": {"kept": {group name: [original unit indices]}}}``: original
indices, because rotary frequencies and shared bias tables need to know which units are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["ffn", "head", "value", "rotary", "expert", "residual"]


@dataclass(frozen=True)
class Span:
    """The indices of unit ``i`` along one dimension: ``offset + i * stride + j * step``, ``j < width``.

    ``Span()`` is one index a unit; a head of 64 channels is ``Span(stride=64, width=64)``; the
    rotate-half pair (j, j + 32) is ``Span(width=2, step=32)``; repeats over heads list several spans.
    """

    stride: int = 1
    width: int = 1
    step: int = 1
    offset: int = 0

    def indices(self, unit: int) -> list[int]:
        """Indices of one unit."""
        return [self.offset + unit * self.stride + j * self.step for j in range(self.width)]


@dataclass(frozen=True)
class Member:
    """``parameter`` (state-dict name) loses the indices of a removed unit along ``dim``.

    With ``owner`` the whole tensor is that unit's own (an expert's weights): it leaves the state dict
    with the unit, otherwise it stays as it is; ``dim`` and ``spans`` are not read.
    """

    parameter: str
    dim: int = 0
    spans: tuple[Span, ...] = (Span(),)
    owner: int | None = None


@dataclass(frozen=True)
class Tap:
    """Masking the ``side`` channels of ``module`` (a linear layer, by name) switches a unit off.

    The mask m multiplies the channels, except for a group of kind ``expert``: there ``log(m)`` is added
    to the router's logits, so that 0 takes the expert out of the softmax and the rest is renormalised.
    """

    module: str
    side: Literal["in", "out"]
    spans: tuple[Span, ...] = (Span(),)


@dataclass(frozen=True)
class Group:
    """Units that are removed whole.

    Attributes:
        name: key in the configuration's ``kept`` table.
        kind: what a unit is.
        units: how many live now.
        members: every parameter that shrinks with the group.
        taps: where masks act; one is enough to switch a unit off exactly.
        floor: fewest units that may stay, unless the whole branch goes (``removable``).
        removable: the branch may die as a whole; its output bias stays.
        chosen: of experts, how many a token is routed to.
    """

    name: str
    kind: Kind
    units: int
    members: tuple[Member, ...]
    taps: tuple[Tap, ...]
    floor: int = 1
    removable: bool = True
    chosen: int = 0


@dataclass(frozen=True)
class PrunableStructure:
    """All coupled groups of a model."""

    groups: tuple[Group, ...]

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)


class Kept:
    """Reads the kept units of a (possibly pruned) configuration while a module is built."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._kept: Mapping[str, Sequence[int]] = config.get("tsfmc", {}).get("kept", {})

    def indices(self, group: str, units: int) -> list[int]:
        """Original indices of the units that live; all ``units`` when the group was never pruned."""
        return list(self._kept.get(group, range(units)))

    def count(self, group: str, units: int) -> int:
        """How many units live."""
        return len(self.indices(group, units))
