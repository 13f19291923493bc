"""Checkpoints on disk: a directory with ``config.json`` and ``model.safetensors``, read strictly.

1. What the configuration asks for is compared with the weights' header before it is built (``outline.py``).
2. The module is constructed by its family's frontend (``recognise.py`` finds it) and then
   filled (construct, then load: buffers that no file holds keep the values the constructor gave them).
3. Every tensor of the module must be in the file, with its shape, and no other; values are cast to the
   module's float32 and must be finite.
4. Nothing pickled is ever opened.

What tsfmc adds to an upstream configuration stands under the key ``tsfmc``: ``family``, the task
(``lookback``, ``horizon``, ``variates``), ``options`` (of the family, defaults filled in, so that nothing
has to be said again), ``kept`` (see :class:`~..prunable.Kept`) and ``origin`` (where the weights came from
and their licence).  A pruned teacher is a directory like any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..base.errors import MissingError, TeacherError
from ..base.reading import read_json, validated
from ..base.sealed import placed, write_text
from ..ir.forecaster import Teacher
from .base import Frontend
from .outline import check_integers

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TASK = ("lookback", "horizon", "variates")


class Origin(BaseModel, extra="allow"):
    """Where the weights came from; absent fields are filled in by the family."""

    name: str = ""
    licence: str = ""
    commercial: bool = False
    source: str = ""
    commit: str = ""


class Own(BaseModel, extra="allow"):
    """The types of what tsfmc adds to a configuration."""

    family: str | None = None
    lookback: int | None = Field(default=None, ge=1)
    horizon: int | None = Field(default=None, ge=1)
    variates: int | None = Field(default=None, ge=1)
    origin: Origin = Origin()


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a checkpoint.

    Raises:
        TeacherError: it is absent or not a JSON object, or what tsfmc added to it is malformed.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise TeacherError(f"{directory} has no {CONFIG}", hint=f"a checkpoint is {CONFIG} and {WEIGHTS}")
    config = _json_object(path)
    own = _table(config, "tsfmc", path)
    for name in ("options", "origin"):
        _table(own, name, path)
    if not isinstance(own.get("family", ""), str):
        raise TeacherError(f"{path}: tsfmc.family is {str(own['family'])[:40]}, expected a name")
    for group, units in _table(own, "kept", path).items():
        if not isinstance(units, list) or any(type(unit) is not int or unit < 0 for unit in units):
            raise TeacherError(f"{path}: kept units of {group} are {units!r}, expected a list of indices")
        if len(set(units)) != len(units):
            raise TeacherError(f"{path}: kept units of {group} name a unit twice")
    validated(own, Own, what=f"{path}: tsfmc", error=TeacherError)
    check_integers(config, str(path))
    return config


def _table(parent: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise TeacherError(f"{path}: {name} is a {type(value).__name__}, expected an object")
    return value


def _json_object(path: Path) -> dict[str, Any]:
    value = read_json(path, what="configuration", error=TeacherError)
    if not isinstance(value, dict):
        raise TeacherError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def build_with(
    frontend: Frontend,
    config: Mapping[str, Any],
    *,
    lookback: int | None = None,
    horizon: int | None = None,
    variates: int | None = None,
    **options: Any,
) -> Teacher:
    """An untrained teacher of one family, in evaluation mode; its ``config`` rebuilds an equal one.

    Args:
        frontend: the family.
        config: upstream configuration, or the ``config`` of another teacher (whose task and options are
            the defaults here, so ``build_with(frontend, teacher.config)`` is enough).
        lookback: steps of the past.
        horizon: steps of the forecast.
        variates: number of variates.
        options: options of the family.

    Raises:
        TeacherError: the family cannot take the configuration or the task.
    """
    saved = config.get("tsfmc", {})
    task: dict[str, int] = {}
    for name, given in zip(_TASK, (lookback, horizon, variates), strict=True):
        value = saved.get(name) if given is None else given
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TeacherError(f"teacher {name} is {value!r}, expected a positive integer")
        task[name] = value
    options = {**saved.get("options", {}), **options}
    teacher = frontend.build(config, **task, **options)
    options |= teacher.options
    own = {**teacher.config.get("tsfmc", {}), **saved, "family": frontend.family, **task, "options": options}
    teacher.config = {**teacher.config, "tsfmc": own}
    return teacher.eval()


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards that its index names.

    Raises:
        TeacherError: there are none, only pickles, or the index points outside the directory.
        MissingError: a shard is absent.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        table = _json_object(directory / INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise TeacherError(f"{directory / INDEX} has no weight_map")
        shards = sorted({str(shard) for shard in table.values()})
        for shard in shards:
            if Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise TeacherError(
                    f"{directory / INDEX} names {shard!r}, expected a safetensors file beside it"
                )
            if not (directory / shard).is_file():
                raise MissingError(f"{directory} lacks the shard {shard} that {INDEX} names")
        return [directory / shard for shard in shards]
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise TeacherError(
            f"{directory} holds the pickle {pickles[0]} and no {WEIGHTS}; pickles can run code: not opened",
            hint=f"where you trust it, convert it once with safetensors.torch.save_file(state, '{WEIGHTS}')",
        )
    raise TeacherError(f"{directory} has no {WEIGHTS}", hint=f"a checkpoint is {CONFIG} and {WEIGHTS}")


def weights_sha256(files: Sequence[Path]) -> str:
    """Hex sha256 of the weights file; of the shards one after the other when there are several."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of the files.

    Raises:
        TeacherError: a file is truncated or is no safetensors file, or two shards hold the same tensor.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            part = load_file(path)
        except SafetensorError as error:
            raise TeacherError(f"{path} is not a readable safetensors file: {error}") from error
        if twice := sorted(state.keys() & part.keys()):
            raise TeacherError(f"{path} holds {twice[0]}, which another shard holds too")
        state.update(part)
    return state


def fill(teacher: Teacher, state: Mapping[str, Tensor], where: str) -> None:
    """Puts ``state`` into ``teacher``, strictly.

    Args:
        teacher: the constructed module.
        state: every tensor of the module, in the module's names.
        where: file or directory, for messages.

    Raises:
        TeacherError: tensors are missing, unexpected, of another shape, or not finite; at most three
            of each are named.
    """
    state = fitting(teacher, state, where)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TeacherError(f"{where}: tensor {name} holds values that are not finite")
    teacher.load_state_dict(state, strict=True)


def fitting(teacher: Teacher, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What of ``state`` is the module's, once names, shapes and kinds of numbers are found to be its own.

    Raises:
        TeacherError: see ``fill``.
    """
    own = teacher.state_dict()
    state = {name: tensor for name, tensor in state.items() if name not in teacher.dead_tensors}
    shapes = {name: list(tensor.shape) for name, tensor in own.items()}
    wrong = {
        "missing": [f"{name} {shapes[name]}" for name in own if name not in state],
        "unexpected": [f"{name} {list(state[name].shape)}" for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {shapes[name]}"
            for name in own
            if name in state and list(state[name].shape) != shapes[name]
        ],
        "of another type": [
            f"{name} {state[name].dtype} instead of {own[name].dtype}"
            for name in own
            if name in state and state[name].is_floating_point() != own[name].is_floating_point()
        ],
    }
    found = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in wrong.items()
        if names
    ]
    if found:
        raise TeacherError(
            f"{where}: the tensors do not fit the configuration ({'; '.join(found)})",
            hint="config and weights have to come from the same checkpoint",
        )
    return state


def rebuild_with(frontend: Frontend, teacher: Teacher, **options: Any) -> Teacher:
    """The same teacher with the same weights, built with other ``options`` (``drop_dead=True``)."""
    rebuilt = build_with(frontend, teacher.config, **options)
    fill(rebuilt, teacher.state_dict(), "teacher")
    return rebuilt


def save_teacher(teacher: Teacher, directory: Path | str) -> None:
    """Writes a checkpoint that :func:`~.loading.load_teacher` reads back to equal outputs.

    The configuration is written last, under its final name, so that an interrupted save is no checkpoint.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).unlink(missing_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in teacher.state_dict().items()
    }
    with placed(directory / WEIGHTS) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    write_text(directory / CONFIG, json.dumps(teacher.config, indent=1, sort_keys=True) + "\n")
