"""Small faults in source code, one at a time: what tests that bite must notice.

    comparison   a < b  ->  a <= b        number      3  ->  4, 0.5  ->  1.5, True  ->  False
    arithmetic   a + b  ->  a - b         condition   if c  ->  if not (c)
    logic        a and b  ->  a or b      sign, not   -a  ->  a, not a  ->  a
    statement    a call, an assignment to a part, += or raise  ->  pass
    result       return a  ->  return None

Left alone, since no test should look at them: annotations, messages, assertions for the type checker,
decorators, progress reports, and ``strict=`` of zip.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
REPORTS = ("advance", "line", "print")
UNTESTED_KEYWORDS = ("strict",)


@dataclass(frozen=True)
class Mutant:
    """One fault: the bytes ``start..end`` of a module become ``after``.

    Attributes:
        key: names it as long as its line stays what it is: module, operator, text, and which of equal ones.
    """

    key: str
    module: str
    operator: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """The module with the fault."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(path: Path, module: str) -> list[Mutant]:
    """All faults of one file, in its order."""
    source = path.read_bytes()
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for node, operator, after in _faults(ast.parse(source)):
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = source[start:end].decode()
        text = source[lines[node.lineno - 1] : lines[node.lineno]].decode().strip()
        key = f"{module} | {operator} | {text} | {' '.join(before.split())[:60]} -> {after[:60]}"
        seen[key] += 1
        key += f" | {seen[key]}" if seen[key] > 1 else ""
        found.append(Mutant(key, module, operator, node.lineno, start, end, before, after))
    return found


def draw(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """``count`` of them by the hash of their keys: a changed line changes its own faults alone."""
    drawn = sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed}{mutant.key}".encode()).digest())[
        :count
    ]
    return sorted(drawn, key=lambda mutant: (mutant.module, mutant.start))


Fault = tuple[ast.expr | ast.stmt, str, str]


def _faults(tree: ast.AST) -> Iterator[Fault]:
    for node in _walk(tree):
        for operator, mutate in OPERATORS.items():
            after = mutate(node)
            if after is not None and isinstance(node, (ast.expr, ast.stmt)):
                yield node, operator, after
        yield from _conditions(node)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes in order, less what is left alone."""
    yield node
    if isinstance(node, (ast.JoinedStr, ast.Assert, ast.Raise)):
        return
    skipped: list[object] = [
        getattr(node, "annotation", None),
        getattr(node, "returns", None),
        *getattr(node, "decorator_list", []),
    ]
    if isinstance(node, ast.Call):
        skipped += [keyword for keyword in node.keywords if keyword.arg in UNTESTED_KEYWORDS]
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Expr) and _is_report(node):
        return
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Literal", "Callable"):
        return
    for child in ast.iter_child_nodes(node):
        if not any(child is other for other in skipped):
            yield from _walk(child)


def _is_report(node: ast.Expr) -> bool:
    function = node.value.func if isinstance(node.value, ast.Call) else None
    name = getattr(function, "attr", getattr(function, "id", ""))
    return name in REPORTS


def _compare(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Compare):
        return None
    first = COMPARISONS[type(node.ops[0])]()
    return f"({ast.unparse(ast.Compare(node.left, [first, *node.ops[1:]], node.comparators))})"


def _arithmetic(node: ast.AST) -> str | None:
    if not isinstance(node, ast.BinOp) or type(node.op) not in ARITHMETIC or _is_text(node):
        return None
    # In brackets, since the operators around it bind by what stood here before.
    return f"({ast.unparse(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))})"


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _logic(node: ast.AST) -> str | None:
    if not isinstance(node, ast.BoolOp):
        return None
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return f"({ast.unparse(ast.BoolOp(other, node.values))})"


def _number(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Constant):
        return None
    if isinstance(node.value, bool):
        return str(not node.value)
    return repr(node.value + 1) if isinstance(node.value, (int, float)) else None


def _sign(node: ast.AST) -> str | None:
    if not isinstance(node, ast.UnaryOp) or not isinstance(node.op, (ast.USub, ast.Not)):
        return None
    return f"({ast.unparse(node.operand)})"


def _statement(node: ast.AST) -> str | None:
    if isinstance(node, ast.Expr):
        return "pass" if isinstance(node.value, ast.Call) and not _is_report(node) else None
    if isinstance(node, ast.Assign):
        parts = (ast.Attribute, ast.Subscript)
        return "pass" if all(isinstance(target, parts) for target in node.targets) else None
    return "pass" if isinstance(node, (ast.AugAssign, ast.Raise)) else None


def _result(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Return) or node.value is None:
        return None
    return "return None" if ast.unparse(node.value) != "None" else None


def _conditions(node: ast.AST) -> Iterator[Fault]:
    tests: list[ast.expr] = []
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        tests.append(node.test)
    if isinstance(node, ast.comprehension):
        tests += node.ifs
    for test in tests:
        if not isinstance(test, ast.Compare) or len(test.ops) > 1:  # that is the comparison's own fault
            yield test, "condition", f"(not ({ast.unparse(test)}))"


OPERATORS: dict[str, Callable[[ast.AST], str | None]] = {
    "comparison": _compare,
    "arithmetic": _arithmetic,
    "logic": _logic,
    "number": _number,
    "sign": _sign,
    "statement": _statement,
    "result": _result,
}
