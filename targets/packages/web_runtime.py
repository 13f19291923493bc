"""onnxruntime-web, of the one release that the page is tested with: two files, each with its hash.

They come from a folder that the user names, else from npm where that is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from ...compiler.base.errors import MissingError, UsageError
from ...compiler.base.processes import run_process

RELEASE = "onnxruntime-web@1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": (
        "ort.js",  # servers know what that is
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort-wasm-simd-threaded.wasm": (
        "ort.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
"""Name in the npm package -> name here, sha256."""
NOTICE = """\
ONNX Runtime Web 1.30.0, https://github.com/microsoft/onnxruntime, under this licence:

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
BY_HAND = f"npm install {RELEASE}, then --runtime node_modules/onnxruntime-web"
SECONDS = 300


def copy_runtime(given: Path | None, out: Path) -> None:
    """Puts the runtime's files and its licence into ``out``.

    Args:
        given: the package onnxruntime-web, or its folder ``dist``; None asks npm for it.

    Raises:
        MissingError: no folder is given, and there is no npm or it fails.
        UsageError: a file is not there, or is that of another release.
    """
    out.mkdir()
    if given is not None:
        _copy(given / "dist" if (given / "dist").is_dir() else given, out)
    else:
        with tempfile.TemporaryDirectory(prefix="tsfmc-") as folder:
            _copy(_from_npm(Path(folder)), out)
    (out / "LICENSE").write_text(NOTICE, encoding="utf-8")


def _copy(folder: Path, out: Path) -> None:
    for name, (here, expected) in FILES.items():
        try:
            shutil.copyfile(folder / name, out / here)
        except OSError as error:
            raise UsageError(f"{folder / name} cannot be read: {error.strerror}", hint=BY_HAND) from None
        if hashlib.sha256((out / here).read_bytes()).hexdigest() != expected:
            raise UsageError(f"{folder / name} is not that of {RELEASE}", hint=BY_HAND)


def _from_npm(folder: Path) -> Path:
    try:
        packed = run_process(["npm", "pack", "--silent", RELEASE], seconds=SECONDS, cwd=folder)
    except MissingError:
        raise MissingError(
            "the page needs onnxruntime-web, and there is no npm to get it", hint=BY_HAND
        ) from None
    if not packed.ok:
        raise MissingError(f"npm pack {RELEASE} {packed.ending}: {packed.last_line}", hint=BY_HAND)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name in FILES:
            archive.extract(f"package/dist/{name}", folder, filter="data")
    return folder / "package" / "dist"
