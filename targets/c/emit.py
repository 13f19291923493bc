"""Steps -> C: one block of code a step, with constant sizes, and the templates around them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.data.encoding import CYCLE_SECONDS
from ..base import TaskFacts
from .memory import ALIGNMENT, plan
from .read_graph import Graph
from .steps import LayerNorm, Linear, Map, Mean, MovingAverage, Product, Softmax, Step
from .values import Operand, View, collapse, expression, number, views_of
from .weights import PANEL

TEMPLATES = Path(__file__).parent / "templates"
SOURCE, HEADER = "tsfmc_model.c", "tsfmc_model.h"
SCHEMA = 1
PROBES = 8
"""Numbers of the self-test's forecast that the C file compares."""
_BEFORE = {
    "product_dots": ("total",),
    "layer_norm": ("total",),
    "softmax": ("extremes", "exp"),
    "erf": ("extremes",),
}
_ORDER = (
    "total",
    "extremes",
    "exp",
    "erf",
    "linear_float",
    "linear_int8",
    "linear_int16",
    "product_rows",
    "product_dots",
    "softmax",
    "layer_norm",
    "moving_average",
)
_INDICES = "ijklm"


@dataclass(frozen=True)
class Selftest:
    """Numbers ``expected`` of the forecast, at ``places``, of the window that ``synthetic_window`` makes."""

    places: Sequence[int]
    expected: Sequence[float]
    allowed: float


def write_sources(graph: Graph, task: TaskFacts, selftest: Selftest, precision: str, folder: Path) -> int:
    """Writes ``tsfmc_model.c`` and ``tsfmc_model.h`` into ``folder``; returns the bytes of scratch memory."""
    offsets, elements = plan(graph.steps, graph.sizes)
    scratch = 4 * (elements + ALIGNMENT)
    body = _body(graph, offsets)
    fields = {
        **_task_fields(graph, task),
        "PRECISION": precision,
        "SCHEMA": str(SCHEMA),
        "SCRATCH_BYTES": str(scratch),
        "PANEL": str(PANEL),
        "MATH": "#include <math.h>\n" if "sqrtf(" in body or "logf(" in body or "layer_norm" in body else "",
        "CHECKSUM": f"0x{graph.weights.checksum:08X}U",
        "WEIGHT_MEMBERS": graph.weights.declarations(),
        "WEIGHT_VALUES": graph.weights.literals(),
        "KERNELS": _kernels(graph.steps),
        "BODY": body,
        "PROBES": str(len(selftest.places)),
        "PLACES": ", ".join(map(str, selftest.places)),
        "EXPECTED": ", ".join(map(number, selftest.expected)),
        "ALLOWED": number(selftest.allowed),
    }
    for name in (SOURCE, HEADER):
        (folder / name).write_text(filled((TEMPLATES / name).read_text(), fields))
    return scratch


def filled(text: str, fields: Mapping[str, str]) -> str:
    """A template with ``@NAME@`` replaced."""
    for name, value in fields.items():
        text = text.replace(f"@{name}@", value)
    return text


def synthetic_window(variates: int, lookback: int) -> np.ndarray:
    """The self-test's window ``[1, D, L]``: random walks in steps of 1/64, exact in float32."""
    count, state = variates * lookback, 1
    steps = np.empty(count)
    for place in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        steps[place] = (state >> 25) - 64
    walk = np.cumsum(steps.reshape(variates, lookback), axis=1) / 64
    return walk[None].astype(np.float32)


def _task_fields(graph: Graph, task: TaskFacts) -> dict[str, str]:
    names = [json.dumps(name) for name in task.variates]
    levels = task.quantile_levels
    about = json.dumps(
        [task.variates, graph.lookback, graph.horizon, task.step_seconds, task.missing, task.mean, task.std]
    )
    step = task.step_seconds
    return {
        "VARIATES": str(graph.variates),
        **_row_fields(graph.lookback, task),
        "HORIZON": str(graph.horizon // max(1, len(levels))),
        "QUANTILES": str(max(1, len(levels))),
        "LEVELS": ", ".join(map(number, levels)) or number(0.5),
        "POINT": "the median" if levels else "the mean",
        "NAMES": ", ".join(names),
        "STEP_SECONDS": f"{int(step)}" if step and step == int(step) else "0",
        "FREQUENCY": json.dumps(task.frequency or ""),
        "MEAN": ", ".join(map(number, task.mean)),
        "STD": ", ".join(map(number, task.std)),
        "POLICY": {"error": "0", "ffill": "1", "interpolate": "2"}[task.missing],
        "TASK": f"0x{zlib.crc32(about.encode()):08X}U",
    }


def _row_fields(row: int, task: TaskFacts) -> dict[str, str]:
    """What a row of so many numbers is: a variate's past, and where the task has inputs those behind it,
    without a stream."""
    width = sum(group["width"] for group in task.inputs)
    lookback = str(row - width)
    if not width:
        plain = "#define TSFMC_ROW TSFMC_LOOKBACK /* numbers of a variate in a call */\n"
        return {"LOOKBACK": lookback, "ROW": plain, "STREAM": "", "STREAM_END": ""}
    lines = [
        f"#define TSFMC_INPUTS {width} /* behind each variate's past, the same for all, as they are: */",
        *(f"/*   {_input_words(group)} */" for group in task.inputs),
        "#define TSFMC_ROW (TSFMC_LOOKBACK + TSFMC_INPUTS) /* numbers of a variate in a call */",
    ]
    return {
        "LOOKBACK": lookback,
        "ROW": "\n".join(lines) + "\n",
        "STREAM": "#ifndef TSFMC_INPUTS /* a stream of rows knows no inputs */\n",
        "STREAM_END": "#endif\n",
    }


def _input_words(group: Mapping[str, Any]) -> str:
    """How the numbers of a group are made."""
    name, width = _plain(group["name"]), group["width"]
    if group["kind"] == "calendar":
        return (
            f"{width}: sin(a), sin(2 a) ... sin({group['harmonics']} a), then the cosines, a = 2 pi t / "
            f"{CYCLE_SECONDS[group['name']]:.0f} s ({name}), t the first forecast step in seconds since 1970"
        )
    steps = "coming HORIZON values" if group["kind"] == "known" else "last LOOKBACK values"
    return f"{width}: the {steps} of {name}, less their mean over the lookback, over {number(group['scale'])}"


def _plain(name: str) -> str:
    """A name in a comment, which it must not end."""
    return json.dumps(name).replace("*/", "* /")


def _kernels(steps: Sequence[Step]) -> str:
    """The parts that the steps need, each once, what they call before them."""
    needed = set().union(*(step.parts for step in steps)) if steps else set()
    for _ in range(2):
        needed |= {each for name in needed for each in _BEFORE.get(name, ())}
    texts = []
    if needed & {"linear_float", "linear_int8", "linear_int16", "product_rows", "moving_average", "total"}:
        texts.append(filled((TEMPLATES / "vectors.c").read_text(), {"PANEL": str(PANEL)}))
    for name in (each for each in _ORDER if each in needed):
        if name == "linear_float":
            fields = {"NAME": name, "TYPE": "float", "LOAD": "tsfmc_load"}
            texts.append(filled((TEMPLATES / "linear.c").read_text(), fields))
        elif name == "linear_int8":
            fields = {"NAME": name, "TYPE": "int8_t", "LOAD": "tsfmc_load_bytes"}
            texts.append((TEMPLATES / "bytes.c").read_text())
            texts.append(filled((TEMPLATES / "linear.c").read_text(), fields))
        else:
            texts.append((TEMPLATES / f"{name}.c").read_text())
    return "\n".join(texts)


def _body(graph: Graph, offsets: Mapping[str, int]) -> str:
    lines = [f"  float *const {block} = memory + {offset};" for block, offset in sorted(offsets.items())]
    for count, step in enumerate(graph.steps, 1):
        about = step.about.replace("*/", "")
        lines += ["", f"  /* {count}. {about} {_sizes(step.out)} */", *_write(step, graph)]
    return "\n".join(lines)


def _sizes(view: View) -> str:
    return "[" + ", ".join(map(str, view.shape)) + "]"


def _write(step: Step, graph: Graph) -> list[str]:
    writers: dict[type[Step], Callable[..., list[str]]] = {
        Linear: _linear,
        Product: _product,
        Map: _map,
        Mean: _mean,
        Softmax: _softmax,
        LayerNorm: _layer_norm,
        MovingAverage: _moving_average,
    }
    return writers[type(step)](step, graph)


def _name(block: str) -> str:
    return f"weights->{block}" if block.startswith("w") else block


def _at(view: View, extra: str = "") -> str:
    """A pointer to the view's first element."""
    text = _name(view.block) + (f" + {view.offset}" if view.offset else "")
    return text + extra


def _linear(step: Linear, graph: Graph) -> list[str]:
    packed = graph.matrices[step.weights]
    rows = step.source.rows()
    assert rows is not None
    count, distance = rows[0] // step.matrices, rows[1]
    each = "" if step.matrices == 1 else " + s * {}"

    def moving(name: str | None, by: int) -> str:
        return "0" if name is None else f"weights->{name}{each.format(by)}"

    padded = -(-step.outputs // PANEL) * PANEL
    call = (
        f"{step.kernel}({count}, {step.inputs}, {step.outputs}, "
        f"{_at(step.source, each.format(count * distance))}, {distance}, "
        f"{moving(packed.weights, packed.stride)}, {moving(packed.scales, padded)}, "
        f"{'0' if packed.bias is None else f'weights->{packed.bias}'}, "
        f"{_at(step.out, each.format(count * step.outputs))}"
        + (f", {step.bits}, {_at(step.scratch)}" if step.scratch else "")
        + ");"
    )
    if step.matrices == 1:
        return [f"  {call}"]
    return [f"  for (int s = 0; s < {step.matrices}; ++s)", f"    {call}"]


def _product(step: Product, graph: Graph) -> list[str]:
    left, right, out = step.left, step.right, step.out
    batch = out.shape[:-2]
    one, other = left.expanded((*batch, *left.shape[-2:])), right.expanded((*batch, *right.shape[-2:]))
    loops = collapse(batch, [one.strides[:-2], other.strides[:-2], out.strides[:-2]])
    moved = [
        "".join(f" + {_INDICES[n]} * {s[which]}" for n, (_, s) in enumerate(loops)) for which in range(3)
    ]
    kernel, b_step = ("product_rows", -2) if step.dense_rows else ("product_dots", -1)
    lines = [f"{'  ' * (n + 1)}{_loop(_INDICES[n], size)}" for n, (size, _) in enumerate(loops)]
    lines.append(
        f"{'  ' * (len(loops) + 1)}{kernel}({out.shape[-2]}, {left.shape[-1]}, {out.shape[-1]}, "
        f"{_at(one, moved[0])}, {left.strides[-2]}, {_at(other, moved[1])}, {right.strides[b_step]}, "
        f"{_at(out, moved[2])});"
    )
    return lines


def _loop(index: str, size: int) -> str:
    return f"for (int {index} = 0; {index} < {size}; ++{index})"


def _elements(
    value: Operand, shape: Sequence[int], out: View | None
) -> tuple[list[int], list[str], str, str]:
    """Sizes and names of the loops over ``shape``, the element written and the one computed."""
    views = [view.expanded(shape) for view in views_of(value)]
    if out is not None:
        views.append(out)
    loops = collapse(shape, [view.strides for view in views])
    if not loops:
        loops = [(1, tuple(0 for _ in views))]
    strides = dict(zip(views, zip(*(each for _, each in loops), strict=True), strict=True)) if views else {}

    def element(view: View) -> str:
        terms = [
            name if stride == 1 else f"{name} * {stride}"
            for name, stride in zip(_INDICES, strides[view], strict=False)
            if stride
        ]
        terms += [str(view.offset)] if view.offset or not terms else []
        return f"{_name(view.block)}[{' + '.join(terms)}]"

    sizes = [size for size, _ in loops]
    names = list(_INDICES[: len(sizes)])
    return sizes, names, element(out) if out is not None else "", expression(value, shape, element)


def _map(step: Map, graph: Graph) -> list[str]:
    sizes, names, target, value = _elements(step.value, step.out.shape, step.out)
    lines = [
        f"{'  ' * (depth + 1)}{_loop(name, size)}"
        for depth, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return [*lines, f"{'  ' * (len(lines) + 1)}{target} = {value};"]


def _mean(step: Mean, graph: Graph) -> list[str]:
    value = step.value
    assert not isinstance(value, float)
    shape, size = value.shape, value.shape[-1]
    outer = math.prod(shape[:-1])
    inner = "m"
    rows = collapse(shape[:-1], [view.expanded(shape).strides[:-1] for view in views_of(value)])
    assert len(rows) <= 1, "the reader stores what has no even rows"
    steps = {
        view.expanded(shape): (rows[0][1][n] if rows else 0, view.expanded(shape).strides[-1])
        for n, view in enumerate(views_of(value))
    }

    def element(view: View, at: str) -> str:
        row, column = steps[view]
        terms = [f"i * {row}"] if row else []
        terms += [at if column == 1 else f"({at}) * {column}"] if column else []
        terms += [str(view.offset)] if view.offset or not terms else []
        return f"{_name(view.block)}[{' + '.join(terms)}]"

    def text(at: str) -> str:
        return expression(value, shape, lambda view: element(view, at))

    out = f"{_name(step.out.block)}[{'i' if not step.out.offset else f'i + {step.out.offset}'}]"
    return [
        f"  {_loop('i', outer)} {{",
        f"    float parts[{PANEL}] = {{0.0F}};",
        f"    int {inner} = 0;",
        f"    for (; {inner} + {PANEL} <= {size}; {inner} += {PANEL})",
        f"      {_loop('u', PANEL)} parts[u] += {text(f'{inner} + u')};",
        f"    for (; {inner} < {size}; ++{inner}) parts[0] += {text(inner)};",
        f"    {out} = tsfmc_total(parts, {PANEL}) / {size}.0F;",
        "  }",
    ]


def _rows(view: View) -> tuple[int, int]:
    return math.prod(view.shape[:-1]), view.shape[-1]


def _softmax(step: Softmax, graph: Graph) -> list[str]:
    rows, size = _rows(step.source)
    return [f"  softmax({rows}, {size}, {_at(step.source)}, {_at(step.out)});"]


def _layer_norm(step: LayerNorm, graph: Graph) -> list[str]:
    rows, size = _rows(step.source)
    offset = "0" if step.offset is None else _at(step.offset)
    return [
        f"  layer_norm({rows}, {size}, {_at(step.source)}, {number(step.epsilon)}, "
        f"{_at(step.gain)}, {offset}, {_at(step.out)});"
    ]


def _moving_average(step: MovingAverage, graph: Graph) -> list[str]:
    rows, size = _rows(step.out)
    return [f"  moving_average({rows}, {size}, {step.kernel}, {_at(step.source)}, {_at(step.out)});"]
