"""What the files of a build are called; known without TVM, which not everybody has who names the target."""

from __future__ import annotations

from ..native.boards import ELF

SHARED, ARCHIVE, HEADER, EXAMPLE, VM = (
    "model.so",
    "libtsfmc_model.a",
    "tsfmc_model.h",
    "main.c",
    "model_vm.so",
)
STATIC_BINARY = "predict"
BINARIES = (STATIC_BINARY, ELF)
"""The example, on Linux or on a board: run to check the rest, and no part of the payload."""
