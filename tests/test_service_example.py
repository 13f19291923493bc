"""The service of ``docs/examples``: killed in the middle, it goes on with its window."""

import json
import socket
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


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], "expected {"),
        ({}, "expected {"),
        ({"row": [1, 2, 3]}, "expected {"),
        ({"row": {"load": 1}}, "a value for each variate"),
        ({"row": dict.fromkeys(VARIATES, 1), "time": 5}, "time: expected ISO 8601 in quotes, got 5"),
        ({"row": dict.fromkeys(VARIATES, "x"), "time": "2024-01-01"}, "expected numbers"),
    ],
)
def test_a_body_that_is_no_row_is_said_in_one_line(body, says, service):
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        ask(service, "/rows", body)
    assert says in json.load(caught.value)["error"]


def test_a_length_that_is_no_number_is_answered(service):
    with socket.create_connection(("127.0.0.1", service), timeout=30) as connection:
        connection.sendall(b"POST /rows HTTP/1.0\r\nContent-Length: abc\r\n\r\n")
        assert b" 404 " in connection.makefile("rb").readline()


@pytest.mark.parametrize("state", ["{}", '{"what": "tsfmc stre', "[]"])
def test_a_state_of_something_else_is_refused_before_it_listens(state, tmp_path, artifact):
    (tmp_path / "state.json").write_text(state)
    process = subprocess.run(
        [sys.executable, str(SCRIPT), str(artifact), "--state", str(tmp_path / "state.json"), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert "is no state of this stream" in line
    assert (tmp_path / "state.json").read_text() == state


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    place = tmp_path_factory.mktemp("made") / "artifact"
    make_artifact(place)
    return place


@pytest.fixture(scope="module")
def service(artifact):
    process, port = start(artifact, artifact.parent / "state.json")
    yield port
    process.kill()
    process.wait()
