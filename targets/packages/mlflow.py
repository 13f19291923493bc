"""``mlflow``: an MLflow model of flavour python_function, without a pickle and without MLflow to write it.

MLmodel                    loader, signature, environment
code/tsfmc_forecaster.py   starts the artifact's own runner
artifact/...               the artifact, which checks its hashes when it is loaded
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .layout import Layout, Packed

LOADER = '''\
"""Loads a tsfmc artifact for MLflow: past [B, D, L] to forecast [B, D, H], in the units of the data.

Where the artifact forecasts quantiles, a step has several numbers: [B, D, H, Q].
"""

import sys
import types
from pathlib import Path

import numpy as np


class Model:
    """The artifact, checked and loaded by the runner that it carries."""

    def __init__(self, directory):
        runner = types.ModuleType("tsfmc_artifact_runner")
        runner.__file__ = str(Path(directory) / "run.py")
        sys.modules[runner.__name__] = runner
        # Compiled here and not imported: an import would leave a file of bytecode in the artifact.
        exec(compile(Path(runner.__file__).read_bytes(), runner.__file__, "exec"), runner.__dict__)
        self.forecaster = runner.Forecaster(Path(directory))

    def predict(self, model_input, params=None):
        past = next(iter(model_input.values())) if isinstance(model_input, dict) else model_input
        return self.forecaster.forecast(np.asarray(past, dtype=np.float64))


def _load_pyfunc(path):
    return Model(path)
'''


class MlflowModel(Layout):
    """A directory that ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` take."""

    name: ClassVar[str] = "mlflow"
    summary: ClassVar[str] = "MLflow model: python_function without a pickle, with a signature"
    usual: ClassVar[Mapping[str, object]] = {"inputs": None}

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the model."""
        requirements = ["mlflow-skinny", "pandas", *artifact.manifest.get("runtime_requirements", ())]
        lines = "".join(f"{line}\n" for line in requirements)
        (path / "requirements.txt").write_text(lines, encoding="utf-8")
        (path / "python_env.yaml").write_text(_environment(), encoding="utf-8")
        (path / "MLmodel").write_text(_description(artifact), encoding="utf-8")
        (path / "code").mkdir()
        (path / "code" / "tsfmc_forecaster.py").write_text(LOADER, encoding="utf-8")
        artifact.copy_to(path / "artifact")


def _environment() -> str:
    return f'python: "{platform.python_version()}"\ndependencies:\n- -r requirements.txt\n'


def _description(artifact: Packed) -> str:
    past, forecast = artifact.shapes
    return f"""\
flavors:
  python_function:
    loader_module: tsfmc_forecaster
    code: code
    data: artifact
    env:
      virtualenv: python_env.yaml
    python_version: {platform.python_version()}
signature:
  inputs: '{_tensor("past", past)}'
  outputs: '{_tensor(None, forecast)}'
"""


def _tensor(name: str | None, shape: tuple[int, ...]) -> str:
    spec: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, *shape]}}
    return json.dumps([spec if name is None else {"name": name, **spec}])
