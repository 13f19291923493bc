"""The contract of a teacher family."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...passes.surgery import verify_structure
from ..frontends import FRONTENDS, build_teacher, cards, load_teacher, save_teacher
from ..frontends.base import Frontend
from ..ir.forecaster import Teacher
from ..ir.verify import FUNCTION_TOLERANCE
from . import models
from .rule import Contract, expect
from .samples import windows


@dataclass(frozen=True)
class Subject:
    """A family with a small configuration and a task.

    Attributes:
        family: name in the registry.
        config: a tiny ``config.json``, or None for a family whose first card comes with its package.
    """

    family: str
    config: Mapping[str, Any] | None = None
    lookback: int = 48
    horizon: int = 12
    variates: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frontend(self) -> Frontend:
        """What the registry has under the name."""
        frontend: Frontend = FRONTENDS[self.family]
        return frontend

    def build(self) -> Teacher:
        """One with random weights, norms about 1; or the packaged one."""
        task: dict[str, Any] = {
            "lookback": self.lookback,
            "horizon": self.horizon,
            "variates": self.variates,
            **self.options,
        }
        if self.config is None:
            return load_teacher(self.frontend.cards[0].name, **task).eval()
        teacher = build_teacher(self.config, **task)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in teacher.named_parameters():
                drawn = 0.1 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
        return teacher


TEACHER: Contract[Subject] = Contract("teacher")


@TEACHER.rule
def is_a_family(subject: Subject) -> None:
    """The entry is a Frontend whose family is the registered name."""
    found = subject.frontend
    expect(isinstance(found, Frontend), f"the entry is a {type(found).__name__}, expected a Frontend")
    expect(found.family == subject.family, f"family is {found.family!r}, expected {subject.family!r}")


@TEACHER.rule
def cards_are_its_own(subject: Subject) -> None:
    """Its cards name this family, and no other card has their names."""
    names = [card.name for card in cards()]
    for card in subject.frontend.cards:
        expect(card.family == subject.family, f"card {card.name} names the family {card.family!r}")
        expect(names.count(card.name) == 1, f"there are {names.count(card.name)} cards named {card.name}")


@TEACHER.rule
def recognises_its_own_config(subject: Subject) -> None:
    """It recognises its config.json and not an empty one, and no other family recognises it."""
    expect(not subject.frontend.recognises({}), "it recognises an empty config.json")
    if subject.config is None:
        return
    plain = {key: value for key, value in subject.config.items() if key != "tsfmc"}
    found = [name for name, frontend in FRONTENDS.items() if frontend.recognises(plain)]
    expect(found == [subject.family], f"its config.json is recognised by {found or 'no family'}")


@TEACHER.rule
def shapes(subject: Subject) -> None:
    """[B, D, L] float32 to [B, D, H] float32 and finite, for one window and for several."""
    models.check_shapes(subject.build(), subject.variates)


@TEACHER.rule
@torch.inference_mode()
def states(subject: Subject) -> None:
    """states is [B, D, S, d] and finite, S and d the same for every batch."""
    teacher = subject.build()
    found = [teacher.states(windows(batch, subject.variates, subject.lookback)) for batch in (1, 3)]
    for batch, value in zip((1, 3), found, strict=True):
        shape = list(value.shape)
        expect(
            value.ndim == 4 and shape[:2] == [batch, subject.variates],
            f"states have shape {shape}, expected [{batch}, {subject.variates}, S, d]",
        )
        expect(torch.isfinite(value).all(), "states are not finite")
    expect(found[0].shape[1:] == found[1].shape[1:], "the shape of states depends on the batch")


@TEACHER.rule
@torch.inference_mode()
def outputs_agree(subject: Subject) -> None:
    """outputs gives what forward, quantiles and states give one by one."""
    teacher = subject.build()
    past = windows(2, subject.variates, subject.lookback)
    outputs = teacher.outputs(past)
    pairs = {"forecast": (outputs.forecast, teacher(past)), "states": (outputs.states, teacher.states(past))}
    if teacher.quantile_levels:
        pairs["quantiles"] = (outputs.quantiles, teacher.quantiles(past))
        expect(
            outputs.quantiles is not None
            and list(outputs.quantiles.shape)
            == [2, subject.variates, subject.horizon, len(teacher.quantile_levels)],
            "quantiles are not [B, D, H, Q]",
        )
    for name, (together, alone) in pairs.items():
        expect(together is not None, f"outputs has no {name}")
        assert together is not None
        moved = models.distance(together, alone)
        expect(moved <= models.TOLERANCE, f"{name} of outputs differ by {moved:.1e} from the method's own")


@TEACHER.rule
def batch_is_free(subject: Subject) -> None:
    """A window's forecast does not depend on the windows beside it."""
    models.check_batch(subject.build(), subject.variates)


@TEACHER.rule
def deterministic_and_pure(subject: Subject) -> None:
    """Two calls give equal numbers and change neither window nor weights."""
    models.check_deterministic(subject.build(), subject.variates)


@TEACHER.rule
@torch.inference_mode()
def checkpoint_round_trip(subject: Subject) -> None:
    """Saved and loaded by its directory alone, it is the same teacher."""
    teacher = subject.build()
    past = windows(2, subject.variates, subject.lookback)
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
        save_teacher(teacher, folder)
        loaded = load_teacher(Path(folder))
    expect(torch.equal(loaded(past), teacher(past)), "loaded again it forecasts otherwise")
    expect(torch.equal(loaded.states(past), teacher.states(past)), "loaded again it has other states")


@TEACHER.rule
@torch.inference_mode()
def dead_weights_are_dead(subject: Subject) -> None:
    """without_dead_weights computes the same function."""
    teacher = subject.build()
    past = windows(2, subject.variates, subject.lookback)
    moved = models.distance(teacher.without_dead_weights()(past), teacher(past))
    expect(moved <= FUNCTION_TOLERANCE, f"without its dead weights it differs by {moved:.1e}")


@TEACHER.rule
def structure_is_exact(subject: Subject) -> None:
    """Every channel group that it declares prunable can be masked and cut with one result."""
    verify_structure(copy.deepcopy(subject.build()))


@TEACHER.rule
def exports(subject: Subject) -> None:
    """torch.export takes it with a dynamic batch."""
    models.check_export(subject.build(), subject.variates)
