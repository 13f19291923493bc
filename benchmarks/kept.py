"""What a long benchmark has found so far, as JSON: a killed run loses one row, the next one goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path, nothing: dict[str, Any] | None = None) -> dict[str, Any]:
    """What was found before, or ``nothing``."""
    if not path.is_file():
        return dict(nothing or {})
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Replaces the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    partial.replace(path)
