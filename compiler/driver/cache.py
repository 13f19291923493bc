"""The content-addressed cache: results of long passes, and folders for work in progress.

A key is the sha256 of everything that determines a result: the key of the unit before, the pass, its
options, the seed, and the source code of this package.  A result is written into a temporary sibling
and renamed, so that what is found is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ..ir.unit import CompileUnit
from ..students import from_config


@dataclass(frozen=True)
class CachedResult:
    """A stored result put back into a unit."""

    unit: CompileUnit
    metrics: Mapping[str, Any]


class PassCache:
    """Results of cacheable passes under ``root``: the modules that a pass changed, and its metrics."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def workspace(self, key: str) -> Path:
        """Folder for checkpoints of unfinished work with this key."""
        folder = self.root / "work" / key[:24]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, key: str, before: CompileUnit, after: CompileUnit, metrics: Mapping[str, Any]) -> None:
        """Keeps the modules in which ``after`` differs from ``before``; removes the workspace."""
        final = self.root / "passes" / key[:24]
        partial = final.with_name(f".{final.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if after.student is not None and after.student is not before.student:
            save_file(_state(after.student), partial / "student.safetensors")
            (partial / "student.json").write_text(json.dumps(after.student.config))
        if after.teacher is not None and after.teacher is not before.teacher:
            from ..frontends import save_teacher

            save_teacher(after.teacher, partial / "teacher")
        kept = {"metrics": dict(metrics), "clears_objective": not after.objective.terms}
        (partial / "result.json").write_text(json.dumps(kept))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        shutil.rmtree(self.workspace(key), ignore_errors=True)

    def load(self, key: str, before: CompileUnit) -> CachedResult | None:
        """The unit that the pass would make of ``before``, or None when it is not here."""
        folder = self.root / "passes" / key[:24]
        if not (folder / "result.json").is_file():
            return None
        kept = json.loads((folder / "result.json").read_text())
        unit = before
        if (folder / "student.json").is_file():
            student = from_config(json.loads((folder / "student.json").read_text()))
            student.load_state_dict(load_file(folder / "student.safetensors"), strict=True)
            unit = unit.with_(student=student.eval())
        if (folder / "teacher").is_dir():
            from ..frontends import load_teacher

            task = before.task
            teacher = load_teacher(
                folder / "teacher", lookback=task.lookback, horizon=task.horizon, variates=len(task.variates)
            )
            unit = unit.with_(teacher=teacher)
        if kept["clears_objective"]:
            unit = unit.with_(objective=type(before.objective)())
        return CachedResult(unit, kept["metrics"])


def _state(module: Any) -> dict[str, Any]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
