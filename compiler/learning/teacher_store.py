"""The teacher store: a teacher's outputs over every window, computed once, memory-mapped ever after.

    STORE/
      plan.json                 what is computed: teacher, data, task, sizes (written first)
      train/forecast.npy        [N, D, H] float32
      train/states.npy          [N, D, S, d] float16 or float32; S may be a seeded subset
      train/quantiles.npy       [N, D, H, Q] float32, where the teacher has them
      val/..., test/...         forecasts and quantiles
      shards/train-00000.json   a finished shard: hashes of its bytes and sums of its states
      store.json                everything above, written last: a store without it is never read

Windows go in shards of a fixed size, and a shard is always computed in the same batches, so that any
number of processes gives the same bytes.  A killed run goes on with the shards that are missing, or whose
bytes are not those of their mark.  One run at a time writes a store; another waits, and finds it finished.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from ..base.content import code_key, content_key
from ..base.errors import DataError, TsfmcError, VerificationError
from ..base.executors import Executor, Local
from ..base.parallel import Processes
from ..base.progress import Progress
from ..base.reading import read_json, read_model
from ..base.sealed import exclusive, mapped, sealed, write_text
from ..data import Dataset
from ..data.splits import PARTS, Part
from ..ir.effects import plugin_code
from ..ir.forecaster import Teacher
from ..ir.provenance import TeacherInfo
from ..ir.teacher_store import SCHEMA, SHARD_WINDOWS, TeacherStore, digest_of, shard_digests
from ..ir.unit import fingerprint
from .labelling import Labelled, Labelling, StoreOptions, labelled_windows


class ShardMark(BaseModel, extra="forbid"):
    """What is left of a finished shard.

    Attributes:
        windows: the first, and the one after the last.
        sha256: array -> hash of the shard's bytes.
        state_sums: ``[2, d]`` sums of the states and of their squares, where there are any.
    """

    windows: tuple[int, int]
    sha256: dict[str, str]
    state_sums: list[list[float]] | None


def store_key(
    teacher: Teacher, info: TeacherInfo, data: Dataset, lookback: int, horizon: int, options: StoreOptions
) -> str:
    """Content key of a store: equal keys hold equal outputs."""
    weights = (type(teacher).__name__, dict(teacher.config), fingerprint(teacher))
    return content_key(
        SCHEMA,
        info.name,
        weights,
        str(data),
        data.sha256,
        lookback,
        horizon,
        asdict(options),
        code_key("compiler/frontends"),
        *plugin_code(type(teacher)),
    )


def write_store(
    folder: Path,
    teacher: Teacher,
    info: TeacherInfo,
    data: Dataset,
    *,
    lookback: int,
    horizon: int,
    options: StoreOptions,
    progress: Progress,
    processes: Processes,
    executor: Executor | None = None,
    measure_latency: Callable[[], Mapping[str, Any]] | None = None,
    replace: bool = False,
) -> TeacherStore:
    """Computes what is missing of a store and finishes it.

    Args:
        processes: the windows are dealt to them shard by shard.
        executor: what computes the shards of this process, which alone writes them; None for itself.
        measure_latency: gives the teacher's latency record, kept for compiles without the teacher.
        replace: the folder is this store's alone: whatever is damaged in it is written anew.

    Raises:
        DataError: the disk is too small, or the folder holds a store of something else.
        VerificationError: the teacher gave values that are not finite, or overflow ``states_dtype``.
    """
    executor = executor or Local()
    key = store_key(teacher, info, data, lookback, horizon, options)
    counts: dict[str, int] = {
        part: len(labelled_windows(data, part, lookback, horizon, options)) for part in PARTS
    }
    shapes = _shapes(teacher, data, lookback, horizon, options, counts)
    plan = {
        "schema": SCHEMA,
        "key": key,
        "task": {"data": str(data), "data_sha256": data.sha256, "lookback": lookback, "horizon": horizon},
        "counts": counts,
        "shapes": {n: [list(s), t] for n, (s, t) in shapes.items()},
    }
    shards = [(part, start) for part in PARTS for start in range(0, counts[part], SHARD_WINDOWS)]
    with ExitStack() as alone:
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            alone.enter_context(
                exclusive(folder, lambda: progress.line(f"    waiting for who writes {folder}"))
            )
            if replace:
                _clear_damaged(folder, plan)
            _prepare(folder, plan, shapes, progress)
        processes.wait()
        mine = shards[processes.rank :: processes.world]
        missing = [shard for shard in mine if not _is_done(folder, shapes, *shard)]
        if processes.world > 1 and processes.is_main:
            progress.line(f"    windows dealt to {processes.world} processes")
        positions = _positions(shapes, teacher, data, lookback, horizon, options)
        labelling = Labelling(teacher, data, lookback, horizon, options, positions)
        with progress.task(f"teacher outputs ({info.name})", len(missing) * SHARD_WINDOWS) as task:
            for shard, labelled in zip(missing, executor.map(labelling, missing), strict=True):
                _write_shard(folder, shapes, *shard, labelled)
                task.advance(SHARD_WINDOWS)
        processes.wait()
        if processes.is_main:
            executor.rest()
            latency = measure_latency() if measure_latency is not None else None
            _finish(folder, plan, shards, info, teacher, shapes, latency)
        processes.wait()
    return TeacherStore(folder)


Shapes = dict[str, tuple[tuple[int, ...], str]]


def _positions(
    shapes: Shapes, teacher: Teacher, data: Dataset, lookback: int, horizon: int, options: StoreOptions
) -> Tensor | None:
    if not options.state_positions or "train/states" not in shapes:
        return None
    total = _probe(teacher, data, lookback, horizon).shape[2]
    generator = torch.Generator().manual_seed(options.seed)
    return torch.randperm(total, generator=generator)[: options.state_positions].sort().values


@torch.inference_mode()
def _probe(teacher: Teacher, data: Dataset, lookback: int, horizon: int) -> Tensor:
    past, _ = data.windows("train", lookback, horizon).batch([0])
    states = teacher.outputs(past).states
    if states is None:
        raise VerificationError(f"{type(teacher).__name__} gave no states")
    return states


def _shapes(
    teacher: Teacher,
    data: Dataset,
    lookback: int,
    horizon: int,
    options: StoreOptions,
    counts: Mapping[str, int],
) -> Shapes:
    variates = len(data.variates)
    shapes: Shapes = {}
    for part in PARTS:
        shapes[f"{part}/forecast"] = ((counts[part], variates, horizon), "float32")
        if teacher.quantile_levels:
            quantiles = (counts[part], variates, horizon, len(teacher.quantile_levels))
            shapes[f"{part}/quantiles"] = (quantiles, "float32")
    if options.states:
        _, _, positions, width = _probe(teacher, data, lookback, horizon).shape
        positions = min(options.state_positions or positions, positions)
        for part in options.states:
            shapes[f"{part}/states"] = ((counts[part], variates, positions, width), options.states_dtype)
    return shapes


def _clear_damaged(folder: Path, plan: Mapping[str, Any]) -> None:
    """Empties a folder that holds something else than this store, finished or begun."""
    try:
        if (folder / "plan.json").is_file() and _read_plan(folder) != plan:
            raise VerificationError(f"{folder}: another plan")
        if (folder / "store.json").is_file() and TeacherStore(folder).verify().key != plan["key"]:
            raise VerificationError(f"{folder}: another store")
    except TsfmcError:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read_plan(folder: Path) -> Any:
    return read_json(folder / "plan.json", what="plan of the teacher store", error=DataError)


def _prepare(folder: Path, plan: Mapping[str, Any], shapes: Shapes, progress: Progress) -> None:
    plan_file = folder / "plan.json"
    if plan_file.is_file():
        if _read_plan(folder) != plan:
            raise DataError(
                f"{folder}: holds a teacher store of another teacher, data set or task",
                hint="choose another folder, or delete this one",
            )
        for name, (shape, dtype) in shapes.items():
            path = folder / f"{name}.npy"
            if not path.is_file() or path.stat().st_size < _bytes(shape, dtype):
                _allocate(path, shape, dtype)  # its shards are not what their marks say, and are done again
        return
    total = sum(_bytes(shape, dtype) for shape, dtype in shapes.values())
    progress.line(f"    teacher store needs {total / 1e6:.0f} MB")
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if total > free:
        raise DataError(
            f"{folder}: the store needs {total / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free",
            hint="choose another folder, or keep less (train_windows, state_positions, states_dtype)",
        )
    (folder / "shards").mkdir(exist_ok=True)
    for name, (shape, dtype) in shapes.items():
        _allocate(folder / f"{name}.npy", shape, dtype)
    _write_json(plan_file, plan)


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _allocate(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Creates the array with its blocks reserved, so that a full disk shows here and not in a page fault."""
    path.parent.mkdir(exist_ok=True)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    del array
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink()
        raise DataError(
            f"{path}: cannot reserve {path.name}: {error.strerror}",
            hint="free disk space or choose another folder",
        ) from error


def _mark(folder: Path, part: str, start: int) -> Path:
    return folder / "shards" / f"{part}-{start // SHARD_WINDOWS:05d}.json"


def _is_done(folder: Path, shapes: Shapes, part: Part, start: int) -> bool:
    """Whether a shard is marked, and its bytes in every array are those of the mark."""
    path = _mark(folder, part, start)
    if not path.is_file():
        return False
    try:
        sha256 = _read_mark(path).sha256
    except VerificationError:
        return False
    arrays = {name.partition("/")[2] for name in shapes if name.startswith(f"{part}/")}
    return arrays == sha256.keys() and all(
        shard_digests(_shard(folder, f"{part}/{name}", shapes, start, "r")) == [digest]
        for name, digest in sha256.items()
    )


def _read_mark(path: Path) -> ShardMark:
    return read_model(path, ShardMark, what="mark of a shard", error=VerificationError)


def _shard(folder: Path, name: str, shapes: Shapes, start: int, mode: Literal["r", "r+"]) -> np.ndarray:
    """The windows of one shard in an array on disk."""
    path = folder / f"{name}.npy"
    with path.open("rb" if mode == "r" else "r+b") as file:
        array = mapped(file, *shapes[name], path.stat().st_size, mode)
    return array[start : start + SHARD_WINDOWS]


def _write_shard(folder: Path, shapes: Shapes, part: Part, start: int, labelled: Labelled) -> None:
    """Puts a shard in its place, then its mark."""
    digests = {}
    for name, block in labelled.blocks.items():
        target = _shard(folder, f"{part}/{name}", shapes, start, "r+")
        target[:] = block
        target.flush()  # type: ignore[attr-defined]
        (digests[name],) = shard_digests(block)
    mark = {
        "windows": [start, start + len(labelled.blocks["forecast"])],
        "sha256": digests,
        "state_sums": labelled.state_sums,
    }
    _write_json(_mark(folder, part, start), mark)


def _finish(
    folder: Path,
    plan: Mapping[str, Any],
    shards: Sequence[tuple[Part, int]],
    info: TeacherInfo,
    teacher: Teacher,
    shapes: Shapes,
    latency: Mapping[str, Any] | None,
) -> None:
    marks = {shard: _read_mark(_mark(folder, *shard)) for shard in shards}
    record = {
        **plan,
        "teacher": asdict(info),
        "quantile_levels": list(teacher.quantile_levels),
        "latency": latency,
    }
    state_shape = shapes["train/states"][0] if "train/states" in shapes else None
    record["state_shape"] = list(state_shape[2:]) if state_shape else [0, 0]
    if state_shape:
        # Summed in the order of the shards, whoever computed them: equal bytes for any number of processes.
        sums = sum(
            torch.tensor(mark.state_sums).double() for (part, _), mark in marks.items() if part == "train"
        )
        mean, square = sums / (state_shape[0] * state_shape[1] * state_shape[2])  # type: ignore[misc]
        record["state_mean"] = mean.tolist()
        record["state_std"] = (square - mean.square()).clamp_min(0).sqrt().tolist()
    record["files"] = {
        f"{name}.npy": {
            "bytes": (folder / f"{name}.npy").stat().st_size,
            "sha256": digest_of(
                [m.sha256[name.split("/")[1]] for (p, _), m in marks.items() if p == name.split("/")[0]]
            ),
        }
        for name in shapes
    }
    _write_json(folder / "store.json", sealed(record))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True))
