"""Removal of coupled units (paper A), for any family that declares a ``PrunableStructure``.

Three views of the same removal, which have to agree to 1e-5 (the proof obligation of A.3):

masked   the whole model, a mask of 0 on the unit at a tap of its group, or at all that act together
sliced   a smaller model: every member of the group without the unit's indices, the configuration with
         the units that are kept, the module rebuilt from it and loaded strictly
ignored  under the mask, the removed members' values have no effect

``verify_structure`` checks all of it on a random input and names the group and the parameter that break it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..compiler.base.errors import PassError, VerificationError
from ..compiler.frontends import build_teacher
from ..compiler.frontends.blocks.layers import Entry
from ..compiler.ir.forecaster import Teacher
from ..compiler.ir.prunable import Group, Kept, Member, PrunableStructure, Span, Tap

Keep = Mapping[str, Sequence[int]]
"""Group name -> positions, among the units that live now, of those that stay; absent groups stay whole."""

TOLERANCE = 1e-5
"""Largest ``|masked - sliced|`` relative to the largest forecast (at least 1)."""


def span_indices(spans: Iterable[Span], units: Iterable[int]) -> list[int]:
    """Channel indices of some units, ascending."""
    spans = tuple(spans)
    return sorted(index for unit in units for span in spans for index in span.indices(unit))


def removed_units(group: Group, keep: Keep) -> list[int]:
    """Positions of the units of ``group`` that leave.

    Raises:
        PassError: ``keep`` names units that the group does not have, or leaves too few.
    """
    kept = set(keep.get(group.name, range(group.units)))
    if not kept <= set(range(group.units)):
        raise PassError(f"group {group.name} has units 0..{group.units - 1}, asked to keep {sorted(kept)}")
    if len(kept) < min(group.floor, group.units) and (kept or not group.removable):
        branch = " or none" if group.removable else ""
        raise PassError(
            f"group {group.name} would keep {len(kept)} units, expected at least {group.floor}{branch}"
        )
    return sorted(set(range(group.units)) - kept)


def slice_teacher(teacher: Teacher, keep: Keep) -> Teacher:
    """A smaller teacher of the units in ``keep``; ``teacher`` stays as it is.

    Raises:
        PassError: a group or unit that does not exist.
        VerificationError: the structure does not cover a parameter that shrinks with a group.
    """
    structure = teacher.structure()
    _known(structure, keep)
    gone = {group.name: removed_units(group, keep) for group in structure.groups}
    state, dropped = _sliced_state(teacher, structure, gone)
    smaller = build_teacher(_sliced_config(teacher, structure, gone, dropped))
    _load(smaller, state, structure, gone)
    return smaller.train(teacher.training)


def _known(structure: PrunableStructure, keep: Keep) -> None:
    unknown = sorted(keep.keys() - {group.name for group in structure.groups})
    if unknown:
        raise PassError(f"this teacher has no group {unknown[0]!r}")


def _sliced_state(
    teacher: Teacher, structure: PrunableStructure, gone: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Tensor], set[str]]:
    """The smaller state dict, and the parameters that left whole with their owner."""
    state = {name: tensor.detach() for name, tensor in teacher.state_dict().items()}
    dropped: set[str] = set()
    # Groups may share a dimension (a head and a value dim of every head): all removals are collected
    # in the numbering of now, and each dimension is cut once.
    cuts: dict[tuple[str, int], set[int]] = {}
    for group in structure.groups:
        for member in group.members:
            if member.owner is None:
                cut = cuts.setdefault((member.parameter, member.dim), set())
                cut.update(span_indices(member.spans, gone[group.name]))
            elif member.owner in gone[group.name]:
                dropped.add(member.parameter)
    for (name, dim), cut in cuts.items():
        stay = [index for index in range(state[name].shape[dim]) if index not in cut]
        state[name] = state[name].index_select(dim, torch.tensor(stay, dtype=torch.long))
    return {name: tensor.clone() for name, tensor in state.items() if name not in dropped}, dropped


def _sliced_config(
    teacher: Teacher,
    structure: PrunableStructure,
    gone: Mapping[str, Sequence[int]],
    dropped: set[str],
) -> dict[str, Any]:
    own = teacher.config["tsfmc"]
    kept: dict[str, list[int]] = {name: list(units) for name, units in own.get("kept", {}).items()}
    for group in structure.groups:
        if all(member.parameter in dropped for member in group.members):
            kept.pop(group.name, None)  # the whole group left with its owner
        elif gone[group.name]:
            living = Kept(teacher.config).indices(group.name, group.units)
            kept[group.name] = [living[at] for at in range(group.units) if at not in gone[group.name]]
    table = {"kept": kept} if kept else {}
    return {**teacher.config, "tsfmc": {**{key: own[key] for key in own if key != "kept"}, **table}}


def _load(
    smaller: Teacher,
    state: Mapping[str, Tensor],
    structure: PrunableStructure,
    gone: Mapping[str, Sequence[int]],
) -> None:
    """Strict loading; a mismatch names the parameter and the groups that may have forgotten it."""
    expected = {name: tuple(tensor.shape) for name, tensor in smaller.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        got = tuple(state[name].shape) if name in state else None
        if got != expected.get(name):
            cut = [group.name for group in structure.groups if gone[group.name]]
            nearest = [group for group in cut if name.startswith(group.rpartition(".")[0])] or cut
            raise VerificationError(
                f"the structure leaves {name} with shape {got}, the smaller model has {expected.get(name)}",
                hint=f"a member is missing or wrong in group {' or '.join(nearest[:3])}",
            )
    smaller.load_state_dict(state, strict=True)


def tap_channels(teacher: Teacher, tap: Tap) -> int:
    """How many channels the tapped side has.

    Raises:
        VerificationError: the tap is neither on a linear layer of the teacher nor on an entry's output.
    """
    try:
        module = teacher.get_submodule(tap.module)
    except AttributeError:
        module = None
    if isinstance(module, nn.Linear):
        return module.in_features if tap.side == "in" else module.out_features
    if isinstance(module, Entry) and tap.side == "out":
        return module.channels
    raise VerificationError(
        f"the structure taps {tap.module!r}, which is no linear layer of this teacher and no entry"
    )


@contextmanager
def mask_units(teacher: Teacher, group: Group, mask: Tensor, tap: int = 0) -> Iterator[None]:
    """Inside, ``mask`` acts on the units of ``group``, at one of its taps or at all that act together.

    Args:
        mask: ``[units]``, or ``[B, units]`` for a mask per sample; it may require a gradient, in its own
            dtype whatever the model's.  Per-sample masks need samples outermost: see
            ``Teacher.sample_major``.
        tap: which tap, where they do not act together; any of them gives the same function.
    """
    with ExitStack() as stack:
        for where in group.taps if group.together else (group.taps[tap],):
            stack.enter_context(_mask_at(teacher, group, mask, where))
        yield


@contextmanager
def _mask_at(teacher: Teacher, group: Group, mask: Tensor, where: Tap) -> Iterator[None]:
    """``mask_units`` at one tap."""
    channels = tap_channels(teacher, where)
    unit_of = torch.full((channels,), group.units)
    for unit in range(group.units):
        unit_of[span_indices(where.spans, [unit])] = unit
    log = group.kind == "expert"
    outside = torch.zeros if log else torch.ones

    def apply(hidden: Tensor) -> Tensor:
        values = mask.log() if log else mask
        values = torch.cat([values, outside(*mask.shape[:-1], 1, dtype=mask.dtype)], dim=-1)[..., unit_of]
        samples = hidden.reshape(mask.shape[0], -1, channels) if mask.dim() > 1 else hidden
        values = values.unsqueeze(1) if mask.dim() > 1 else values
        changed = samples + values if log else samples * values
        return changed.to(hidden.dtype).reshape(hidden.shape)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (apply(inputs[0]), *inputs[1:])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return apply(output)

    module = teacher.get_submodule(where.module)
    handle = (
        module.register_forward_pre_hook(before)
        if where.side == "in"
        else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def masked(teacher: Teacher, keep: Keep, tap: Callable[[Group], int] = lambda group: 0) -> Iterator[None]:
    """Inside, every unit that is not in ``keep`` is switched off by a mask; nothing is removed.

    Args:
        tap: which tap of a group to use, where they do not act together.
    """
    structure = teacher.structure()
    _known(structure, keep)
    dtype = next(teacher.parameters()).dtype
    with ExitStack() as stack:
        for group in structure.groups:
            if gone := removed_units(group, keep):
                mask = torch.ones(group.units, dtype=dtype)
                mask[gone] = 0
                stack.enter_context(mask_units(teacher, group, mask, tap(group)))
        yield


@torch.no_grad()
def verify_structure(teacher: Teacher, past: Tensor | None = None) -> float:
    """Proves a structure on one removal: the first unit of every group that can spare one.

    Where units own parameters (experts) also on the removal of all others, since those leave whole.

    Args:
        past: ``[B, D, L]``; random when left out.

    Returns:
        the largest difference of masked and sliced, relative to the largest forecast (at least 1).

    Raises:
        VerificationError: naming the group and the parameter of an uncovered reader or writer.
    """
    structure = teacher.structure()
    state = teacher.state_dict()
    for group in structure.groups:
        _check_indices(teacher, group, state)
    keep = {
        group.name: range(1, group.units) for group in structure.groups if group.units > max(group.floor, 1)
    }
    if past is None:
        drawn = torch.randn(2, teacher.variates, teacher.lookback, generator=torch.Generator().manual_seed(0))
        past = drawn.cumsum(-1).to(next(teacher.parameters()).dtype)
    removals = [keep]
    owning = {group.name for group in structure.groups if any(m.owner is not None for m in group.members)}
    if owning & keep.keys():  # what left with its owner was not put to the proof
        removals.append({name: units for name, units in keep.items() if name not in owning})
    found = [_disagreement(teacher, removal, past) for removal in removals]
    if all(difference <= TOLERANCE for difference in found):
        return max(found)
    for name, units in keep.items():  # all together fail: which one is it?
        alone = _disagreement(teacher, {name: units}, past)
        if not alone <= TOLERANCE:
            culprit = _effective_member(teacher, structure[name], past)
            raise VerificationError(
                f"group {name}: masked and sliced differ by {alone:.1e}",
                hint=f"{culprit} still acts when the unit is masked: a reader or writer is not covered"
                if culprit
                else "a reader or writer of its channels is not among its members",
            )
    raise VerificationError(f"masked and sliced differ by {max(found):.1e} where groups are removed together")


def _check_indices(teacher: Teacher, group: Group, state: Mapping[str, Tensor]) -> None:
    """Members and taps exist, and units own disjoint indices inside them."""
    sides = [(tap.module, tap_channels(teacher, tap), tap.spans) for tap in group.taps]
    for member in group.members:
        if member.parameter not in state:
            raise VerificationError(f"group {group.name} lists {member.parameter!r}, which does not exist")
        if member.owner is None:
            size = state[member.parameter].shape[member.dim]
            sides.append((f"{member.parameter} dim {member.dim}", size, member.spans))
    if not group.taps:
        raise VerificationError(f"group {group.name} has no tap, so that nothing can mask it")
    owners = [member.owner for member in group.members if member.owner is not None]
    owned = [owners.count(unit) for unit in range(group.units)]
    if owners and (len(set(owned)) > 1 or len(owners) != sum(owned)):
        raise VerificationError(f"group {group.name}: its units own {owned} tensors, expected as many each")
    for where, size, spans in sides:
        indices = span_indices(spans, range(group.units))
        if len(set(indices)) != len(indices) or (indices and not 0 <= indices[0] <= indices[-1] < size):
            raise VerificationError(
                f"group {group.name}: its units share indices or leave 0..{size - 1} in {where}"
            )


def _disagreement(teacher: Teacher, keep: Keep, past: Tensor) -> float:
    """Largest relative difference of masked and sliced, and of masked with its members spoilt."""
    with masked(teacher, keep):
        expected = teacher(past)
        with _spoilt(teacher, _members(teacher, keep)):
            ignored = teacher(past)
    scale = max(float(expected.abs().max()), 1.0)
    sliced = slice_teacher(teacher, keep)(past)
    return max(float((other - expected).abs().max()) / scale for other in (sliced, ignored))


def _members(teacher: Teacher, keep: Keep) -> list[tuple[Member, list[int]]]:
    """The members that are cut, with the units that leave.

    Members of a mere rotary or query-key group stay as they are where only one of the two sides is
    masked: spoiling them would only scale a zero.
    """
    structure = teacher.structure()
    return [
        (member, removed_units(structure[name], keep)) for name in keep for member in structure[name].members
    ]


@contextmanager
def _spoilt(teacher: Teacher, members: Iterable[tuple[Member, list[int]]]) -> Iterator[None]:
    """Inside, the removed parts of these parameters hold other values."""
    state = teacher.state_dict()
    saved: dict[str, Tensor] = {}
    for member, gone in members:
        tensor = state[member.parameter]
        if member.parameter not in saved:
            saved[member.parameter] = tensor.clone()
        if member.owner is not None:
            if member.owner in gone:
                tensor.add_(0.5)
            continue
        index = torch.tensor(span_indices(member.spans, gone), dtype=torch.long)
        tensor.index_copy_(member.dim, index, tensor.index_select(member.dim, index) + 0.5)
    try:
        yield
    finally:
        for name, values in saved.items():
            state[name].copy_(values)


def _effective_member(teacher: Teacher, group: Group, past: Tensor) -> str | None:
    """The first member whose removed values still change the masked forecast."""
    keep = {group.name: range(1, group.units)}
    with masked(teacher, keep):
        expected = teacher(past)
        for member in group.members:
            with _spoilt(teacher, [(member, [0])]):
                if not torch.allclose(teacher(past), expected, rtol=TOLERANCE, atol=TOLERANCE):
                    return member.parameter
    return None
