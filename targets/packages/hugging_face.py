"""``hf``: a model repository of the Hugging Face hub.

README.md        the model card, made of the manifest
artifact/...     the artifact
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .layout import Layout, Packed

HUB = re.compile(r"hub:([^@\s]+/[^@\s]+)@")
"""Where a teacher's ``source`` names its repository."""

CARD = """\
---
{{{{ card_data }}}}
---

# {title}

{what}, compiled by tsfmc for target `{kind}`.
Lookback {lookback}, horizon {horizon}, step {step}, {variates} variates: {names}.
A step's forecast is {point}.

    python artifact/run.py forecast rows.csv        # needs {needs}
    python artifact/run.py selftest

## Accuracy

On the test split of {data}, {windows} windows, scaled units; nothing was chosen there.

{accuracy}

## Licence

{licence}
"""


class HuggingFace(Layout):
    """What ``huggingface_hub.upload_folder`` takes as it is."""

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "Hugging Face model repository: the artifact and a model card"

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the repository."""
        artifact.copy_to(path / "artifact")
        (path / "README.md").write_text(model_card(artifact), encoding="utf-8")


def model_card(artifact: Packed) -> str:
    """``README.md`` with the metadata that the hub reads: task, licence, base model, results."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    manifest = artifact.manifest
    teacher, data = manifest.get("teacher") or {}, manifest.get("data") or {}
    licence = manifest.get("licence") or {}
    rows = _rows(manifest)
    results = [
        EvalResult(
            task_type="time-series-forecasting",
            dataset_type=str(data.get("name", "unknown")),
            dataset_name=str(data.get("name", "unknown")),
            metric_type=metric,
            metric_value=rows["student"][metric],
        )
        for metric in ("mse", "mae")
        if metric in rows.get("student", {})
    ]
    source = HUB.search(str(teacher.get("source")))
    about = ModelCardData(
        license=_licence_id(str(licence.get("spdx", "other"))),
        pipeline_tag="time-series-forecasting",
        library_name="tsfmc",
        tags=["time-series", "edge", manifest["target"]["kind"]],
        base_model=source[1] if source else None,
        model_name=artifact.name if results else None,
        eval_results=results or None,
    )
    return str(ModelCard.from_template(about, template_str=_text(artifact, rows)))


def _licence_id(name: str) -> str:
    """As the hub writes it; ``other`` for words, which it refuses."""
    return name.lower() if re.fullmatch(r"[A-Za-z0-9.+-]+", name) else "other"


def _text(artifact: Packed, rows: Mapping[str, Mapping[str, Any]]) -> str:
    manifest = artifact.manifest
    task, licence = manifest["task"], manifest.get("licence") or {}
    student = (manifest.get("student") or {}).get("name")
    teacher = _plain((manifest.get("teacher") or {}).get("name", "no teacher"))
    named = [_plain(name) for name in task["variates"][:20]]
    windows = next((row["windows"] for row in rows.values() if "windows" in row), 0)
    return CARD.format(
        title=artifact.name,
        what=f"A {_plain(student)} student of {teacher}" if student else f"{teacher}, compressed",
        kind=artifact.kind,
        lookback=task["lookback"],
        horizon=task["horizon"],
        step=task.get("frequency") or "unknown",
        variates=len(task["variates"]),
        names=", ".join(named) + (" ..." if len(task["variates"]) > len(named) else ""),
        point=_point(task),
        needs=", ".join(manifest.get("runtime_requirements", ())) or "Python",
        data=_plain((manifest.get("data") or {}).get("name", "unknown data")),
        windows=windows,
        accuracy=_table(rows) if rows else "Not measured.",
        licence=_plain(licence.get("warning") or f"The teacher's weights: {licence.get('spdx', 'unknown')}."),
    )


def _point(task: Mapping[str, Any]) -> str:
    levels = task.get("quantile_levels") or ()
    return (
        f"its quantiles {', '.join(f'{level:g}' for level in levels)}" if levels else "one number, its mean"
    )


def _rows(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    rows = (manifest.get("accuracy") or {}).get("test") or {}
    return {name: row for name, row in rows.items() if isinstance(row, Mapping) and "mse" in row}


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| row | MSE | MAE |", "|---|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {row['mse']:.4f} | {row['mae']:.4f} |" for name, row in rows.items()
    ]
    return "\n".join(lines)


def _plain(text: Any) -> str:
    """A foreign string inside Markdown and inside a template: printable, one line, nothing active."""
    shown = json.dumps(str(text), ensure_ascii=False)[1:-1]
    return "".join("\\" + letter if letter in "\\`*_[]<>#|{}" else letter for letter in shown)
