"""An update: the statistics beside an artifact are extended by new rows and solved again.

An update needs neither the teacher nor the old data.  It judges the old artifact on the new rows first, since
afterwards they are part of what the new one was fitted to.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...targets.artifact.open import Forecaster, open_artifact
from ..base.content import file_hash
from ..base.errors import MissingError, UsageError, VerificationError
from ..base.parallel import one_thread
from ..base.paths import require_room
from ..base.progress import Progress
from ..base.reading import read_toml, validated
from ..data.filling import MAX_FILLED
from ..data.formats import fingerprint
from ..data.missing import refuse_invented
from ..data.reading import Reading
from ..data.reading_options import asked_reading
from ..data.recent import recent_rows
from ..data.sources import file_source
from ..data.table import Table, ingest, open_ingested
from ..data.timeline import steps_per_season
from ..ir.companions import Companion, companion_names
from ..ir.provenance import TeacherInfo
from ..ir.unit import CompileUnit, PassRecord, Task
from ..learning.pieces import Array
from ..learning.update import (
    FILE,
    Header,
    State,
    check_follows,
    read_state,
    scale_of,
)
from ..students import STUDENTS
from . import pipeline
from .importing import RESERVED
from .jobs import require_targets
from .keeping import kept_beside, waiting
from .recipe import Recipe

BATCH_WINDOWS = 256
HEAD_STAYS = "around the new median as far as the compile put them, in units of each window's spread"
"""Of the quantiles of an updated artifact, for its manifest."""


@dataclass(frozen=True)
class UpdateResult:
    """The new artifact, and what was done to the new rows to read them, a sentence each."""

    artifact: Path
    manifest: Mapping[str, Any]
    filled: tuple[str, ...] = ()


def update(
    artifact: Path,
    source: Path,
    out: Path,
    *,
    asked: Mapping[str, Any],
    rename: Mapping[str, str],
    progress: Progress,
) -> UpdateResult:
    """See ``api.update``."""
    started = time.perf_counter()
    require_room(out, 0, "the out directory", "choose another one with --out")
    model = open_artifact(artifact)
    if model.manifest["task"].get("inputs"):
        raise UsageError(
            f"{artifact}: it has inputs beside the window, whose effect an update cannot solve again",
            hint="compile again on all rows",
        )
    state = find_state(artifact, model.manifest)
    header = state.header
    with tempfile.TemporaryDirectory(prefix="tsfmc-update-") as folder:
        reading = asked_reading(model.manifest["task"], asked)
        table = _read(source, header.variates, reading, rename, Path(folder))
        rows, stamps = (
            np.array(table.values),
            None if table.timestamps is None else np.array(table.timestamps),
        )
    check_follows(header, stamps, table.frequency, source.name)
    held = len(state.rows) + len(rows)
    if held < header.span:
        raise UsageError(
            f"{source.name}: {len(rows)} rows, the first update needs {header.span} "
            f"(lookback {header.lookback} and horizon {header.horizon})"
        )
    kind = model.manifest["target"]["kind"]
    recipe = _recipe(header.recipe).model_copy(update={"targets": (kind,)})
    require_targets(recipe)
    with one_thread():
        progress.line(f"judge the old artifact on {len(rows)} new rows")
        before = prequential(model, state, rows)
        progress.line("add the rows and solve")
        last = None if stamps is None else str(stamps[-1])
        new = state.extend(rows, last=last, step=table.frequency)
        facts = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": len(rows),
            "rows_of_all_updates": new.header.rows_added,
            "windows": new.windows,
            "last_row": new.header.last,
            "prior_windows": new.weight(),
            "old_artifact_on_new_rows": before,
            "filled": asdict(table.filled),
        }
        if new.head is not None:
            facts["quantiles"] = HEAD_STAYS
        unit = _unit(new, rows, state, source.name, facts, time.perf_counter() - started)
    with kept_beside(new, out / FILE) as named:
        unit = unit.with_(facts={"statistics": named, "updated": facts})
        unit = pipeline.run_steps(recipe, pipeline.target_steps(recipe, out), unit=unit, progress=progress)
    return UpdateResult(out / kind, unit.artifacts[kind], tuple(table.filled.sentences()))


def _recipe(text: str) -> Recipe:
    """The recipe of the compile, as the statistics hold it."""
    what = "recipe in the statistics"
    tables = read_toml(text, what=what, error=VerificationError, finite=False)
    return validated(tables, Recipe, what=what, error=VerificationError, strict=False)


def find_state(artifact: Path, manifest: Mapping[str, Any]) -> State:
    """The statistics beside an artifact.

    Raises:
        MissingError: the artifact names none, or they are not there.
        UsageError: they are of another task.
        VerificationError: they are not those that the artifact was compiled with.
    """
    reference = manifest.get("statistics")
    if not reference:
        raise MissingError(
            f"{artifact}: its compile left no statistics",
            hint="compile an affine student without statistics = false",
        )
    path = artifact.resolve().parent / FILE
    if waiting(path).is_file() and not (path.is_file() and file_hash(path) == reference["sha256"]):
        path = waiting(path)  # whoever wrote both was killed between the two
    state, sha256 = read_state(path)
    task, header = manifest["task"], state.header
    kept = {
        "lookback": header.lookback,
        "horizon": header.horizon,
        "variates": list(header.variates),
        "frequency": header.step,
    }
    for name, value in kept.items():
        if list(task[name]) != value if name == "variates" else task[name] != value:
            raise UsageError(f"{path}: statistics of {name} {value}, the artifact has {task[name]}")
    levels = [] if state.head is None else list(state.head.levels)
    if levels != list(task.get("quantile_levels") or ()):
        raise VerificationError(
            f"{path}: statistics of quantiles {levels}, the artifact has {task.get('quantile_levels') or []}",
            hint="compile again",
        )
    if sha256 != reference["sha256"]:
        raise VerificationError(
            f"{path}: not the statistics that {artifact} names", hint="keep the files of one compile together"
        )
    return state


def _read(
    source: Path, variates: tuple[str, ...], reading: Reading, rename: Mapping[str, str], folder: Path
) -> Table:
    found = file_source(source)
    content = fingerprint(found.path, reading.dialect)
    ingest(found, content, list(variates), reading, folder, rename=rename)
    table = open_ingested(folder)
    filled = table.filled
    refuse_invented(filled.share, MAX_FILLED, f"variate {filled.variate!r}", found.path.name, option="")
    return table


def prequential(model: Forecaster, state: State, rows: Array) -> dict[str, Any] | None:
    """MSE of an artifact and of the seasonal naive forecast on windows that forecast new rows only, scaled.

    None where no such window has a whole past and future.
    """
    lookback, horizon = state.header.lookback, state.header.horizon
    known = np.concatenate([state.rows[-lookback:], rows])
    if len(known) < lookback + horizon:
        return None
    deviation = state.scale[1] if state.scale.size else known.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(known, lookback + horizon, axis=0)
    season = min(steps_per_season(state.header.step), lookback)
    naive_at = lookback - season + np.arange(horizon) % season
    squares, naive = 0.0, 0.0
    for start in range(0, len(windows), BATCH_WINDOWS):
        piece = windows[start : start + BATCH_WINDOWS]
        past, future = piece[..., :lookback], piece[..., lookback:]
        squares += float((((model.point(past) - future) / deviation) ** 2).sum())
        naive += float((((past[..., naive_at] - future) / deviation) ** 2).sum())
    cells = len(windows) * len(deviation) * horizon
    return {"mse": squares / cells, "seasonal_naive_mse": naive / cells, "windows": len(windows)}


def _unit(
    new: State, rows: Array, old: State, name: str, facts: Mapping[str, Any], seconds: float
) -> CompileUnit:
    header = new.header
    solution = new.solution()
    recipe = _recipe(header.recipe)
    options = {
        key: value
        for key, value in recipe.student.model_dump(mode="json").items()
        if key not in ("kind", "maps", "rank")
    }
    student = STUDENTS[recipe.student.kind].from_affine(
        solution.form,
        solution.arrays(),
        **{**options, "variates": len(header.variates)},
        lookback=header.lookback,
        horizon=header.horizon,
    )
    scale = new.scale if new.scale.size else scale_of(new.rows)
    data = recent_rows(
        np.concatenate([old.rows, rows])[-max(4 * header.span, len(rows)) :],
        header.variates,
        header.step,
        scale,
        name=name,
        unmeasured="updated with new rows: what the old artifact was worth on them stands under updated",
    )
    record = PassRecord("update", {"rows": len(rows)}, True, seconds, dict(facts))
    return CompileUnit(
        Task(
            header.lookback,
            header.horizon,
            header.variates,
            header.step,
            quantile_levels=() if new.head is None else new.head.levels,
        ),
        data,
        teacher_info=TeacherInfo(**header.teacher),
        companions=_companions(header),
        student=student.eval().fold(),
        head=new.head,
        record=(record,),
    )


def _companions(header: Header) -> tuple[Companion, ...]:
    """The further teachers of the compile, as far as an update needs them: their provenance."""
    infos = [TeacherInfo(**fields) for fields in header.companions]
    named = zip(companion_names(infos, RESERVED), infos, strict=True)
    return tuple(Companion(name, info) for name, info in named)
