"""Paths of the command line, checked before anything opens them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import click

from ..base.paths import checked_path


class PathName(click.ParamType[Path]):
    """A path that the system can look at.

    Args:
        reads: refuse what cannot be read to an end, such as ``/dev/zero``; a pipe can.
    """

    name = "path"

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """``value`` as a path.

        Raises:
            UsageError: see ``checked_path``, or it is a device.
        """
        given_as = "path"
        if param is not None:
            given_as = param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name
        path = checked_path(value, given_as)
        if self.reads and _is_device(path):
            self.fail(f"{os.fspath(path)!r} is a device, expected a file or a directory", param, ctx)
        return path


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # whoever opens it says what is wrong
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


INPUT, OUTPUT = PathName(reads=True), PathName(reads=False)
