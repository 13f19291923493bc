"""Figures as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "-"


def figure(value: float | None, decimals: int = 4) -> str:
    """A number with so many decimals; a large or tiny one with three digits."""
    if value is None:
        return NONE
    if value and not 10**-decimals <= abs(value) < 1e5:
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def count_words(value: float | None) -> str:
    """``39,072``, ``805 k``, ``1.2 M``."""
    if value is None:
        return NONE
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if value >= size:
            return f"{value / min(size, 1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:,.0f}"


def bytes_words(value: float | None) -> str:
    """``316 kB``, powers of ten."""
    if value is None:
        return NONE
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def ratio_words(value: float) -> str:
    """``1,080x``, ``47.2x``, ``0.912x``: three digits."""
    return f"{float(f'{value:.3g}'):,g}x"


def ratio_with_interval(value: float, interval: Sequence[float] | None) -> str:
    """``47.2x [45, 50]``."""
    if not interval:
        return ratio_words(value)
    low, high = (ratio_words(end).removesuffix("x") for end in interval)
    return f"{ratio_words(value)} [{low}, {high}]"


def seconds_words(value: float | None) -> str:
    """``0.05 s``, ``28.1 s``, ``3 min``."""
    if value is None:
        return NONE
    if value >= 120:
        return f"{value / 60:.0f} min"
    return f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"


def time_words(stamp: str) -> str:
    """A time stamp to the minute, or the number of a window."""
    return f"window {stamp}" if stamp.isdecimal() else stamp[:16].replace("T", " ")
