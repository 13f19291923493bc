"""``tsfmc report``: one page about everything in a folder, in one file that loads nothing.

    folder --collect--> entries --sections, charts--> what the template shows --render--> HTML

Foreign text goes through the template's escaping or into JSON that cannot end its script element.  Beside
that the page forbids itself everything but its own two scripts (Content-Security-Policy, by their hashes).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..base.errors import MissingError
from ..base.sealed import write_text
from . import sections
from .collect import Entry, collect
from .vega import library

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT_ENDS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_report(folder: Path, out: Path) -> Path:
    """Writes the report on everything in ``folder`` to ``out``, complete or not at all.

    Raises:
        MissingError: no artifact there, or the extra ``report`` is not installed.
        VerificationError: a manifest or an evaluation is broken.
    """
    text = render(collect(folder), folder.resolve().name)
    write_text(out, text)
    return out


def render(entries: Sequence[Entry], title: str) -> str:
    """The page."""
    charts: dict[str, Any] = {}
    parts = [sections.artifact(entry, f"a{number}", charts) for number, entry in enumerate(entries)]
    overview = sections.overview(entries, charts)
    titles = {sections.title(entry.manifest) for entry in entries}
    heading = titles.pop() if len(titles) == 1 else title
    return page(
        "report.html.j2", title=heading, folder=title, artifacts=parts, overview=overview, charts=charts
    )


def page(template: str, *, charts: Mapping[str, Any], **values: Any) -> str:
    """A template filled in, with the charting library and the page's own script.

    Args:
        charts: id of an element -> what the script draws there.
    """
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    scripts = (library(), script)
    return str(
        _environment()
        .get_template(template)
        .render(
            **values,
            charts=json_text(charts),
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            scripts=scripts,
            script_hashes=" ".join(f"'sha256-{_sha256(each)}'" for each in scripts),
        )
    )


def json_text(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in SCRIPT_ENDS.items():
        text = text.replace(character, escaped)
    return text


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingError("a report needs jinja2", hint="pip install 'tsfmc[report]'") from None
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
