"""Forecaster: an artifact that was checked and loaded, from raw units to raw units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.data.levels import MEDIAN
from ....compiler.data.scaling import Scaling
from .arrays import read_array
from .check import find_problems, open_files
from .engine import Engine
from .errors import ArtifactError, EngineError, InputError
from .files import MAX_MANIFEST_BYTES
from .fleet import Fleet
from .inputs import encode_inputs
from .manifest import MANIFEST, inputs_of, is_number, outputs_of, parse_manifest
from .rows import History
from .signature import check_signature
from .stream import Stream

MAX_VECTOR_BYTES = 256 << 20
SELFTEST_PAST, SELFTEST_FORECAST = "selftest/past.npy", "selftest/forecast.npy"


def window_scale(past: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Scale ``[B]`` of each window: max |past| + max |forecast| over ``past [B, D, L], forecast [B, D, H]``.

    An engine may differ from the model by ``tolerance`` times this.  Rounding errors are proportional to
    the numbers that enter a sum as much as to its result, so the past counts too: where a forecast
    cancels to nearly nothing, its own size alone would ask for more digits than float32 has.  No
    absolute term is added, which would let any error pass on windows of tiny numbers.
    """
    scale: np.ndarray = np.abs(past).max(axis=(1, 2)) + np.abs(forecast).max(axis=(1, 2))
    return scale


class Forecaster:
    """The artifact in ``directory``, checked and loaded.

    Args:
        directory: the artifact; by default the folder of this file.
        threads: threads of the engine.
        engine: another engine class than the one packed into this file.
        trust: a public key (PEM); an artifact that its owner has not signed is refused before it is loaded.

    Attributes:
        manifest: the manifest as plain dictionaries.
        quantile_levels: Q levels, ascending; empty where a step has one number.
        engine: the program alone, ``[B, D, L] -> [B, D, H Q]`` float32 in scaled units.
        scaling: from raw to scaled units and back.
        fleet: who has which slot of the program, None where variates are what they are.

    Raises:
        ArtifactError: a file is missing, truncated, edited, not listed or not signed as asked for.
        EngineError: the target's runtime is not installed here, or cannot load the payload.
    """

    def __init__(
        self,
        directory: Path | None = None,
        threads: int = 1,
        engine: Callable[..., Callable[[np.ndarray], np.ndarray]] | None = None,
        trust: Path | None = None,
    ) -> None:
        engine = engine or Engine
        self.directory = Path(directory) if directory is not None else Path(__file__).resolve().parent
        self.files = open_files(self.directory, getattr(engine, "device_files", ()))
        if trust is not None:
            check_signature(self.files, Path(trust))
        self.manifest = parse_manifest(self.files.read(MANIFEST, MAX_MANIFEST_BYTES))
        task = self.manifest["task"]
        self.lookback: int = task["lookback"]
        self.horizon: int = task["horizon"]
        self.variates: tuple[str, ...] = tuple(task["variates"])
        self.quantile_levels: tuple[float, ...] = tuple(task.get("quantile_levels") or ())
        self.inputs: int = inputs_of(task) - self.lookback
        self.scaling = Scaling(self.manifest["input"]["mean"], self.manifest["input"]["std"])
        self.fleet = Fleet(self.files, self.manifest) if "fleet" in self.manifest else None
        if threads < 1:
            raise InputError(f"threads: expected at least 1, got {threads}")
        try:
            self.engine = engine(self.files, self.manifest, threads)
        except ArtifactError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            entry = self.manifest["target"]["entry"]
            raise ArtifactError(f"{self.directory}: {MANIFEST} and {entry} do not fit: {reason}") from error
        except Exception as error:  # every runtime has its own; the files are intact, so it is this device
            reason = " ".join(str(error).split())[:300]
            raise EngineError(
                f"the engine cannot be loaded here: {reason} (this artifact needs {self._needs()})"
            ) from error

    def forecast(
        self,
        past: np.ndarray,
        id: str | Sequence[str] | None = None,
        first_step: datetime | None = None,
        columns: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> np.ndarray:
        """``[D, L]`` -> ``[D, H]`` or ``[B, D, L]`` -> ``[B, D, H]``, float64, in the units of the data.

        With quantile levels a step has Q numbers, ascending: ``[D, H, Q]`` or ``[B, D, H, Q]``.

        Args:
            past: for an artifact with inputs either the pasts of one forecast, beside ``first_step`` and
                ``columns``, or rows ``[.., D, L + E]`` that have the inputs of ``encode_inputs`` behind them.
            id: of a fleet's item, whose window is ``[L]``, or the names of several, ``[N, L]``; an item that
                nobody has seen gets the fleet's head, or with longer windows the one that fits them best.
            first_step, columns: see ``encode_inputs``.

        Raises:
            InputError: another shape, a value that is not a finite number, or an id and no fleet.
        """
        if id is not None:
            return self._of_items(past, id)
        if self.inputs and np.shape(past)[-1:] == (self.lookback,):
            inputs = encode_inputs(self.manifest["task"], first_step, columns or {})
            past = self._with_inputs(np.asarray(past), inputs)
        windows = self._checked(past)
        forecast = self.scaling.unscale(self._in_scaled_units(self._scaled(windows)))
        if self.quantile_levels:
            forecast = forecast.reshape(*forecast.shape[:2], self.horizon, len(self.quantile_levels))
        result: np.ndarray = forecast[0] if np.ndim(past) == 2 else forecast
        return result

    def point(self, past: np.ndarray) -> np.ndarray:
        """One number a step, as ``forecast`` without levels: its mean, or the median of the quantiles."""
        forecast = self.forecast(past)
        return forecast[..., self.quantile_levels.index(MEDIAN)] if self.quantile_levels else forecast

    def _of_items(self, past: np.ndarray, id: str | Sequence[str]) -> np.ndarray:
        """``[T] -> [H]`` of one item of a fleet, ``[N, T] -> [N, H]`` of several."""
        if self.fleet is None:
            raise InputError("id: this artifact has no items, its windows are [D, L]")
        names = [id] if isinstance(id, str) else list(id)
        windows = np.asarray(past, dtype=np.float64)
        leading = () if isinstance(id, str) else (len(names),)
        fits = windows.shape[:-1] == leading and windows.shape[-1:] >= (self.lookback,)
        if not fits or not names or not np.isfinite(windows).all():
            raise InputError(
                f"past has shape {list(windows.shape)}, expected finite numbers of shape "
                f"{[*leading, self.lookback]} or longer"
            )
        values = self.fleet.forecast(self._in_scaled_units, np.atleast_2d(windows), names)
        result: np.ndarray = values[0] if isinstance(id, str) else values
        return result

    def forecast_histories(self, histories: dict[str, History]) -> np.ndarray:
        """``[N, H]`` of a fleet's items, of the rows that were read for each."""
        known = [name for name in histories if self.fleet is not None and name in self.fleet]
        found = {}
        if known:
            past = np.stack([histories[name].values[0] for name in known])
            found = dict(zip(known, self.forecast(past, known)))
        for name, history in histories.items():
            if name not in found:  # each as long as its rows are
                found[name] = self.forecast(history.values[0], name)
        return np.stack([found[name] for name in histories])

    def stream(self, missing: str | None = None) -> Stream:
        """A window that rows are pushed into one by one; ``missing`` None is the artifact's own policy."""
        return Stream(self.manifest["task"], self.forecast, missing)

    def verify(self) -> list[str]:
        """What is wrong with the files now, one line each; empty when the artifact is intact."""
        return list(find_problems(self.directory, self.files.device_files))

    def selftest(self) -> dict[str, Any]:
        """Compares with the forecasts of the original PyTorch model that travel with the artifact.

        Returns:
            ``windows``, ``max_abs`` (scaled units), ``max_rel`` (of ``window_scale``), ``tolerance`` and
            ``passed``.
        """
        part = self.manifest.get("selftest")
        tolerance: Any = part.get("tolerance") if isinstance(part, dict) else None
        if not is_number(tolerance) or not 0 < tolerance < 1:
            raise ArtifactError(
                f"{MANIFEST} field selftest.tolerance: expected a number in (0, 1), got {tolerance!r}"
            )
        scaled, expected = self.selftest_windows()
        error = np.abs(self._in_scaled_units(scaled) - expected)
        scale = window_scale(scaled, expected)
        relative = error.max(axis=(1, 2)) / np.where(scale > 0, scale, 1.0)
        return {
            "windows": len(scaled),
            "max_abs": float(error.max()),
            "max_rel": float(relative.max()),
            "tolerance": tolerance,
            "passed": bool((relative <= tolerance).all()),
        }

    def selftest_windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows ``[N, D, L]`` and the original model's forecasts ``[N, D, H]``, scaled."""
        past = self._vectors(SELFTEST_PAST, self.lookback + self.inputs)
        expected = self.scaling.scale(self._vectors(SELFTEST_FORECAST, outputs_of(self.manifest["task"])))
        if len(past) != len(expected):
            raise ArtifactError(f"{SELFTEST_FORECAST} has {len(expected)} windows, expected {len(past)}")
        return self._scaled(self._checked(past)), expected

    def example_windows(self, count: int) -> np.ndarray:
        """``[count, D, L]`` float32, scaled: the self-test's real windows, each rolled by another time."""
        vectors = self._scaled(self._vectors(SELFTEST_PAST, self.lookback + self.inputs))
        rolled = [np.roll(vectors[n % len(vectors)], 7 * n, axis=-1) for n in range(count)]
        return np.stack(rolled).astype(np.float32)

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        """Raw rows ``[..., D, L + E]`` in the units of the model, which inputs are in already."""
        if not self.inputs:
            return self.scaling.scale(rows)
        past = self.scaling.scale(rows[..., : self.lookback])
        return np.concatenate([past, rows[..., self.lookback :]], axis=-1)

    def _with_inputs(self, past: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        shared = np.broadcast_to(inputs, (*past.shape[:-1], len(inputs)))
        return np.concatenate([past, shared], axis=-1)

    def _checked(self, past: np.ndarray) -> np.ndarray:
        """``past`` as float64 ``[B, D, L]``."""
        try:
            windows = np.asarray(past, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("past: expected an array of numbers") from None
        variates, lookback = len(self.variates), self.lookback + self.inputs
        if windows.ndim not in (2, 3) or windows.shape[-2:] != (variates, lookback) or windows.shape[0] == 0:
            raise InputError(
                f"past has shape {list(windows.shape)}, expected [D, L] = [{variates}, {lookback}] "
                f"or [B, D, L], variates in the order {', '.join(self.variates[:8])}"
            )
        windows = windows.reshape(-1, variates, lookback)
        bad = np.argwhere(~np.isfinite(windows))
        if len(bad):
            window, variate, step = bad[0]
            raise InputError(
                f"past: variate {self.variates[variate]!r}, window {window}, step {step} is "
                f"{windows[window, variate, step]}, expected a finite number"
            )
        return windows

    def _in_scaled_units(self, past: np.ndarray) -> np.ndarray:
        """``[B, D, L]`` -> ``[B, D, H Q]`` float64, through the engine."""
        with np.errstate(over="ignore"):
            windows = np.ascontiguousarray(past, dtype=np.float32)
        if not np.isfinite(windows).all():
            raise InputError("past: the scaled values do not fit into float32")
        forecast = np.asarray(self.engine(windows), dtype=np.float64)
        expected = (len(windows), len(self.variates), outputs_of(self.manifest["task"]))
        if forecast.shape != expected or not np.isfinite(forecast).all():
            raise ArtifactError(
                f"the engine returned shape {list(forecast.shape)}, "
                f"all finite: {bool(np.isfinite(forecast).all())}, "
                f"expected finite numbers of shape {list(expected)}"
            )
        return forecast

    def _needs(self) -> str:
        names = self.manifest.get("runtime_requirements")
        return ", ".join(map(str, names))[:300] if names and isinstance(names, list) else "no package"

    def _vectors(self, name: str, steps: int) -> np.ndarray:
        """Self-test vectors ``[N, D, steps]`` float64."""
        return read_array(self.files, name, MAX_VECTOR_BYTES, (len(self.variates), steps), "<f8")
