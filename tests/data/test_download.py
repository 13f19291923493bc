"""Downloading, against a real HTTP server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tsfmc.compiler.base.content import cache_root
from tsfmc.compiler.base.errors import DataError, MissingError
from tsfmc.compiler.data import load_data
from tsfmc.compiler.data.sources import download

CONTENT = b"date,a\n" + b"2020-01-01 00:00:00,1\n" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one file whole, cut short, or without its length."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        content = self.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        if "nolength" not in name:
            self.send_header("Content-Length", str(len(content) + (1000 if "cut" in name else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests stay quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    files = {"good.csv": CONTENT, "cut.csv": CONTENT, "nolength.csv": CONTENT, "bad.csv": b"date,a\n"}
    handler = type("Serving", (Handler,), {"files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", files
        http.shutdown()
        thread.join()


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: dict[str, tuple[int, list[int]]] = {}
        self._steps: list[int] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._steps.append(steps)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Recorder]:
        self._steps = []
        self.tasks[title] = (total, self._steps)
        yield self


def test_a_whole_file_with_the_right_hash_is_kept(
    server: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    progress = Recorder()
    target = download(f"{server[0]}/good.csv", SHA256, tmp_path / "new" / "good.csv", "good", progress)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["good.csv"]
    total, steps = progress.tasks["download good"]
    assert total == len(CONTENT) == sum(steps)
    assert len(steps) > 1


def test_a_server_that_does_not_say_the_length(server: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    progress = Recorder()
    target = download(f"{server[0]}/nolength.csv", SHA256, tmp_path / "x.csv", "x", progress)
    assert target.read_bytes() == CONTENT
    assert progress.lines == [f"download x from {server[0]}/nolength.csv, size unknown"]


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        (
            "bad.csv",
            DataError,
            rf"serves a file with sha256 \w+, expected {SHA256} \(fetch it by other means",
        ),
        ("none.csv", MissingError, r"could not be read: HTTP 404 Not Found \(fetch it by other means"),
        ("cut.csv", MissingError, r"could not be read: the connection ended after 2200007 of 2201007 bytes"),
    ],
)
def test_anything_else_leaves_nothing_behind(
    server: tuple[str, dict[str, bytes]], tmp_path: Path, file: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        download(f"{server[0]}/{file}", SHA256, tmp_path / "x.csv", "x")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"x is not here and http://127.0.0.1:1/x.csv could not be read"):
        download("http://127.0.0.1:1/x.csv", SHA256, tmp_path / "x.csv", "x")
    with pytest.raises(MissingError, match="unknown url type"):
        download("nonsense", SHA256, tmp_path / "x.csv", "x")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(server: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    class Interrupted(Recorder):
        def advance(self, steps: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server[0]}/good.csv", SHA256, tmp_path / "x.csv", "x", Interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_with_a_forged_benchmark_is_refused(
    server: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, files = server
    files["ETTm2.csv"] = CONTENT
    monkeypatch.setenv("TSFMC_DATA_URL", url)
    with pytest.raises(DataError, match=r"ETTm2: .* serves a file with sha256"):
        load_data("ettm2", lookback=8, horizon=2)
    assert list((cache_root() / "data").iterdir()) == []


def test_a_known_name_is_fetched_once_and_then_found(
    server: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    url, files = server
    files["ETTh1.csv"] = gzip.decompress((shared / "data" / "ETTh1.csv.gz").read_bytes())
    monkeypatch.setenv("TSFMC_DATA_URL", url)
    monkeypatch.delenv("TSFMC_DATA", raising=False)
    progress = Recorder()
    first = load_data("etth1", lookback=512, horizon=96, progress=progress)
    assert list(progress.tasks) == ["download ETTh1", "read ETTh1"]
    assert sum(progress.tasks["read ETTh1"][1]) == 17420
    del files["ETTh1.csv"]
    assert str(load_data("ETTh1", lookback=512, horizon=96)) == str(first)
