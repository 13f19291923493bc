"""The service of ``docs/examples``: killed in the middle, it goes on with its window."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from artifacts import SHAPE, VARIATES, make_artifact, make_windows, raw

from tsfmc.compiler import api

SCRIPT = Path(__file__).parents[1] / "docs" / "examples" / "service.py"


def start(artifact, state):
    command = [sys.executable, str(SCRIPT), str(artifact), "--state", str(state), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return process, int(process.stderr.readline().split()[-1])


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
        return json.load(answer)


def test_a_killed_service_goes_on_with_its_window(tmp_path):
    make_artifact(tmp_path / "artifact")
    values = raw(make_windows(1))[0]
    process, port = start(tmp_path / "artifact", tmp_path / "state.json")
    try:
        for step in range(SHAPE.lookback):
            if step == 20:
                process.kill()
                process.wait()
                process, port = start(tmp_path / "artifact", tmp_path / "state.json")
            row = dict(zip(VARIATES, values[:, step].tolist(), strict=True))
            time = f"2024-01-{1 + step // 24:02d}T{step % 24:02d}:00:00"
            answer = ask(port, "/rows", {"time": time, "row": row})
        assert answer == {"missing_before": 0, "ready": True}
        got = ask(port, "/forecast")
        expected = api.load(tmp_path / "artifact").forecast(values)
        assert np.array_equal([got["forecast"][name] for name in VARIATES], expected)
        assert got["after"] == "2024-01-02T07:00:00"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(port, "/rows", {"time": "2024-01-09T00:00:00", "row": row})
    finally:
        process.kill()
        process.wait()
