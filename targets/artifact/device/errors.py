"""Errors: the closed list of what can go wrong on a device, with its exit codes."""

from __future__ import annotations


class ArtifactError(Exception):
    """The artifact is broken, truncated or edited."""

    exit_code = 5


class InputError(ValueError):
    """The history that was given cannot be forecast."""

    exit_code = 2


class EngineError(RuntimeError):
    """The engine cannot be loaded on this device: the target's runtime is missing, too old, or refuses."""

    exit_code = 3
