"""What is printed: readable text stays, everything that a terminal would obey becomes an escape."""

from __future__ import annotations

import pytest

from tsfmc.compiler.base.text import printable


@pytest.mark.parametrize("text", ["", "load", "größe 3,5 %", "温度", "a b", "it's \\ {x}", "🙂"])
def test_readable_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("one\nerror: two\r", r"one\nerror: two\r"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj\u202etxt", r"gpj\u202etxt"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_a_terminal_obeys_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isascii() and shown.isprintable()
