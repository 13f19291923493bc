"""Vectorisable elementary functions, in place of one libm call per element.

Polynomials fitted (Lawson-weighted least squares in float64) for a relative error near float32's:

    exp   x = n ln 2 + r, |r| <= ln 2 / 2;  e^r = 1 + r + r^2 G(r)          3e-9, then rounding
    erf   x P(x^2) / Q(x^2) on |x| <= 3.92, beyond it erf is 1 in float32   5e-8, then rounding
    tanh  x P(x^2) / Q(x^2) on |x| <= 8.5, beyond it tanh is 1 in float32   2e-8, then rounding

Not-a-number stays not-a-number, and exp keeps its zero and its infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx

from .tir import Expr, constant, dtype_of, rewrite

_EXP = (
    0.4999999403953552,
    0.1666651964187622,
    0.04166839271783829,
    0.008368780836462975,
    0.0013814466074109077,
)
_ERF = (
    (1.1283791065216064, 0.19992633163928986, 0.050573572516441345, 0.003701689187437296,
     0.00014185253530740738, -1.9578455976443365e-06, 1.992423825925016e-08),
    (1.0, 0.5105117559432983, 0.11499916762113571, 0.01435336284339428, 0.000956058909650892),
)  # fmt: skip
_TANH = (
    (1.0, 0.13413244485855103, 0.003534024115651846, 2.125100036209915e-05, 1.4269170733882675e-08),
    (1.0, 0.46746566891670227, 0.026022739708423615, 0.0003348860191181302, 8.145099172907067e-07),
)  # fmt: skip
_ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits
_ROUND_BITS = 0x4B400000


def _let(value: Expr, body: object) -> Expr:
    var = tirx.Var("t", "float32")
    return tirx.Let(var, value, body(var))  # type: ignore[operator]


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    value: Expr = constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + constant(coefficient)
    return value


def _clamped(x: Expr, limit: float) -> Expr:
    # The constant comes first: max(c, nan) is a comparison that fails and keeps the second operand.
    return tirx.Min(constant(limit), tirx.Max(constant(-limit), x))


def _odd_rational(x: Expr, limit: float, table: tuple[Sequence[float], Sequence[float]]) -> Expr:
    top, bottom = table
    return _let(
        _clamped(x, limit),
        lambda t: _let(t * t, lambda square: t * _horner(top, square) / _horner(bottom, square)),
    )


def exp(x: Expr) -> Expr:
    """e^x."""

    def reduced(t: Expr, bits: Expr) -> Expr:
        whole = bits - tirx.IntImm("int32", _ROUND_BITS)
        power = tirx.reinterpret("float32", (whole + tirx.IntImm("int32", 127)) << tirx.IntImm("int32", 23))
        n = tirx.Cast("float32", whole)
        # ln 2 in two parts, the first with few mantissa bits, so that n times it is exact.
        rest = t - n * constant(0.693359375) + n * constant(2.12194440e-4)
        return _let(rest, lambda r: (constant(1.0) + r + r * r * _horner(_EXP, r)) * power)

    def body(t: Expr) -> Expr:
        shifted = t * constant(math.log2(math.e)) + constant(_ROUND)
        bits = tirx.Var("bits", "int32")
        return tirx.Let(bits, tirx.reinterpret("int32", shifted), reduced(t, bits))

    # 2^128 has no float: the clamp keeps n <= 127, and the two ends are put back.
    def ends(t: Expr) -> Expr:
        value = _let(tirx.Min(constant(88.0), tirx.Max(constant(-87.0), t)), body)
        value = tirx.Select(t > constant(88.0), tirx.infinity("float32"), value)
        return tirx.Select(t < constant(-87.0), constant(0.0), value)

    return _let(x, ends)


def erf(x: Expr) -> Expr:
    """The error function."""
    return _odd_rational(x, 3.92, _ERF)


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent."""
    return _odd_rational(x, 8.5, _TANH)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x)."""
    return constant(1.0) / (constant(1.0) + exp(constant(0.0) - x))


def sinh(x: Expr) -> Expr:
    """(e^x - e^-x) / 2: exact to an absolute 1e-7 near zero."""
    return _let(x, lambda t: (exp(t) - exp(constant(0.0) - t)) * constant(0.5))


def _pow(x: Expr, exponent: Expr) -> Expr | None:
    value = float(exponent.value) if isinstance(exponent, tirx.FloatImm) else None
    if value == 2.0:
        return _let(x, lambda t: t * t)
    if value == 0.5:
        return tirx.sqrt(x)
    return None


_FUNCTIONS = {"tirx.exp": exp, "tirx.erf": erf, "tirx.tanh": tanh, "tirx.sinh": sinh, "tirx.sigmoid": sigmoid}


def expand(expr: Expr) -> Expr:
    """Replaces float32 calls of exp, erf, tanh, sigmoid and simple powers by arithmetic."""

    def replace(node: Expr) -> Expr | None:
        if type(node).__name__ != "Call" or dtype_of(node) != "float32":
            return None
        name = node.op.name
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](expand(node.args[0]))
        if name == "tirx.pow":
            return _pow(expand(node.args[0]), node.args[1])
        if name == "tirx.rsqrt":
            return constant(1.0) / tirx.sqrt(expand(node.args[0]))
        return None

    return rewrite(expr, replace)
