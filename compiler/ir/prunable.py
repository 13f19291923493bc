"""Coupled channel groups: what must leave a model together so that removal is exact.

A group has ``units`` interchangeable units.  Each ``Member`` says which indices of which parameter
belong to unit ``i``; each ``Tap`` says at which linear layer, and on which side, a unit's channels
can be multiplied by a mask.  Surgery is then generic: slice every member, write the kept unit
indices into the configuration, rebuild the module, load the sliced state strictly.

The configuration carries ``{"tsfmc": {"kept": {group name: [original unit indices]}}}``: original
indices, because rotary frequencies and shared bias tables need to know which units are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["ffn", "head", "value", "rotary", "expert", "residual"]

RESIDUAL_FLOOR = 8
"""Fewest dims of a residual stream.  An RMS norm over one or two is close to the sign of a dim, which jumps
where the writers cancel: exact in theory, but float32 would no longer resolve it."""


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
    """Masking the ``side`` channels of ``module`` (by name) switches a unit off.

    The module is a linear layer, or the ``Entry`` of a residual stream, which has an output only.

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
        taps: where masks act; one is enough to switch a unit off exactly, unless they act ``together``.
        floor: fewest units that may stay, unless the whole branch goes (``removable``).
        removable: the branch may die as a whole; its output bias stays.
        chosen: of experts, how many a token is routed to.
        together: a unit is off when one mask acts at all taps at once, those of every writer of a stream.
    """

    name: str
    kind: Kind
    units: int
    members: tuple[Member, ...]
    taps: tuple[Tap, ...]
    floor: int = 1
    removable: bool = True
    chosen: int = 0
    together: bool = False


@dataclass(frozen=True)
class PrunableStructure:
    """All coupled groups of a model."""

    groups: tuple[Group, ...]

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)


def residual_group(
    name: str,
    units: int,
    *,
    entry: str,
    entering: Iterable[Member],
    branches: Iterable[str],
    readers: Iterable[str],
    norms: Iterable[str],
    leaving: Iterable[Member] = (),
) -> Group:
    """The dims of a residual stream with RMS norms; a unit is one dim, in all that writes or reads it.

    A dim that no writer feeds is zero in the whole stream.  An RMS norm leaves it zero, and the others as
    they are if it still divides by the published width.  A LayerNorm does not: it takes the mean off, so
    that a zero dim reaches the readers as ``-mean / std``.  Streams with LayerNorms (TTM, Timer) are
    therefore no group.

    Args:
        name: of the group.
        units: dims that live.
        entry: module that the tokens go through where the stream begins.
        entering: parameters that write these tokens.
        branches: linear layers that add to the stream.
        readers: linear layers that read it, behind a norm.
        norms: modules whose ``weight`` has an entry a dim.
        leaving: other parameters that read it.
    """
    branches = tuple(branches)
    return Group(
        name=name,
        kind="residual",
        units=units,
        members=(
            *entering,
            *(Member(f"{branch}.weight", 0) for branch in branches),
            *(Member(f"{reader}.weight", 1) for reader in readers),
            *(Member(f"{norm}.weight", 0) for norm in norms),
            *leaving,
        ),
        taps=(Tap(entry, "out"), *(Tap(branch, "out") for branch in branches)),
        floor=RESIDUAL_FLOOR,
        removable=False,
        together=True,
    )


class Kept:
    """Reads the kept units of a (possibly pruned) configuration while a module is built."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._kept: Mapping[str, Sequence[int]] = config.get("tsfmc", {}).get("kept", {})

    def indices(self, group: str, units: int) -> list[int]:
        """Original indices of the units that live; all ``units`` when the group was never pruned."""
        return list(self._kept.get(group, range(units)))

    def count(self, group: str, units: int) -> int:
        """How many units live."""
        return len(self._kept.get(group, range(units)))
