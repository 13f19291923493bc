"""Text from elsewhere, made fit to print: no control character reaches a terminal or breaks a line.

Part of an artifact's ``run.py`` too, so it needs the standard library alone and reads on Python 3.8.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with everything but letters, marks, digits, punctuation and the space written as an escape.

    Control characters (a terminal obeys them), line breaks (one message is one line), marks that turn the
    direction of writing (what is shown is not what is there) and lone surrogates (they cannot be encoded)
    become ``\x1b``, ``\n``, ``\u202e``, ``\ud800``.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
