"""Which outcomes of a reader are allowed.

    refused   a documented error: exit code 2 to 6 and one line that says what is wrong; or, of a reader that
              shows what cannot be vouched for, the words that say so
    equal     what the untouched specimen gives
    changed   another result of an input that anybody may edit (a CSV, a recipe, a checkpoint), or of one
              whose hashes were redone: a reader cannot tell these from another, legal one

Everything else is a failure: a traceback, a signal, no end, too much memory, another result of something
whose hashes no longer agree, a file that ``verify`` says is intact and is not, and control characters on a
terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .child import Ending

PEAK_BYTES = 1 << 30
REFUSALS = range(2, 7)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
ALLOWED = ("equal", "refused", "changed")


@dataclass(frozen=True)
class Verdict:
    """``kind`` is one of ``ALLOWED``, or names a failure; ``why`` tells equal failures from others."""

    kind: str
    why: str = ""

    @property
    def allowed(self) -> bool:
        return self.kind in ALLOWED


@dataclass(frozen=True)
class Expectation:
    """What the untouched specimen gives.

    Attributes:
        code: the reader's exit code on it.
        result: what it printed and wrote.
        editable: whether a mutant is an input in its own right.
        must_refuse: whether the reader's very purpose is to see the change.
        warns: what a reader that shows what it cannot vouch for says of it; "" for others.
    """

    code: int
    result: str
    editable: bool
    must_refuse: bool
    warns: str = ""


def judge(ending: Ending, result: str, expected: Expectation) -> Verdict:
    """The verdict on one mutant."""
    if ending.code is None:
        return Verdict("hang", f"no end within {ending.seconds:.0f} s")
    if ending.code < 0:
        return Verdict("crash", f"ended by signal {-ending.code}")
    if ending.peak_bytes > PEAK_BYTES:
        return Verdict("memory", "more than 1 GiB")
    if "not enough memory" in ending.stderr:
        return Verdict("memory", "asked for more than there is")
    if ending.code not in (0, *REFUSALS):
        return Verdict("traceback", cause(ending.stderr) or f"exit code {ending.code}")
    if found := CONTROL.search(ending.stdout + ending.stderr):
        return Verdict("control", f"prints {found[0]!r}")
    if ending.code == expected.code and result == expected.result:
        if expected.must_refuse:
            return Verdict("unseen", "said to be intact")
        return Verdict("equal")
    if ending.code in REFUSALS:
        return _refusal(ending.stderr)
    if expected.warns and re.search(expected.warns, ending.stdout):
        return Verdict("refused")
    return Verdict("changed") if expected.editable else Verdict("silent", "another result, and no word")


def _refusal(stderr: str) -> Verdict:
    lines = [line for line in stderr.splitlines() if line.lower().startswith("error:")]
    if not lines:
        return Verdict("mute", "an exit code without an error line")
    if "Traceback (most recent call last)" in stderr:
        return Verdict("traceback", cause(stderr))
    return Verdict("refused")


def cause(stderr: str) -> str:
    """The exception's class and the last place of tsfmc in a traceback: where the defect is, mostly."""
    places = re.findall(r'File "[^"]*?/((?:compiler|passes|targets)/[^"]+)", line \d+, in (\S+)', stderr)
    error = re.findall(
        r"^([\w.]+(?:Error|Exception|Interrupt|Warning|Exit|Panic\w*|Fail\w*)?)(?::|$)", stderr, re.MULTILINE
    )
    name = error[-1] if error else ""
    return f"{name} in {places[-1][0]}:{places[-1][1]}" if places else name
