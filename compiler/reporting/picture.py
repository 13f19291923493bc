"""A matrix of signed numbers as a PNG: blue below zero, orange above, nothing at zero.

Nothing is drawn where a weight is zero, so the picture stands on a light and on a dark page.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

ABOVE, BELOW = (230, 120, 0), (0, 114, 178)
GAMMA = 0.5
"""Small weights are seen beside large ones."""


def png_uri(cells: npt.NDArray[np.int8]) -> str:
    """``cells [rows, columns]`` from -127 to 127 as a ``data:`` address."""
    size = np.minimum(np.abs(cells.astype(float)) / 127, 1.0) ** GAMMA
    pixels = np.empty((*cells.shape, 4), np.uint8)
    pixels[..., :3] = np.where((cells >= 0)[..., None], ABOVE, BELOW)
    pixels[..., 3] = np.round(255 * size)
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Portable Network Graphics, eight bits, red green blue alpha, no filter."""
    rows, columns, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
