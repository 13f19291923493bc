"""A small Hugging Face hub: an HTTP server with the endpoints that an upload of huggingface_hub calls.

    POST /api/repos/create                          a repository, 409 where it is there
    GET  /api/models/O/N/tree/main                  its files
    POST /api/validate-yaml                         the card's metadata
    POST /api/models/O/N/preupload/main             which files go through LFS
    POST /O/N.git/info/lfs/objects/batch            where those are to be put
    PUT  /lfs/OID                                   one of them
    POST /api/models/O/N/commit/main                lines of JSON: a header, files, deletions

What it holds afterwards is ``files``: path -> bytes, from the commit and from what was put.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

LARGE = ".onnx"


class Hub:
    """The state; ``refuse`` is a status that every request gets instead of an answer."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.url = ""
        self.repos: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.tokens: set[str | None] = set()

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        """Status and JSON."""
        self.tokens.add(token)
        parts = path.strip("/").split("/")
        if self.refuse:
            return self.refuse, {"error": "as the test wants it"}
        if token is None and parts[0] != "lfs":  # those addresses are signed
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if method == "PUT" and parts[0] == "lfs":
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.large[parts[1]] = body
            return 200, {}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"objects": [self._place(each) for each in json.loads(body)["objects"]]}
        if parts[0] == "api" and "/".join(parts[2:4]) in self.repos:
            return self._in_repo("/".join(parts[2:4]), parts[4], body)
        return 404, {"error": "Repository not found"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.repos
        self.repos.setdefault(name, asked)
        return (409 if known else 200), {"url": f"{self.url}/{name}"}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        actions = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
        return {**wanted, "actions": actions} if wanted["oid"] not in self.large else wanted

    def _in_repo(self, repo: str, verb: str, body: bytes) -> tuple[int, Any]:
        if verb == "tree":
            files = self.files.items()
            return 200, [
                {"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files
            ]
        if verb == "preupload":
            mode = {True: "lfs", False: "regular"}
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": mode[name.endswith(LARGE)]} for name in names]
            return 200, {"files": [{**each, "shouldIgnore": False} for each in modes]}
        assert verb == "commit", verb
        for line in body.splitlines():
            self._apply(**json.loads(line))
        commit = "c" * 40
        return 200, {"commitOid": commit, "commitUrl": f"{self.url}/{repo}/commit/{commit}", "success": True}

    def _apply(self, key: str, value: dict[str, Any]) -> None:
        if key == "header":
            self.commits.append(value["summary"])
        elif key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.files[value["path"]] = self.large[value["oid"]]
        else:
            assert key == "deletedFile", key
            del self.files[value["path"]]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at ``hub.url``."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            path, token = urlsplit(self.path).path, self.headers.get("Authorization")
            status, value = hub.answer(self.command, path, self._body(), token)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_: Any) -> None:
            pass

        do_GET = do_HEAD = do_POST = do_PUT = _handle

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
