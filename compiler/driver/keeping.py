"""What an affine student was solved from is left beside its artifacts, for ``update``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ..base.content import file_hash
from ..data import SyntheticData
from ..ir.companions import FIRST
from ..ir.forecaster import Student
from ..ir.passes import PassContext, PassResult, Step
from ..ir.unit import CompileUnit
from ..learning.affine import Setting, mixed_teacher, setting_of
from ..learning.statistics import WindowStatistics
from ..learning.synthetic import TEACHER
from ..learning.update import FILE, Header, State, save_state, state_of
from ..students import STUDENTS
from .recipe import Recipe


class KeepStatistics(Step):
    """Writes ``out/statistics.safetensors`` for a solved student, and names it in the manifests.

    Idle for any other, and for a student that was grown out of a solved one.
    """

    name = "keep_statistics"
    summary = "leave what an affine student was solved from beside the artifacts, for update"
    reads = frozenset({"data", "statistics", "setting", "companions", "head"})
    writes = frozenset({"facts"})

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out

    def run(self, unit: CompileUnit, context: PassContext) -> PassResult:
        solved = unit.setting is not None and isinstance(unit.statistics, WindowStatistics)
        if not solved or not _is_affine(self.recipe.student.kind):
            return PassResult(unit, False)
        assert isinstance(unit.statistics, WindowStatistics)
        state = _state(self.recipe, unit, unit.statistics, setting_of(unit.setting))
        state = replace(state, head=unit.head)
        named = context.cleanup.enter_context(kept_beside(state, self.out / FILE))
        return PassResult(unit.with_(facts={**unit.facts, "statistics": named}), True)


def kept_beside(state: State, path: Path) -> AbstractContextManager[dict[str, str]]:
    """Statistics, by ``placed_at_the_end``."""
    return placed_at_the_end(path, lambda coming: save_state(state, coming))


@contextmanager
def placed_at_the_end(path: Path, write: Callable[[Path], None]) -> Iterator[dict[str, str]]:
    """A file that takes its place when the artifact that needs it is in its own, and else leaves no trace.

    Until the block ends it lies at ``waiting(path)``, and what was there before stays: a compile or update
    that fails leaves the old artifact with what belongs to it.

    Yields:
        how manifests name the file.
    """
    coming = waiting(path)
    write(coming)
    try:
        yield {"file": path.name, "sha256": file_hash(coming)}
    except BaseException:
        coming.unlink(missing_ok=True)
        raise
    with suppress(FileNotFoundError):  # another run into the same folder has put it in place
        coming.replace(path)


def waiting(path: Path) -> Path:
    """Where a file waits for its artifact; a process that is killed in between leaves it there."""
    return path.with_name(f"{path.name}.next")


def _is_affine(kind: str) -> bool:
    """Whether students of this kind are solved maps and nothing besides."""
    return any("from_affine" in vars(parent) for parent in STUDENTS[kind].__mro__ if parent is not Student)


def _state(recipe: Recipe, unit: CompileUnit, statistics: WindowStatistics, fitted: Setting) -> State:
    task, data = unit.task, unit.data
    sums = statistics.all()
    if isinstance(data, SyntheticData):
        taught = sums.pooled()
        mix = fitted.teachers or ((TEACHER, 1.0),)
        prior = type(taught)(
            taught.count,
            taught.gram,
            {TEACHER: mixed_teacher(taught.cross, mix)},
            {TEACHER: mixed_teacher(taught.square, mix)},  # of a mix an upper bound, that no solve reads
        )
        nothing = np.zeros((0, len(task.variates)))
        header = _header(recipe, unit, None)
        return state_of(header, None, prior, nothing, np.zeros((0, len(task.variates))), fitted)
    if statistics.average:  # what is kept of one map for all is a sum over the variates
        sums = sums.times(len(task.variates))
    first = data.splits.train - task.lookback - task.horizon + 1
    end = data.splits.span("test")[1]
    last = None if data.timestamps is None else str(data.timestamps[end - 1])
    rows = np.array(data.values[first:end], dtype=np.float64)
    header = _header(recipe, unit, last)
    return state_of(header, sums, statistics.prior, rows, np.stack([data.mean, data.std]), fitted)


def _header(recipe: Recipe, unit: CompileUnit, last: str | None) -> Header:
    task, info = unit.task, unit.teacher_info
    return Header(
        lookback=task.lookback,
        horizon=task.horizon,
        variates=task.variates,
        step=task.frequency,
        last=last,
        setting=Setting(),
        rows_added=0,
        recipe=recipe.to_toml(),
        teacher=asdict(info) if info else {},
        companions=tuple(asdict(each.info) for each in unit.companions if each.name != FIRST),
    )
