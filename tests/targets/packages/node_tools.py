"""JavaScript for the tests of packages: what ``npm ci`` put into ``node/``, and the page as Node takes it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from required import absent

from tsfmc.targets.packages.web import PAGE

NODE = Path(__file__).parent / "node"
RUNTIME = NODE / "node_modules" / "onnxruntime-web"


def runtime() -> Path:
    """The package onnxruntime-web; ends the test without it."""
    if shutil.which("node") is None or not RUNTIME.is_dir():
        absent(f"Node, and npm ci --ignore-scripts in {NODE}")
    return RUNTIME


def page_modules(folder: Path) -> Path:
    """The page's modules in ``folder``, which Node then takes for what browsers take them for."""
    runtime()
    for source in PAGE.glob("*.js"):
        shutil.copyfile(source, folder / source.name)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def run_node(script: str, *arguments: Path, given: Any) -> Any:
    """What a script of ``node/`` answers to ``given``."""
    done = subprocess.run(
        ["node", str(NODE / script), *map(str, arguments)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)
