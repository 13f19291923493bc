"""What an affine student is solved from, kept beside its artifact, so that new rows can be added to it.

    G + v G0 + ridge,   R + v T0            G, R: sums of all windows so far;  G0, T0: the synthetic prior

``R`` holds the target that the student was fitted to: the blend of the truth and the teacher for windows that
the teacher labelled, the truth for windows that came later.  So a new window weighs as much as an old one,
and needs no teacher.

Rows are added in chunks of a fixed number of windows, in order.  What does not fill a chunk is kept as rows:
two updates give the same numbers as one, bit for bit.  Before a chunk is added, candidates for the weight v
are judged on it (prequentially: fitted on everything before), and once enough chunks have judged the best one
is taken: a rolling origin that goes on over the updates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..base.errors import MissingError, UsageError, VerificationError
from ..base.reading import read_model
from ..base.sealed import hashed, placed
from ..ir.quantiles import QuantileHead, Spread
from .affine import DEFAULT_PRIOR, AffineSolution, Setting, solve, squared_error, target_products
from .pieces import Array
from .statistics import Sums, hankel_sums
from .synthetic import TEACHER

FILE = "statistics.safetensors"
SCHEMA = 1
PRIORS = (0.0, 250.0, 1000.0, 4000.0)
ENOUGH_CHUNKS = 4
"""Chunks that must have been judged before the weight of the prior is chosen by them."""
TARGET = "truth"


@dataclass(frozen=True)
class Header:
    """What the sums belong to.

    Attributes:
        variates: names, in order.
        step: pandas offset alias, or None.
        last: ISO time of the last row, or None for rows without timestamps.
        setting: form, rank, ridge, pooling and prior; the blend with the teacher is in the sums.
        rows_added: rows that updates have added.
        recipe: the compile's recipe, as TOML.
        teacher: provenance of the teacher.
        companions: of each further one.
    """

    lookback: int
    horizon: int
    variates: tuple[str, ...]
    step: str | None
    last: str | None
    setting: Setting
    rows_added: int
    recipe: str
    teacher: Mapping[str, Any]
    companions: tuple[Mapping[str, Any], ...] = ()

    @property
    def span(self) -> int:
        """Rows of a window."""
        return self.lookback + self.horizon

    @property
    def chunk(self) -> int:
        """Windows that are added at once."""
        return max(256, 2 * self.horizon)


@dataclass(frozen=True, eq=False)
class State:
    """Everything that an update starts from.

    Attributes:
        sums: of all windows before ``rows``, one target; variates pooled where they share a map.
        prior: sums of synthetic windows with the teacher's labels, or None.
        rows: ``[n, D]`` rows in the units of the data from the first window on that is not in ``sums``.
        judged: ``[chunks, len(PRIORS)]`` squared errors of the candidates.
        scale: ``[2, D]`` mean and deviation, empty until the first chunk of a compile without data.
        head: what makes quantiles of the student's forecasts; rows that are added leave it as it is.
    """

    header: Header
    sums: Sums
    prior: Sums | None
    rows: Array
    judged: Array
    scale: Array
    head: QuantileHead | None = None

    def extend(self, rows: Array, *, last: str | None = None, step: str | None = None) -> State:
        """With new rows ``[n, D]``, that follow the last one."""
        header = replace(
            self.header,
            last=last or self.header.last,
            step=self.header.step or step,
            rows_added=self.header.rows_added + len(rows),
        )
        state = replace(self, header=header, rows=np.concatenate([self.rows, rows]))
        while len(state.rows) >= header.chunk + header.span - 1:
            state = state._absorb()
        return replace(state, rows=state.rows.copy())

    def _absorb(self) -> State:
        """The first chunk of ``rows`` judges, and goes into the sums."""
        size = self.header.chunk
        chunk = self.rows[: size + self.header.span - 1]
        state = self if self.scale.size else replace(self, scale=scale_of(chunk))
        scaled = state.scaled(chunk)
        judged = self.judged
        if self.prior is not None:
            # Windows of the chunk whose futures begin after every future that is in the sums.
            unseen = hankel_sums(scaled[self.header.horizon - 1 :], self.header.lookback, self.header.horizon)
            errors = [squared_error(state._pooled(unseen), state._solve(prior)) for prior in PRIORS]
            judged = np.concatenate([judged, [errors]])
        sums = state._pooled(hankel_sums(scaled, self.header.lookback, self.header.horizon))
        return replace(state, sums=state.sums + sums, rows=self.rows[size:], judged=judged)

    def scaled(self, rows: Array) -> Array:
        """Rows at the scale of the sums."""
        mean, deviation = self.scale if self.scale.size else scale_of(self.rows)
        scaled: Array = (rows - mean) / deviation
        return scaled

    def weight(self) -> float:
        """Weight of the prior, in windows."""
        if self.prior is None:
            return 0.0
        if len(self.judged) < ENOUGH_CHUNKS:
            return self.header.setting.prior
        ratios = np.log(self.judged + 1e-12) - np.log(self.judged[:, :1] + 1e-12)
        return PRIORS[int(ratios.mean(axis=0).argmin())]

    def solution(self) -> AffineSolution:
        """The student of all rows, those outside of a whole chunk included."""
        if len(self.rows) < self.header.span:
            return self._solve(self.weight())
        rest = hankel_sums(self.scaled(self.rows), self.header.lookback, self.header.horizon)
        return replace(self, sums=self.sums + self._pooled(rest))._solve(self.weight())

    def _solve(self, prior: float) -> AffineSolution:
        try:
            return solve(self.sums, replace(self.header.setting, prior=prior), self.prior)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise VerificationError(
                f"the statistics beside the artifact are no sums over windows: {str(error)[:100]}",
                hint="compile again",
            ) from None

    def _pooled(self, sums: Sums) -> Sums:
        return pooled(sums) if self.header.setting.form == "shared" else sums

    @property
    def windows(self) -> int:
        """Windows so far."""
        return self.sums.count + max(0, len(self.rows) - self.header.span + 1)


def scale_of(rows: Array) -> Array:
    """``[2, D]`` mean and deviation, 1 for a constant variate."""
    deviation = np.where((rows == rows[0]).all(axis=0), 1.0, rows.std(axis=0))
    return np.stack([rows.mean(axis=0), deviation])


def pooled(sums: Sums) -> Sums:
    """All variates as one, a window of all of them counted once: weights in windows keep their meaning."""
    return replace(sums.pooled(), count=sums.count)


def state_of(
    header: Header, sums: Sums | None, prior: Sums | None, rows: Array, scale: Array, fitted: Setting
) -> State:
    """The state after a compile.

    Args:
        header: its setting is filled in here.
        sums: of the training windows, with the teacher's labels; None for a compile without data.
        rows: from the first window after training on.
        fitted: the chosen setting.
    """
    kept = fitted.prior if fitted.prior or prior is None or sums is not None else DEFAULT_PRIOR
    setting = Setting(fitted.form, fitted.rank, fitted.ridge, pooling=fitted.pooling, prior=kept)
    header = replace(header, setting=setting)
    width = 1 if setting.form == "shared" else len(header.variates)
    if sums is None:
        target = _nothing(width, header.lookback, header.horizon)
    else:
        target = replace(
            sums, cross={TARGET: target_products(sums, fitted)}, square={TARGET: sums.square["truth"]}
        )
        target = pooled(target) if width == 1 else target
    return State(header, target, prior, rows, np.zeros((0, len(PRIORS))), scale)


def _nothing(width: int, lookback: int, horizon: int) -> Sums:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(width, *shape, dtype=torch.float64)

    return Sums(0, zeros(lookback, lookback), {TARGET: zeros(lookback, horizon)}, {TARGET: zeros(horizon)})


def save_state(state: State, path: Path) -> None:
    """One safetensors file; what the sums belong to is JSON in its header.  Equal states give equal bytes."""
    tensors = {
        "gram": state.sums.gram,
        "cross": state.sums.cross[TARGET],
        "square": state.sums.square[TARGET],
        "rows": torch.from_numpy(state.rows),
        "judged": torch.from_numpy(state.judged),
        "scale": torch.from_numpy(state.scale),
    }
    if state.prior is not None:
        tensors["prior_gram"] = state.prior.gram
        tensors["prior_cross"] = state.prior.cross[TEACHER]
        tensors["prior_square"] = state.prior.square[TEACHER]
    if state.head is not None:
        tensors["offsets"] = state.head.offsets.detach().double()
    facts = {
        "schema": SCHEMA,
        "windows": state.sums.count,
        "prior_windows": state.prior.count if state.prior else 0,
        **asdict(state.header),
    }
    if state.head is not None:
        facts["quantiles"] = {"levels": state.head.levels, **asdict(state.head.spread)}
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with placed(path) as partial:
        save_file(contiguous, partial, metadata={"tsfmc": json.dumps(facts, sort_keys=True)})


class HeadFacts(BaseModel, extra="forbid"):
    """What a quantile head is besides its offsets."""

    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    kind: Literal["constant", "deviation", "differences"]
    lag: int = Field(ge=0)

    @model_validator(mode="after")
    def _fits(self) -> HeadFacts:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels do not ascend")
        if (self.lag > 0) != (self.kind == "differences"):
            raise ValueError(f"a spread of kind {self.kind} and lag {self.lag}")
        return self


class Facts(BaseModel, extra="forbid"):
    """What stands in the header of the file: ``Header``, windows in the sums, and the quantile head."""

    schema_: Literal[1] = Field(alias="schema")
    windows: int = Field(ge=0)
    prior_windows: int = Field(ge=0)
    lookback: int = Field(ge=1)
    horizon: int = Field(ge=1)
    variates: tuple[str, ...] = Field(min_length=1)
    step: str | None
    last: str | None
    setting: Setting
    rows_added: int = Field(ge=0)
    recipe: str
    teacher: dict[str, Any]
    companions: tuple[dict[str, Any], ...] = ()
    quantiles: HeadFacts | None = None

    def header(self) -> Header:
        fields = {field.name: getattr(self, field.name) for field in dataclass_fields(Header)}
        return Header(**fields)

    def shapes(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """What the tensors have to be; rows and judgements as many as there are."""
        width = 1 if self.setting.form == "shared" else len(self.variates)
        sums = ("gram", "cross", "square")
        ends = ((self.lookback, self.lookback), (self.lookback, self.horizon), (self.horizon,))
        shapes: dict[str, tuple[int, ...]] = {
            name: (width, *end) for name, end in zip(sums, ends, strict=True)
        }
        if self.prior_windows:
            shapes |= {f"prior_{name}": (1, *end) for name, end in zip(sums, ends, strict=True)}
        rows, judged, scale = (len(tensors.get(name, ())) for name in ("rows", "judged", "scale"))
        shapes |= {"rows": (rows, len(self.variates)), "judged": (judged, len(PRIORS))}
        if self.quantiles is not None:
            shapes["offsets"] = (len(self.variates), self.horizon, len(self.quantiles.levels))
        return {**shapes, "scale": (2 if scale else 0, len(self.variates))}

    @torch.no_grad()
    def head(self, tensors: Mapping[str, Tensor]) -> QuantileHead | None:
        """The quantile head, bit for bit; None where the forecast is a point."""
        if self.quantiles is None:
            return None
        levels, spread = self.quantiles.levels, Spread(self.quantiles.kind, self.quantiles.lag)
        head = QuantileHead(len(self.variates), self.horizon, levels, spread)
        head.offsets.copy_(tensors["offsets"])
        return head.eval()


def read_state(path: Path) -> tuple[State, str]:
    """What ``save_state`` wrote, and the sha256 of the very file that was read.

    Raises:
        MissingError: there is no such file.
        VerificationError: it is not a file of statistics, or of another schema.
    """
    if not path.is_file():
        raise MissingError(
            f"{path}: no statistics beside the artifact",
            hint="compile again without statistics = false, or copy the file from the compile's output",
        )
    try:
        with hashed(path) as (sha256, same), safe_open(same, framework="pt") as file:
            text = (file.metadata() or {})["tsfmc"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise VerificationError(
            f"{path}: not statistics that this version reads: {error}", hint="compile again"
        ) from None
    facts = read_model(text, Facts, what=f"header of {path}", error=VerificationError, hint="compile again")
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != facts.shapes(tensors):
        raise VerificationError(f"{path}: its sums are not of its task", hint="compile again")
    if not all(tensor.dtype == torch.float64 and tensor.isfinite().all() for tensor in tensors.values()):
        raise VerificationError(f"{path}: its sums are not finite numbers of 64 bits", hint="compile again")
    sums = Sums(facts.windows, tensors["gram"], {TARGET: tensors["cross"]}, {TARGET: tensors["square"]})
    prior = None
    if facts.prior_windows:
        cross, square = tensors["prior_cross"], tensors["prior_square"]
        prior = Sums(facts.prior_windows, tensors["prior_gram"], {TEACHER: cross}, {TEACHER: square})
    head = facts.head(tensors)
    if head is not None and (head.offsets.diff(dim=-1) <= 0).any():
        raise VerificationError(f"{path}: its quantiles cross", hint="compile again")
    if facts.quantiles is not None and facts.quantiles.lag >= facts.lookback:
        raise VerificationError(f"{path}: a spread of lag {facts.quantiles.lag}", hint="compile again")
    rows, judged, scale = (tensors[name].numpy() for name in ("rows", "judged", "scale"))
    return State(facts.header(), sums, prior, rows, judged, scale, head), sha256


def check_follows(header: Header, stamps: np.ndarray | None, step: str | None, name: str) -> None:
    """Refuses rows that do not follow the last one, one step later.

    Rows without timestamps are taken to follow.

    Raises:
        UsageError: another step, rows that were seen before, or a gap.
    """
    from pandas import Timestamp

    from ..data.timeline import future_stamps

    if step is not None and header.step is not None and step != header.step:
        raise UsageError(f"{name} has step {step}, the statistics have {header.step}")
    if stamps is None or header.last is None:
        return
    first = Timestamp(stamps[0])
    known = header.step or step
    if first <= Timestamp(header.last):
        raise UsageError(
            f"{name} begins at {first}, rows until {header.last} are in the statistics already",
            hint="give the rows after that",
        )
    if known is None:
        return
    expected = future_stamps(np.datetime64(header.last), known, 1)[0]
    if first != expected:
        raise UsageError(
            f"{name} begins at {first}, a gap after the last row in the statistics, {header.last}",
            hint=f"begin at {expected}, one step of {known} later",
        )
