"""A low-rank student on emulated microcontrollers: flash, memory, instructions of a forecast.

    python benchmarks/c_on_microcontrollers.py

One variate of a weather-like student, lookback 512, horizon 96, by rank, precision and device.  Weights are
random: none of the figures hangs on them.  Instructions are counted by qemu, never a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from tsfmc.compiler.students import from_config
from tsfmc.targets import TARGETS
from tsfmc.targets.base import Shape

LOOKBACK, HORIZON = 512, 96
DEVICES = ("cortex-m4f", "cortex-m7", "cortex-m33", "rv32imc")
RESULTS = Path(__file__).parent / "results" / "c_on_microcontrollers.json"


def row(device: str, precision: str, rank: int) -> dict[str, object]:
    """One student, compiled and run on the emulated board."""
    config = {"kind": "low_rank_map", "lookback": LOOKBACK, "horizon": HORIZON, "variates": 1, "rank": rank}
    torch.manual_seed(0)
    model = from_config(config).eval()
    with torch.no_grad():  # as a fold leaves it: rows that sum to zero, and the mean in the last one
        model.basis.normal_(std=0.05).sub_(model.basis.mean(0))
        model.basis[:, -1] = 1 / LOOKBACK
        model.heads.normal_(std=0.3)[:, -1] = 1
    past = np.random.default_rng(0).normal(size=(16, 1, LOOKBACK)).cumsum(-1).astype(np.float32) / 4
    target = TARGETS["c"]
    with tempfile.TemporaryDirectory() as folder:
        payload = target.lower_model(
            model,
            Shape(1, LOOKBACK, HORIZON),
            Path(folder),
            options=target.Options(device=device, precision=precision),
            calibration=past,
        )
    sizes, check = payload.details["sizes"], payload.details["cross_check"]
    return {
        "device": device,
        "precision": precision,
        "rank": rank,
        "flash_bytes": sizes["example_flash_bytes"],
        "scratch_bytes": sizes["scratch_bytes"],
        "static_ram_bytes": sizes["object_static_ram_bytes"],
        "stack_bytes": check["emulated"]["stack_bytes"],
        "instructions": check["emulated"]["instructions"],
        "multiply_adds": payload.details["multiply_adds"],
        "max_rel": check["max_rel"],
    }


def main() -> None:
    """Writes the table to stdout and the rows to ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 24])
    parser.add_argument("--devices", nargs="+", default=list(DEVICES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8-weights"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for device in arguments.devices:
        for precision in arguments.precisions:
            for rank in arguments.ranks:
                rows.append(row(device, precision, rank))
                print(" ".join(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
