"""What an ONNX file says of itself: ``metadata_props``, for those who meet it without its manifest.

tsfmc.lookback, tsfmc.horizon            steps
tsfmc.variates                           names, JSON
tsfmc.frequency, tsfmc.step_seconds      of the rows, where known
tsfmc.missing                            policy for missing values: error, ffill or interpolate
tsfmc.scaling_mean, tsfmc.scaling_std    a number a variate, JSON
tsfmc.units                              scaled: the graph takes and gives (raw - mean) / std;  raw
tsfmc.licence                            what the teacher's licence leaves
tsfmc.contract_sha256                    of the manifest's task contract, see ``artifact/contract.py``
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..artifact.contract import contract_sha256

if TYPE_CHECKING:
    import onnx

PREFIX = "tsfmc."
UNITS, SCALED, RAW = f"{PREFIX}units", "scaled", "raw"


def task_metadata(contract: Mapping[str, Mapping[str, Any]], licence: str | None) -> dict[str, str]:
    """The properties of a task contract, those that are known, in the order of their names.

    Args:
        contract: ``task`` and ``input`` as a manifest has them.
        licence: SPDX.
    """
    task, scaling = contract["task"], contract["input"]
    values = {
        **task,
        "scaling_mean": scaling["mean"],
        "scaling_std": scaling["std"],
        "units": SCALED,
        "licence": licence,
        "contract_sha256": contract_sha256(contract),
    }
    return {f"{PREFIX}{name}": _text(value) for name, value in sorted(values.items()) if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def stamp(model: onnx.ModelProto, properties: Mapping[str, str]) -> onnx.ModelProto:
    """``model`` with exactly these properties."""
    stamped = type(model)()
    stamped.CopyFrom(model)
    del stamped.metadata_props[:]
    for name, value in sorted(properties.items()):
        stamped.metadata_props.add(key=name, value=value)
    return stamped


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Every property of a model."""
    return {each.key: each.value for each in model.metadata_props}


def in_raw_units(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model says that it takes and gives raw values, where it says anything."""
    properties = read_metadata(model)
    return stamp(model, {**properties, UNITS: RAW}) if UNITS in properties else model
