"""A measured choice of register tiles, on this machine only.

    for each product of the program, largest first:
      for the best few tiles by estimate: build, then time against the best so far, interleaved
      keep one only when the median ratio says faster by more than the noise
    at the end, time the result against the estimate's choice once more: slower means nothing is kept

Every finished product is written to a log beside the cache, so that an interrupted sweep goes on where
it stopped.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.base.errors import LoweringError
from ...compiler.base.sealed import read_sealed, sealed, warn_damaged, write_text
from ..native.devices import Device
from .names import SHARED
from .schedule import Sizes
from .tiles import Tile, ranked

if TYPE_CHECKING:
    from .job import Job

CANDIDATES = 6
MARGIN = 0.98
"""A tile must take less than this share of the best one's time to replace it."""
ROUNDS = 15


def parse_tiles(tiles: Mapping[str, Any] | None) -> dict[Sizes, Tile]:
    """``"m,k,n" -> [rows, vectors]`` as sizes and tiles."""
    found = {}
    for key, (rows, vectors) in (tiles or {}).items():
        m, k, n = (int(part) for part in key.split(","))
        found[m, k, n] = Tile(int(rows), int(vectors))
    return found


def tune(job: Job, device: Device, module: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """Sweeps; the answer has ``tiles`` (empty when nothing was faster), ``ratio`` and what was tried.

    Raises:
        LoweringError: the device is not this machine.
    """
    if not device.native:
        raise LoweringError(
            f"tvm: tuning for {device.name} needs that device, an emulator says nothing about speed",
            hint="tune on the device, or leave tune out",
        )
    bench = _Bench(job, device, module)
    log = Path(job.tune_log)
    done = _finished(log)
    start = bench.load({})
    products = sorted(start.products.items(), key=lambda item: -item[0][0] * item[0][1] * item[0][2])
    best = parse_tiles({key: value["tile"] for key, value in done.items() if value["tile"]})
    for number, (sizes, chosen) in enumerate(products):
        key = ",".join(map(str, sizes))
        if key in done:
            continue
        say(f"tuning product {number + 1} of {len(products)}: {key}")
        current, found = bench.load(best), None
        for tile in ranked(*sizes, device.processor)[:CANDIDATES]:
            if tile == chosen:
                continue
            candidate = bench.load({**best, sizes: tile})
            ratio = bench.ratio(candidate, current)
            if ratio < MARGIN:
                current, found = candidate, tile
                best = {**best, sizes: tile}
        done[key] = {"tile": [found.rows, found.vectors] if found else None}
        write_text(log, json.dumps(sealed({"products": done}), sort_keys=True))
    ratio = bench.ratio(bench.load(best), bench.load({})) if best else 1.0
    kept = best if ratio < MARGIN else {}
    say(f"tuned / estimated tiles: {ratio:.3f} of the time, {'kept' if kept else 'not kept'}")
    tiles = {",".join(map(str, sizes)): [tile.rows, tile.vectors] for sizes, tile in kept.items()}
    return {"tiles": tiles, "ratio": round(ratio, 4), "products": len(products)}


def _finished(log: Path) -> dict[str, Any]:
    """What an interrupted sweep has found, product by product; nothing where the log was damaged."""
    if not log.is_file():
        return {}
    try:
        products: dict[str, Any] = read_sealed(log, what="tuning log", error=LoweringError)["products"]
    except (LoweringError, KeyError) as error:
        warn_damaged(error)
        return {}
    return products


class _Loaded:
    def __init__(self, call: Callable[[], None], products: dict[Sizes, Tile], scratch: np.ndarray) -> None:
        self.call, self.products, self.scratch = call, products, scratch


class _Bench:
    def __init__(self, job: Job, device: Device, module: Any) -> None:
        self.job, self.device, self.module = job, device, module
        self.count = 0
        generator = np.random.default_rng(0)
        self.past = generator.standard_normal(job.shape).cumsum(-1).astype(np.float32)
        self.forecast = np.zeros((job.shape[0], job.shape[1], job.horizon), np.float32)

    def load(self, tiles: Mapping[Sizes, Tile]) -> _Loaded:
        """Builds with these tiles and opens the library."""
        from .arena import ALIGNMENT
        from .build import compile_kernels, link_shared
        from .emit_c import write_sources
        from .scheduled import program_of

        program = program_of(self.module, self.job, self.device, tiles)
        folder = Path(self.job.work) / f"tune{self.count}"
        self.count += 1
        folder.mkdir(parents=True, exist_ok=True)
        arena = write_sources(program, self.device, self.job.shape, self.job.horizon, folder)
        compile_kernels(program, self.device, folder / "kernels.o")
        link_shared(self.device, folder)
        predict = ctypes.CDLL(str(folder / SHARED)).tsfmc_forecast
        predict.argtypes = [ctypes.c_void_p] * 3
        scratch = np.empty(arena.size_bytes + ALIGNMENT, np.uint8)
        arguments = [each.ctypes.data for each in (self.past, self.forecast, scratch)]
        products = dict(each for kernel in program.kernels.values() for each in kernel.products)
        return _Loaded(lambda: predict(*arguments), products, scratch)

    def ratio(self, one: _Loaded, other: _Loaded) -> float:
        """Median over interleaved rounds of one's time over the other's."""
        calls = max(3, int(0.004 / max(self.seconds(other, 3), 1e-7)))
        return statistics.median(self.seconds(one, calls) / self.seconds(other, calls) for _ in range(ROUNDS))

    @staticmethod
    def seconds(loaded: _Loaded, calls: int) -> float:
        """Mean seconds of a call."""
        start = time.perf_counter()
        for _ in range(calls):
            loaded.call()
        return (time.perf_counter() - start) / calls
