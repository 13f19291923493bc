"""The task contract of an artifact: what goes in, what comes out, and in which units.

    contract  =  of the manifest's ``task`` and ``input`` the fields of ``FIELDS``
    hash      =  sha256 of its JSON: keys sorted, separators ``,`` and ``:``, ASCII

A file of the payload cannot hold the hash of the whole manifest, which holds the hash of that file.  It holds
this one, which anybody can compute again from the manifest beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FIELDS: Mapping[str, tuple[str, ...]] = {
    "task": (
        "lookback",
        "horizon",
        "variates",
        "frequency",
        "step_seconds",
        "missing",
        "quantile_levels",
        "inputs",
    ),
    "input": ("mean", "std"),
}


def contract_of(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The contract in a manifest, or in anything that has those parts; an absent field is null."""
    return {part: {name: manifest[part].get(name) for name in names} for part, names in FIELDS.items()}


def contract_sha256(manifest: Mapping[str, Any]) -> str:
    """Hex sha256 of the contract in a manifest."""
    text = json.dumps(contract_of(manifest), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
