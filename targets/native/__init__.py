"""What the targets that give machine code share.

devices     by name: processor, tool chain, emulator, board
boards      an example for a board without an operating system, and what it measured
processor   what a choice of kernels needs to know of one
features    processor features by each name that somebody knows them by
engine      the library with one C interface, or TVM's virtual machine; pasted into run.py
static      a program at one shape, with operators written out
rewrites    those operators
centre      the window's mean taken round rounded weights
"""

from pathlib import Path

ENGINE = Path(__file__).with_name("engine.py")
"""``engine_source()`` of those targets; it is pasted and not imported."""
