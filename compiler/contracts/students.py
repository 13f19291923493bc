"""The contract of a student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..driver.recipe import resolve
from ..ir.forecaster import Forecaster, Student
from ..ir.unit import fingerprint
from ..students import STUDENTS, check_student, from_config, takes
from . import models
from .rule import Contract, expect
from .samples import HORIZON, LOOKBACK, VARIATES, hard_windows, windows


@dataclass(frozen=True)
class Subject:
    """A kind of student with the options that it is tried with."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> Student:
        """One with random weights, also where training would start from zeros."""
        options = {"variates": VARIATES} if takes(self.kind, "variates") else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind: Any = STUDENTS[self.kind]
            student: Student = kind(lookback=LOOKBACK, horizon=HORIZON, **{**options, **self.options})
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        return student.eval()


STUDENT: Contract[Subject] = Contract("student")


@STUDENT.rule
def is_a_student(subject: Subject) -> None:
    """It derives from Student, and lookback and horizon are all that its constructor needs."""
    expect(issubclass(STUDENTS[subject.kind], Student), "its class does not derive from Student")
    plain = STUDENTS[subject.kind](lookback=LOOKBACK, horizon=HORIZON)
    expect(
        (plain.lookback, plain.horizon) == (LOOKBACK, HORIZON), "lookback or horizon are not what was given"
    )


@STUDENT.rule
def preset_resolves(subject: Subject) -> None:
    """A recipe with this student and nothing else is valid, and names only options that it has."""
    recipe = resolve(named={"student.kind": subject.kind})
    expect(recipe.student.kind == subject.kind, f"its preset names the student {recipe.student.kind!r}")
    check_student(subject.kind, recipe.student.config)


@STUDENT.rule
def shapes(subject: Subject) -> None:
    """[B, D, L] float32 to [B, D, H] float32 and finite, for one window and for several."""
    models.check_shapes(subject.build(), VARIATES)


@STUDENT.rule
def batch_is_free(subject: Subject) -> None:
    """A window's forecast does not depend on the windows beside it."""
    models.check_batch(subject.build(), VARIATES)


@STUDENT.rule
def deterministic_and_pure(subject: Subject) -> None:
    """In evaluation two calls give equal numbers and change neither window nor weights."""
    models.check_deterministic(subject.build(), VARIATES)


@STUDENT.rule
def one_seed_one_student(subject: Subject) -> None:
    """First weights come from torch's seeded stream and from nothing else."""
    expect(fingerprint(subject.build(3)) == fingerprint(subject.build(3)), "one seed gives two students")


@STUDENT.rule
@torch.no_grad()
def hard_windows_are_finite(subject: Subject) -> None:
    """Constant windows, nearly constant ones and zeros have finite forecasts."""
    forecast = subject.build()(hard_windows(VARIATES, LOOKBACK))
    expect(torch.isfinite(forecast).all(), "a constant window or zeros give a forecast that is not finite")


@STUDENT.rule
@torch.no_grad()
def embedding(subject: Subject) -> None:
    """embed is [B, D, embedding_dim], and forecast_and_embedding is forward and embed."""
    student = subject.build()
    if not student.embedding_dim:
        return
    past = windows(3, VARIATES, LOOKBACK)
    forecast, both = student.forecast_and_embedding(past)
    shape = [3, VARIATES, student.embedding_dim]
    expect(list(both.shape) == shape, f"an embedding has shape {list(both.shape)}, expected {shape}")
    expect(
        models.distance(forecast, student(past)) <= models.TOLERANCE,
        "forecast_and_embedding is not forward's forecast",
    )
    expect(
        models.distance(both, student.embed(past)) <= models.TOLERANCE,
        "forecast_and_embedding is not embed's embedding",
    )


@STUDENT.rule
def learns(subject: Subject) -> None:
    """Every parameter that is not frozen gets a gradient from the forecast."""
    student = subject.build().train()
    student(windows(4, VARIATES, LOOKBACK)).square().mean().backward()  # type: ignore[no-untyped-call]
    silent = [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None]
    expect(not silent, f"no gradient reaches {', '.join(silent)}")


@STUDENT.rule
def config_round_trip(subject: Subject) -> None:
    """from_config(config) with the state dict is the same student; config is JSON and names its kind."""
    student = subject.build()
    kind = student.config.get("kind")
    same = isinstance(kind, str) and kind in STUDENTS and STUDENTS[kind] is STUDENTS[subject.kind]
    expect(same, f"config['kind'] is {kind!r}, expected {subject.kind!r} or another kind of this class")
    _round_trip(student)


@STUDENT.rule
@torch.no_grad()
def folds_exactly(subject: Subject) -> None:
    """fold gives None or the same function, in a form that folded_forms lists and from_config rebuilds."""
    student = subject.build()
    before = fingerprint(student)
    folded = student.fold()
    expect(fingerprint(student) == before, "fold changes the student")
    if folded is None:
        return
    kind = str(folded.config.get("kind"))
    forms = type(student).folded_forms()
    expect(
        forms.get(kind) is type(folded),
        f"fold returns a {type(folded).__name__} of kind {kind!r}, folded_forms has {dict(forms)}",
    )
    past = torch.cat([windows(4, VARIATES, LOOKBACK), hard_windows(VARIATES, LOOKBACK)])
    moved = models.distance(folded.eval()(past), student(past))
    expect(moved <= models.TOLERANCE, f"the folded form differs by {moved:.1e}")
    _round_trip(folded)


@STUDENT.rule
def exports(subject: Subject) -> None:
    """torch.export takes the student, and what it folds into, with a dynamic batch."""
    student = subject.build()
    models.check_export(student, VARIATES)
    if (folded := student.fold()) is not None:
        models.check_export(folded.eval(), VARIATES)


@STUDENT.rule
@torch.no_grad()
def is_solved_as_it_says(subject: Subject) -> None:
    """A solvable student takes an affine map W and then forecasts m + W (past - m), m the window's mean."""
    student = subject.build()
    if not student.solvable:
        return
    weight = torch.randn(HORIZON, LOOKBACK, generator=torch.Generator().manual_seed(0)) / LOOKBACK
    config = {key: value for key, value in student.config.items() if key != "kind"}
    solved = type(student).from_affine("shared", weight, **config).eval()
    past = windows(4, VARIATES, LOOKBACK)
    mean = past.mean(-1, keepdim=True)
    moved = models.distance(solved(past), mean + (past - mean) @ weight.T)
    expect(moved <= 10 * models.TOLERANCE, f"from_affine gives another map, by {moved:.1e}")


@torch.no_grad()
def _round_trip(model: Forecaster) -> None:
    rebuilt = from_config(json.loads(json.dumps(dict(model.config))))
    expect(type(rebuilt) is type(model), f"config rebuilds a {type(rebuilt).__name__}")
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    past = windows(2, VARIATES, LOOKBACK)
    expect(torch.equal(rebuilt.eval()(past), model(past)), "rebuilt from its config it forecasts otherwise")
