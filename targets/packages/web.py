"""``web``: a static folder that forecasts in the browser.

index.html ...   one page: drop a CSV, see history, forecast and interval
page.json        what the page calls the model, and quantiles of its errors where an evaluation left them
runtime/...      onnxruntime-web
artifact/...     the artifact, which the page checks against its hashes and its self-test before it forecasts

Any server of files takes it (``python -m http.server``); the page sends nothing to anyone, and its content
security policy forbids that to whatever may be put into it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .layout import Layout, Packed
from .web_runtime import copy_runtime

PAGE = Path(__file__).parent / "page"


class Web(Layout):
    """The page, its runtime and the artifact.

    Args:
        runtime: the npm package onnxruntime-web, unpacked; None asks npm for it.
        interval: offsets of an interval, as ``page.js`` reads them; None draws none.
    """

    name: ClassVar[str] = "web"
    summary: ClassVar[str] = "a page that forecasts a dropped CSV in the browser, for any server of files"
    kinds: ClassVar[tuple[str, ...]] = ("onnx",)
    options: ClassVar[tuple[str, ...]] = ("runtime", "interval")
    usual: ClassVar[Mapping[str, object]] = {
        "inputs": None,
        "fleet": None,
        "quantile_levels": None,
        "data_format": {},
        "zone": "",
        "duplicates": "error",
        "sort": False,
    }

    def __init__(self, runtime: Path | None = None, interval: Mapping[str, Any] | None = None) -> None:
        self.runtime, self.interval = runtime, interval

    def write(self, artifact: Packed, path: Path) -> None:
        """Writes the folder."""
        for source in sorted(PAGE.iterdir()):
            shutil.copyfile(source, path / source.name)
        facts = {"name": artifact.name, "interval": self.interval}
        (path / "page.json").write_text(json.dumps(facts, sort_keys=True) + "\n", encoding="utf-8")
        copy_runtime(self.runtime, path / "runtime")
        artifact.copy_to(path / "artifact")
