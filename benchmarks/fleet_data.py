"""Makes the panel of the fleet benchmark: meters in the long format, with gaps and different starts.

    python benchmarks/fleet_data.py meters.csv --items 500 --rows 1100 --seed 0

A meter is one of a few kinds (homes, offices, shops that close on Sunday, street lights, pumps), each with
a daily profile of its own, shifted and stretched, a weekend, a slow drift and noise that remembers.  All
have as many rows; their starts differ by up to a tenth of them, some rows are missing, some cells empty.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

KINDS = 5
FIRST = np.datetime64("2024-01-01T00:00", "h")
MISSING_ROWS, EMPTY_CELLS = 0.01, 0.005


def meter(kind: int, rows: int, start: int, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """``rows`` hourly values of one meter, the first of them ``start`` hours after the first of the panel."""
    hours = start + np.arange(rows)
    phase = draw.normal(0, 0.7)
    day = (hours + phase) % 24 / 24
    weekend = (hours // 24) % 7 >= 5
    profile = np.random.default_rng([7, kind])  # that of the kind, whatever the meter
    curve = sum(
        amplitude * np.sin(2 * np.pi * (harmonic * day + angle))
        for harmonic, amplitude, angle in zip(
            range(1, 6), profile.normal(0, 1, 5) / np.arange(1, 6), profile.uniform(0, 1, 5), strict=True
        )
    )
    at_weekend = (0.9, 0.25, 0.7, 1.0, 0.5)[kind]
    shape = curve * np.where(weekend, at_weekend, 1.0) * draw.uniform(0.7, 1.3)
    noise = np.zeros(rows)
    kick = draw.normal(0, (0.35, 0.15, 0.25, 0.05, 0.4)[kind], rows)
    for at in range(1, rows):
        noise[at] = (0.6, 0.9, 0.75, 0.3, 0.95)[kind] * noise[at - 1] + kick[at]
    drift = draw.normal(0, 0.3) * np.sin(2 * np.pi * hours / (24 * draw.uniform(30, 90)))
    level, size = np.exp(draw.normal(1, 1)), np.exp(draw.normal(0, 1))
    values: npt.NDArray[np.float64] = level + size * (shape + noise + drift)
    return values


def write_meters(path: Path, items: int, rows: int, seed: int = 0) -> None:
    """A CSV of ``unique_id, ds, y``, one meter after the other."""
    with path.open("w", encoding="utf-8") as out:
        out.write("unique_id,ds,y\n")
        for number in range(items):
            draw = np.random.default_rng([seed, number])
            start = int(draw.integers(0, max(1, rows // 10)))
            values = meter(number % KINDS, rows, start, draw)
            kept = draw.random(rows) >= MISSING_ROWS
            empty = draw.random(rows) < EMPTY_CELLS
            stamps = np.datetime_as_string(FIRST + start + np.arange(rows), unit="m")
            cells = ["" if nothing else f"{value:.4f}" for nothing, value in zip(empty, values, strict=True)]
            out.writelines(
                f"meter{number},{stamps[at].replace('T', ' ')}:00,{cells[at]}\n"
                for at in np.flatnonzero(kept)
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_meters(given.out, given.items, given.rows, given.seed)


if __name__ == "__main__":
    main()
