"""Engine: in an artifact's ``run.py`` the target's ``class Engine`` takes the place of this part."""

from __future__ import annotations

from typing import Any

Engine: Any = None
