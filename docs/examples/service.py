"""A forecast service of the standard library: rows in, forecasts out, nothing lost over a restart.

    python service.py ARTIFACT --state window.json --port 8080
    curl -d '{"time": "2024-01-01T00:00:00", "row": {"load": 3.1, "temp": 12.5}}' localhost:8080/rows
    curl localhost:8080/forecast

ARTIFACT is what ``tsfmc compile`` wrote.  The service runs the artifact's own runner, so the device needs
what the artifact needs and not this compiler.
"""

import argparse
import json
import sys
import threading
import types
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MAX_BODY = 1 << 20


def load_runner(artifact):
    """The artifact's ``run.py`` as a module, without leaving bytecode in the artifact."""
    runner = types.ModuleType("artifact_runner")
    runner.__file__ = str(Path(artifact).resolve() / "run.py")
    sys.modules[runner.__name__] = runner
    exec(compile(Path(runner.__file__).read_bytes(), runner.__file__, "exec"), runner.__dict__)
    return runner


class Service:
    """One stream behind a lock; every row is on disk before it is acknowledged."""

    def __init__(self, artifact, state, missing=None):
        self.runner = load_runner(artifact)
        self.forecaster = self.runner.Forecaster(Path(artifact))
        self.stream, self.state, self.lock = self.forecaster.stream(missing), Path(state), threading.Lock()
        if self.state.exists():
            self.stream.restore(self.state)

    def push(self, body):
        """``{"row": {variate: value}, "time": ISO 8601}`` -> how many rows were missing before it."""
        if not isinstance(body, dict) or not isinstance(body.get("row"), dict):
            raise ValueError('expected {"row": {variate: value}, "time": "2024-01-31T13:00:00"}')
        if not isinstance(time := body.get("time"), (str, type(None))):
            raise ValueError(f"time: expected ISO 8601 in quotes, got {time!r}")
        with self.lock:
            gap = self.stream.push(body["row"], None if time is None else datetime.fromisoformat(time))
            self.stream.save(self.state)
            return {"missing_before": gap, "ready": self.stream.ready}

    def forecast(self):
        """``{"after": time of the last row, "forecast": {variate: [H values]}}``."""
        with self.lock:
            values, last = self.stream.forecast(), self.stream.last
        names = self.forecaster.variates
        return {
            "after": None if last is None else last.isoformat(),
            "forecast": {name: row.tolist() for name, row in zip(names, values, strict=True)},
        }


class Handler(BaseHTTPRequestHandler):
    """POST /rows, GET /forecast; what a user did wrong is 400 and one line."""

    service: Service

    def do_POST(self):
        stated = self.headers.get("Content-Length") or ""
        length = int(stated) if stated.isascii() and stated.isdigit() else 0
        if self.path != "/rows" or not 0 < length <= MAX_BODY:
            self._answer(404, {"error": f"POST /rows with up to {MAX_BODY} bytes"})
            return
        body = self.rfile.read(length)
        self._try(lambda: self.service.push(json.loads(body)))

    def do_GET(self):
        if self.path != "/forecast":
            self._answer(404, {"error": "GET /forecast"})
            return
        self._try(self.service.forecast)

    def _try(self, work):
        try:
            self._answer(200, work())
        except ValueError as error:  # of the runner, too: what a user gave
            self._answer(400, {"error": str(error)})
        except OSError as error:  # the row is in the window, and not on disk
            self._answer(500, {"error": f"the window cannot be saved: {error}"})

    def _answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def serve(artifact, state, port, missing=None):
    """A server that is ready to run; port 0 takes a free one."""
    handler = type("Handler", (Handler,), {"service": Service(artifact, state, missing)})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--state", default="window.json")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--missing", help="error, ffill or interpolate; default: as compiled")
    given = parser.parse_args()
    try:
        server = serve(given.artifact, given.state, given.port, given.missing)
    except Exception as error:  # of the runner: no artifact, a state of another one; of the system: the port
        sys.exit(f"error: {error}")
    print(f"listening on port {server.server_port}", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
