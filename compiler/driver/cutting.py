"""One device's own artifact, cut out of a fleet's: one head, one scale, no table of the others.

The weights travel with the fleet's artifact, so neither data nor teacher are needed; what is lowered again is
the item's head on the shared basis, by the recipe of the compile.  Nothing is measured anew but parity and
latency: how good the fleet is stands in its own manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ...targets.artifact.archive import opened
from ...targets.artifact.device.arrays import read_array
from ...targets.artifact.device.check import SUMS
from ...targets.artifact.device.files import ArtifactFiles
from ...targets.artifact.device.fleet import BASIS, HEADS, RECIPE, Fleet
from ...targets.artifact.device.manifest import MANIFEST, parse_manifest
from ...targets.artifact.open import compiler_errors, intact_files
from ..base.errors import UsageError, VerificationError
from ..base.progress import Progress
from ..base.reading import read_toml, validated
from ..data import synthetic_data
from ..ir.provenance import TeacherInfo
from ..ir.unit import CompileUnit, Task
from ..students.affine import LowRankMap
from . import pipeline
from .jobs import require_targets
from .recipe import MeasureSection, Recipe

MAX_WEIGHTS_BYTES, MAX_RECIPE_BYTES = 1 << 30, 1 << 20
WINDOWS = 600
"""Synthetic windows that the program is traced and checked on."""
CUT = "cut out of a fleet's artifact, whose manifest says what was measured"


@contextmanager
def cut_out(artifact: Path, item: str, progress: Progress) -> Iterator[Path]:
    """The artifact of one item, in a folder that is gone afterwards.

    Raises:
        UsageError: the artifact is no fleet's, or has no such item.
        VerificationError: it is not intact.
    """
    with opened(artifact) as directory, TemporaryDirectory(prefix="tsfmc-cut-") as folder:
        files = intact_files(directory)
        with compiler_errors():
            manifest = parse_manifest(files.read(MANIFEST))
            if "fleet" not in manifest:
                raise UsageError(f"--id {item}: {artifact} is no fleet's", hint="leave it out")
            fleet = Fleet(files, manifest)
        if item not in fleet:
            raise UsageError(
                f"{artifact} has no item {item!r}, it has {len(fleet)} items",
                hint="an item that is not there is forecast by the fleet's head; see fleet/ids.json",
            )
        unit, recipe = _unit(files, manifest, fleet, item), _recipe(files, manifest)
        require_targets(recipe)
        steps = pipeline.target_steps(recipe, Path(folder))
        pipeline.run_steps(recipe, steps, unit=unit, progress=progress)
        yield Path(folder) / recipe.targets[0]


def _recipe(files: ArtifactFiles, manifest: dict[str, Any]) -> Recipe:
    """That of the compile, for one target and no panel."""
    what = "recipe of the fleet"
    with compiler_errors():
        text = files.read(RECIPE, MAX_RECIPE_BYTES).decode("utf-8", errors="replace")
    tables = read_toml(text, what=what, error=VerificationError, finite=False)
    found = validated(tables, Recipe, what=what, error=VerificationError, strict=False)
    measure = MeasureSection(duration_s=min(1.0, found.measure.duration_s))
    task = found.task.model_copy(update={"id_column": None, "holdout_items": 0.0})
    changes = {
        "targets": (manifest["target"]["kind"],), "task": task, "measure": measure, "with_teacher": False,
        "statistics": False,
    }  # fmt: skip
    return found.model_copy(update=changes)


def _unit(files: ArtifactFiles, manifest: dict[str, Any], fleet: Fleet, item: str) -> CompileUnit:
    """The item's head on the shared basis, with its scale."""
    task = manifest["task"]
    lookback, horizon, step = task["lookback"], task["horizon"], task["frequency"]
    slot, mean, std = fleet.known(item)
    if not (files.has(BASIS) and files.has(HEADS)):
        raise UsageError("this fleet's student is not of the low-rank form", hint="compile it as dlinear")
    rank = int(manifest["student"]["config"]["rank"])
    with compiler_errors():
        basis = read_array(files, BASIS, MAX_WEIGHTS_BYTES, (rank + 1,), "<f4")
        heads = read_array(files, HEADS, MAX_WEIGHTS_BYTES, (rank + 1, horizon), "<f4")
    if len(basis) != lookback or len(heads) != fleet.slots:
        raise VerificationError(f"{BASIS} and {HEADS} do not fit the task of {MANIFEST}")
    student = LowRankMap(lookback, horizon, 1, rank)
    state = {
        "basis": torch.from_numpy(basis.copy()),
        "heads": torch.from_numpy(heads[slot : slot + 1].copy()),
    }
    student.load_state_dict(state)
    drawn = synthetic_data(step, lookback=lookback, horizon=horizon, variates=(item,), windows=WINDOWS)
    values = drawn.values * std + mean
    data = replace(
        drawn, values=values, mean=np.array([mean]), std=np.array([std]), name=item, unmeasured=CUT
    )
    facts = {
        "fleet_member": {
            "item": item,
            "slot": task["variates"][slot],
            "of": hashlib.sha256((files.directory / SUMS).read_bytes()).hexdigest(),
        }
    }
    return CompileUnit(
        Task(lookback, horizon, (item,), step),
        data,
        teacher_info=_teacher(manifest),
        student=student.eval(),
        facts=facts,
    )


def _teacher(manifest: dict[str, Any]) -> TeacherInfo:
    """Provenance, as the fleet's manifest has it."""
    found = manifest["teacher"]
    return TeacherInfo(
        name=found["name"],
        family=found["family"],
        parameters=found["parameters"],
        sha256=found["sha256"],
        licence=found["licence"],
        commercial=bool(manifest["licence"]["commercial"]),
        source=found["source"],
        revision=found.get("revision") or "",
        commit=found.get("commit") or "",
        pretraining_overlap=found["pretraining_overlap"],
    )
