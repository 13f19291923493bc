"""The contract of a target: what it lowers runs, equals the model, and is the same file every time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from ...targets import TARGETS
from ...targets.artifact.runner import render_runner
from ...targets.base import Payload, Shape, Target
from ...targets.measure.parity import check_parity, hard_windows
from ..base.content import file_hash
from ..ir.forecaster import Forecaster
from ..ir.unit import fingerprint
from ..students import build_student
from .rule import Breach, Contract, expect
from .samples import HORIZON, LOOKBACK, VARIATES, windows


def folded_dlinear() -> Forecaster:
    """The smallest program there is: one matrix."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = build_student("dlinear", lookback=LOOKBACK, horizon=HORIZON)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        folded = student.fold()
    assert folded is not None
    return folded.eval()


@dataclass(frozen=True)
class Lowered:
    """What ``lower`` left in a folder, which goes when this does."""

    holder: tempfile.TemporaryDirectory[str]
    payload: Payload
    model: Forecaster

    @property
    def folder(self) -> Path:
        """Where the payload lies."""
        return Path(self.holder.name)

    def hashes(self) -> dict[str, str]:
        """sha256 of every file of the payload."""
        return {name: file_hash(self.folder / name) for name in self.payload.files}


@dataclass(frozen=True)
class Subject:
    """A target, its options and the model that it is tried on."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    make_model: Callable[[], Forecaster] = folded_dlinear

    @property
    def target(self) -> Target:
        """What the registry has under the name."""
        target: Target = TARGETS[self.kind]
        return target

    @cached_property
    def first(self) -> Lowered:
        """The model, lowered once for all rules."""
        return self.lower()

    def lower(self) -> Lowered:
        """Lowers the model into a folder of its own.

        Raises:
            Breach: the target says that it cannot lower here.
        """
        here = self.target.probe()
        expect(here.can_lower, f"it cannot lower here: {'; '.join(here.problems)}")
        model = self.make_model()
        folder = tempfile.TemporaryDirectory(prefix="tsfmc-")
        payload = self.target.lower_model(
            model,
            Shape(VARIATES, model.lookback, model.horizon),
            Path(folder.name),
            options=self.target.Options(**self.options),
            calibration=windows(16, VARIATES, model.lookback).numpy(),
        )
        return Lowered(folder, payload, model)


TARGET: Contract[Subject] = Contract("target")


@TARGET.rule
def is_described(subject: Subject) -> None:
    """Its kind is the registered name, and describe is plain data with a summary of one line."""
    target = subject.target
    expect(target.kind == subject.kind, f"kind is {target.kind!r}, expected {subject.kind!r}")
    described = json.loads(json.dumps(dict(target.describe())))
    summary = described.get("summary", "")
    expect(
        isinstance(summary, str) and summary and "\n" not in summary, "describe has no summary of one line"
    )


@TARGET.rule
def probes(subject: Subject) -> None:
    """probe says what is missing wherever it cannot lower or run."""
    here = subject.target.probe()
    expect(here.can_lower or here.problems, "it cannot lower here, and probe does not say why")
    expect(all("\n" not in problem for problem in here.problems), "a problem is longer than a line")


@TARGET.rule
def options_are_typed(subject: Subject) -> None:
    """Every option has a default, and an unknown one is refused."""
    subject.target.Options()
    try:
        subject.target.Options.model_validate({"no_such_option": 1})
    except ValidationError:
        return
    raise Breach("Options accepts an option that does not exist; derive it from TargetOptions")


@TARGET.rule
def lowers(subject: Subject) -> None:
    """lower writes the files that it names, the entry among them, and leaves the model as it is."""
    lowered, payload = subject.first, subject.first.payload
    expect(fingerprint(lowered.model) == fingerprint(subject.make_model()), "lower changes the model")
    missing = [name for name in (*payload.files, payload.entry) if not (lowered.folder / name).is_file()]
    expect(not missing, f"it names {', '.join(sorted(missing))} and does not write it")
    expect(payload.entry in payload.files, f"the entry {payload.entry} is not among its files")
    json.dumps(dict(payload.details))


@TARGET.rule
def equal_bytes(subject: Subject) -> None:
    """Lowered twice, the payload is the same to the byte."""
    first, second = subject.first.hashes(), subject.lower().hashes()
    different = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    expect(not different, f"two runs write another {', '.join(different)}")


@TARGET.rule
def equals_the_model(subject: Subject) -> None:
    """The loaded engine passes parity on hard windows, takes any batch, and leaves its input as it is."""
    target, lowered, payload = subject.target, subject.first, subject.first.payload
    if not payload.runs_here:
        return

    def reference(past: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            forecast: np.ndarray = lowered.model(torch.from_numpy(past)).numpy()
        return forecast

    engine = target.load(lowered.folder, payload, threads=1)
    real = windows(16, VARIATES, lowered.model.lookback).numpy()
    tolerance = payload.details.get("tolerance", target.tolerance)
    parity = check_parity(engine, reference, hard_windows(real), tolerance)
    expect(parity.passed, parity.describe())
    for batch in (1, 3, 16):
        kept = real[:batch].copy()
        shape = list(engine(real[:batch]).shape)
        expected = [batch, VARIATES, lowered.model.horizon]
        expect(shape == expected, f"a batch of {batch} gives {shape}, expected {expected}")
        expect(np.array_equal(real[:batch], kept), "the engine writes into the window that it is given")


@TARGET.rule
def runner_is_whole(subject: Subject) -> None:
    """Its engine can be pasted into run.py: no name of the runner is redefined, and the text compiles."""
    source = render_runner(subject.target.engine_source())
    compile(source, "run.py", "exec")
    expect("tsfmc." not in subject.target.engine_source().read_text(), "the engine imports the compiler")
