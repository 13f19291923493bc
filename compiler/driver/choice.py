"""How an affine student was chosen, as a person reads it; the whole table stands in the manifest.

Read from the metrics of whatever pass chose: ``selection`` has a row for each candidate, with its mean log
ratio to the plain candidate (one shared map, no teacher) over the blocks it was judged on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..ir.companions import FIRST, TUNED

Row = Mapping[str, Any]
FORMS: Mapping[str, str] = {
    "shared": "one map for all variates",
    "per-variate": "one map each",
    "low-rank": "low rank",
}
BYTES = 4
"""Of a stored number before quantisation."""
COLUMNS = {
    "candidate": 27,
    "lambda": 7,
    "tau": 5,
    "ridge": 7,
    "pooling": 8,
    "prior": 7,
    "MSE": 16,
    "parameters": 12,
    "MACs/variate": 14,
    "bytes": 11,
}


def choice_lines(passes: Sequence[Mapping[str, Any]], teacher: str = "the first teacher") -> list[str]:
    """The chosen setting in words and the candidates that say why; nothing where no pass chose.

    Args:
        teacher: what the first teacher is called.
    """
    chosen = next((entry["metrics"] for entry in passes if entry["metrics"].get("selection")), None)
    if chosen is None:
        return []
    rows: Sequence[Row] = chosen["selection"]
    lines = [f"chosen     {setting_words({**chosen, 'form': chosen['maps']})}"]
    if chosen["near_best"] > 1:
        lines.append(f"           the smallest of {chosen['near_best']} near-best of {len(rows)} candidates")
    lines += mix_lines(chosen, teacher)
    lines += better_lines(rows)
    lines += [
        f"branch     {entry['metrics']['in_words']}" for entry in passes if "in_words" in entry["metrics"]
    ]
    lines += [f"warning    {warning}" for warning in chosen.get("warnings", ())]
    if len(rows) > 1:
        lines += ["", *candidate_table(rows)]
    return lines


def mix_lines(chosen: Row, teacher: str) -> list[str]:
    """Which teachers the student learnt from, and what each mix was judged to bring; nothing for one."""
    mixes: Sequence[Row] = chosen.get("mixes", ())
    names = chosen.get("teachers") or {}
    tuned = any(TUNED in row["teachers"] for row in mixes)
    called = {FIRST: f"{teacher} as loaded" if tuned else teacher, TUNED: f"{teacher} tuned"}
    if len(mixes) < 2:
        return [f"teachers   {mix_words(names, called)}"] if len(names) > 1 else []
    picked = next(row for row in mixes if row["chosen"])
    used = mix_words(picked["teachers"], called) if names else "none: lambda 0 was chosen"
    lines = [f"teachers   {used}", "           each mix with one shared map, MSE against no teacher:"]
    for row in sorted(mixes, key=lambda row: float(row["log_ratio"])):
        change = f"{_percent(row['log_ratio'])} +- {100 * row['standard_error']:.1f}"
        lines.append(
            f"           {'*' if row['chosen'] else ' '} {mix_words(row['teachers'], called)}: {change}, "
            f"lambda {_short(float(row['lambda']))}, tau {_short(row['tau'])}"
        )
    return lines


def mix_words(teachers: Mapping[str, float], called: Mapping[str, str]) -> str:
    """``ttm-r2 0.75 + fracast 0.25``.

    Args:
        called: what some names are for a reader.
    """
    parts = [(called.get(name, name), share) for name, share in teachers.items()]
    return " + ".join(name if share == 1 else f"{name} {_short(share)}" for name, share in parts)


def better_lines(rows: Sequence[Row]) -> list[str]:
    """What the best candidate would bring and cost, where a smaller one was taken."""
    judged = [row for row in rows if "judgement" in row]
    chosen = next((row for row in judged if row.get("chosen")), None)
    if chosen is None:
        return []
    best = min(judged, key=lambda row: float(row["judgement"]))
    gain = 100 * -math.expm1(float(best["judgement"]) - float(chosen["judgement"]))
    if best["macs"] <= chosen["macs"]:
        return []
    times = best["macs"] / max(1, chosen["macs"])
    return [
        f"           the best, {_form_words(best)}, would lower the error by another {gain:.2f} % at "
        f"{times:.1f}x the multiply-adds"
    ]


def candidate_table(rows: Sequence[Row]) -> list[str]:
    """What was chosen (``*``), the best candidate of each form and the best without a teacher."""
    blocks = len(rows[0].get("mse", ()))
    lines = [
        "chosen (*), best of each form and without a teacher; MSE against one shared map without a teacher, "
        f"{blocks} block{'s' if blocks != 1 else ''}",
        _columns(COLUMNS),
    ]
    for row in remarkable(rows):
        ratio = f"{_percent(row['log_ratio'])} +- {100 * row['standard_error']:.1f}"
        cells = (
            f"{'*' if row.get('chosen') else ' '} {_form_words(row)}",
            f"{float(row['lambda']):g}",
            f"{row['tau']:g}",
            f"{row['ridge']:g}",
            f"{row.get('pooling', 0):g}",
            f"{row.get('prior', 0):g}",
            ratio,
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            f"{row['parameters'] * BYTES:,}",
        )
        lines.append(_columns(cells))
    return lines


def _columns(cells: Iterable[str]) -> str:
    first, *others = zip(cells, COLUMNS.values(), strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)


def remarkable(rows: Sequence[Row]) -> list[Row]:
    """The chosen row, the best of each form, and the best without a teacher; best first, none twice."""
    groups = [[row for row in rows if row["form"] == form] for form in FORMS]
    groups.append(
        [row for row in rows if float(row["lambda"]) == 0 and not (row.get("prior") or row.get("align"))]
    )
    found = [min(group, key=lambda row: float(row["log_ratio"])) for group in groups if group]
    found += [row for row in rows if row.get("chosen")]
    unique = {id(row): row for row in found}
    return sorted(unique.values(), key=lambda row: float(row["log_ratio"]))


def setting_words(row: Row) -> str:
    """``low rank 24, teacher's weight 0.25 (tau 1), ridge of 100 windows``."""
    pooling = f", pooling {_short(row['pooling'])}" if row.get("pooling") else ""
    prior = f", {_short(row['prior'])} synthetic windows" if row.get("prior") else ""
    align = f", basis shaped by states of weight {_short(row['align'])}" if row.get("align") else ""
    ridge = f"ridge of {_short(row['ridge'])} windows"
    return f"{_form_words(row)}{align}, {_teacher_words(row)}, {ridge}{pooling}{prior}"


def _form_words(row: Row) -> str:
    return f"low rank {row['rank']}" if row["form"] == "low-rank" else FORMS[row["form"]]


def _teacher_words(row: Row) -> str:
    weight = float(row["lambda"])
    if weight == 0:
        return "the teacher on synthetic windows alone" if row.get("prior") else "no teacher"
    words = "the teacher alone" if math.isinf(weight) else f"teacher's weight {_short(weight)}"
    return f"{words} (tau {_short(row['tau'])})" if row["tau"] else words


def _percent(log_ratio: float) -> str:
    """``-3.2 %``, and no sign on a zero."""
    return f"{round(100 * math.expm1(log_ratio), 1) + 0.0:+.1f} %"


def _short(value: float) -> str:
    """Three digits: 0.747, 50.8, 1000."""
    return f"{float(f'{value:.3g}'):g}"
