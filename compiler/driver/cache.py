"""The content-addressed cache: results of long passes, and folders for work in progress.

A key is the sha256 of everything that determines a result: the content of the parts that the pass
declares to read, its code, its options and its random stream.  What is kept is exactly the parts that
it declares to write.  A result is written into a temporary sibling and renamed, its record is sealed, and
every file of it is found by its hash: an unfinished, damaged or edited result is no result; that is said in
one line, the pass runs again, and its result takes the place of the damaged one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..base.content import content_key, file_hash
from ..base.errors import MissingError, PassError, TsfmcError, VerificationError
from ..base.reading import read_json, validated
from ..base.sealed import publish, read_sealed, sealed, unfinished, warn_damaged
from ..data.inputs import InputGroup
from ..ir.effects import code_of, content_of
from ..ir.inputs import InputEffect
from ..ir.objective import LossTerm, Objective
from ..ir.passes import Step
from ..ir.teacher_store import TeacherStore
from ..ir.unit import CompileUnit, PartName
from ..learning.held_out import HeldOutForecasts
from ..students import from_config

RESULT = "result.json"
_DAMAGED = (
    TsfmcError,
    SafetensorError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
)
"""What reading a part raises that is not what was written, or that other versions of libraries wrote."""


class ResultRecord(BaseModel, extra="forbid"):
    """``result.json``: what a pass reported, and the sha256 of every file that it left."""

    key: str
    modified: bool
    metrics: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True)
class CachedResult:
    """A stored result put back into a unit."""

    unit: CompileUnit
    modified: bool
    metrics: Mapping[str, Any]


class Codec(Protocol):
    """Writes one part of a unit into a folder, and reads it back."""

    def save(self, unit: CompileUnit, folder: Path) -> None: ...

    def load(self, before: CompileUnit, folder: Path) -> Any: ...


def pass_key(step: Step, unit: CompileUnit, stream: int) -> str:
    """What the result of ``step`` on ``unit`` depends on.

    Args:
        stream: seed of the pass's own random stream.
    """
    parts: set[PartName] = {"task", *step.reads}
    read = {part: content_of(unit, part) for part in sorted(parts)}
    kind = type(step)
    return content_key(f"{kind.__module__}:{kind.__qualname__}", code_of(kind), step.config(), stream, read)


class PassCache:
    """Results of cacheable passes under ``root``: the parts that a pass writes, and its metrics."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def workspace(self, key: str) -> Path:
        """Folder for checkpoints of unfinished work with this key."""
        folder = self.root / "work" / key[:24]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(
        self, key: str, step: Step, after: CompileUnit, modified: bool, metrics: Mapping[str, Any]
    ) -> None:
        """Keeps the parts that ``step`` declares to write; removes the workspace."""
        final = self.root / "passes" / key[:24]
        partial = unfinished(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for part in sorted(step.writes) if modified else ():
            if getattr(after, part) is not None:
                (partial / part).mkdir()
                CODECS[part].save(after, partial / part)
        files = {name: file_hash(partial / name) for name in _files(partial)}
        kept = {"key": key, "modified": modified, "metrics": dict(metrics), "files": files}
        (partial / RESULT).write_text(json.dumps(sealed(kept)))
        publish(partial, final)
        shutil.rmtree(self.workspace(key), ignore_errors=True)

    def load(self, key: str, step: Step, before: CompileUnit) -> CachedResult | None:
        """The unit that ``step`` would make of ``before``, or None unless it is here, whole and unedited."""
        folder = self.root / "passes" / key[:24]
        if not folder.is_dir():
            return None
        try:
            kept = _intact(folder, key)
            if not kept.modified:
                return CachedResult(before, False, kept.metrics)
            changes: dict[str, Any] = {}
            for part in sorted(step.writes):
                here = folder / part
                changes[part] = CODECS[part].load(before, here) if here.is_dir() else _nothing(part)
        except MissingError:
            return None  # it refers to something that is gone, such as a teacher store
        except _DAMAGED as error:
            warn_damaged(f"{folder}: the cached result of {step.name} is not believed: {error}")
            return None
        return CachedResult(before.with_(**changes), True, kept.metrics)


def _intact(folder: Path, key: str) -> ResultRecord:
    """The record of a result, once every file was found to be what was written.

    Raises:
        VerificationError: naming what is not.
    """
    what = "record of a cached result"
    record = read_sealed(folder / RESULT, what=what, error=VerificationError, finite=False)
    kept = validated(record, ResultRecord, what=f"{folder / RESULT}: {what}", error=VerificationError)
    if kept.key != key:
        raise VerificationError(f"{folder}: it is the result of something else")
    if set(_files(folder)) != {*kept.files, RESULT}:
        raise VerificationError(f"{folder}: files were added or removed")
    for name, digest in kept.files.items():
        if file_hash(folder / name) != digest:
            raise VerificationError(f"{folder / name}: it was changed since it was written")
    return kept


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _json(path: Path) -> Any:
    return read_json(path, what="part of a cached result", error=VerificationError, finite=False)


def _nothing(part: PartName) -> Any:
    return Objective() if part == "objective" else None


class _Student:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        assert unit.student is not None
        _save_state(unit.student, folder / "student.safetensors")
        (folder / "student.json").write_text(json.dumps(dict(unit.student.config)))

    def load(self, before: CompileUnit, folder: Path) -> Any:
        student = from_config(_json(folder / "student.json"))
        student.load_state_dict(load_file(folder / "student.safetensors"), strict=True)
        return student.eval()


class _Effect:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        assert unit.effect is not None
        _save_state(unit.effect, folder / "effect.safetensors")
        (folder / "effect.json").write_text(json.dumps(unit.effect.config))

    def load(self, before: CompileUnit, folder: Path) -> Any:
        config = _json(folder / "effect.json")
        weight = load_file(folder / "effect.safetensors")["weight"]
        groups = [InputGroup(**group) for group in config["groups"]]
        return InputEffect(groups, weight, config["ridge"]).eval()


class _Teacher:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        from ..frontends import save_teacher

        assert unit.teacher is not None
        save_teacher(unit.teacher, folder / "checkpoint")

    def load(self, before: CompileUnit, folder: Path) -> Any:
        from ..frontends import load_teacher

        task = before.task
        return load_teacher(
            folder / "checkpoint", lookback=task.lookback, horizon=task.horizon, variates=len(task.variates)
        )


class _Objective:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        described = []
        for index, (weight, term) in enumerate(unit.objective):
            kind = type(term)
            described.append([weight, f"{kind.__module__}:{kind.__qualname__}", dict(term.config)])
            _save_state(term, folder / f"{index}.safetensors")
        (folder / "objective.json").write_text(json.dumps(described))

    def load(self, before: CompileUnit, folder: Path) -> Any:
        objective = Objective()
        for index, (weight, where, config) in enumerate(_json(folder / "objective.json")):
            module, _, name = where.partition(":")
            kind = getattr(import_module(module), name, None)
            if not (isinstance(kind, type) and issubclass(kind, LossTerm)):
                raise PassError(f"{where} is not a loss term", hint="compile again with --no-cache")
            term = kind.from_config(config)
            term.load_state_dict(load_file(folder / f"{index}.safetensors"), strict=True)
            objective = objective.put(weight, term)
        return objective


class _Store:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        assert unit.teacher_store is not None
        where = {"folder": str(unit.teacher_store.folder.resolve()), "key": unit.teacher_store.key}
        (folder / "store.json").write_text(json.dumps(where))

    def load(self, before: CompileUnit, folder: Path) -> Any:
        where = _json(folder / "store.json")
        store = TeacherStore(Path(where["folder"])).verify()
        if store.key != where["key"]:
            raise PassError(
                f"{store.folder} holds another store by now", hint="compile again with --no-cache"
            )
        return store


@dataclass(frozen=True)
class _Json:
    """A part that is JSON itself."""

    part: PartName

    def save(self, unit: CompileUnit, folder: Path) -> None:
        (folder / f"{self.part}.json").write_text(json.dumps(getattr(unit, self.part)))

    def load(self, before: CompileUnit, folder: Path) -> Any:
        return _json(folder / f"{self.part}.json")


class _HeldOut:
    def save(self, unit: CompileUnit, folder: Path) -> None:
        assert isinstance(unit.held_out, HeldOutForecasts)
        forecasts = torch.from_numpy(unit.held_out.forecasts)
        save_file({"forecasts": forecasts.contiguous()}, folder / "held_out.safetensors")

    def load(self, before: CompileUnit, folder: Path) -> Any:
        return HeldOutForecasts(load_file(folder / "held_out.safetensors")["forecasts"].numpy())


CODECS: Mapping[PartName, Codec] = {
    "student": _Student(),
    "effect": _Effect(),
    "teacher": _Teacher(),
    "objective": _Objective(),
    "teacher_store": _Store(),
    "setting": _Json("setting"),
    "tuned": _Json("tuned"),
    "held_out": _HeldOut(),
}
"""How each part is kept; a pass that writes another part cannot be cacheable."""


def _save_state(module: nn.Module, path: Path) -> None:
    save_file({n: t.detach().contiguous().clone() for n, t in module.state_dict().items()}, path)
