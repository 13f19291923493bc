"""The c target: the student as readable C99, one ``.c`` and one ``.h``.  Start at ``target.py``."""

from .target import TARGET, CTarget

__all__ = ["TARGET", "CTarget"]
