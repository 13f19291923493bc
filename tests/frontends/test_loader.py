"""Names, strict reading, refusals, saving, and the hub by way of a local endpoint."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from factory import write_series
from safetensors.torch import load_file, save_file
from tiny_teachers import TINY as TINY_FAMILIES
from tiny_teachers import tiny_teacher

from tsfmc.compiler.base.errors import MissingError, TeacherError, UsageError
from tsfmc.compiler.cli.teachers import command as list_teachers
from tsfmc.compiler.frontends import (
    FRONTENDS,
    build_teacher,
    cards,
    find_card,
    load_teacher,
    open_teacher,
    rebuild_teacher,
    revision_notes,
    save_teacher,
)
from tsfmc.compiler.frontends.checkpoint import weights_sha256
from tsfmc.compiler.frontends.hub import offline_copy

TINY: Mapping[str, Any] = {
    "model_type": "tinytimemixer",
    "context_length": 24,
    "prediction_length": 6,
    "patch_length": 8,
    "patch_stride": 8,
    "d_model": 8,
    "num_layers": 1,
    "decoder_d_model": 8,
    "decoder_num_layers": 1,
}
TASK = {"lookback": 24, "horizon": 6, "variates": 2}
COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def checkpoint(kit: Any, tmp_path: Path) -> Path:
    directory: Path = kit.write_checkpoint(
        tmp_path / "tiny", TINY, kit.tiny_teacher(TINY, **TASK).state_dict()
    )
    return directory


# Names


def test_every_card_belongs_to_a_registered_family_and_has_its_own_name() -> None:
    known = cards()
    names = [card.name for card in known]
    assert len(set(names)) == len(names)
    assert {card.family for card in known} <= set(FRONTENDS)
    assert all((card.repo_id is None) == (card.revision is None) for card in known)
    assert all(card.licence and card.context > 0 for card in known)


def test_cards_are_found_by_name_and_by_hub_id() -> None:
    assert find_card("ttm-r2-1024-96").revision == "1024-96-r2"
    assert find_card("ibm-granite/granite-timeseries-ttm-r2").name == "ttm-r2"
    assert find_card("ibm-granite/granite-timeseries-ttm-r2@1024-96-r2").name == "ttm-r2-1024-96"
    assert find_card("amazon/chronos-bolt-tiny").name == "chronos-bolt-tiny"


def test_a_card_says_whether_its_forecasts_have_quantiles() -> None:
    for card in cards():
        if card.config is None:
            continue
        task = {"lookback": card.config.get("context_length", 96), "horizon": 24, "variates": 1}
        with torch.device("meta"):
            levels = build_teacher(card.config, **task).quantile_levels
            assert bool(levels) is (card.quantiles is True)
            if isinstance(card.quantiles, str):
                name, value = card.quantiles.split("=")
                assert build_teacher(card.config, **task, **{name: value}).quantile_levels


def test_a_card_is_pinned_by_a_commit_or_a_package() -> None:
    assert {card.family for card in cards() if not card.pinned} == {"ttm"}
    assert find_card("fracast").pinned and find_card("ttm-r2").pinned
    assert not find_card("ttm-r2-1024-96").pinned


def test_the_list_says_what_is_pinned_and_what_has_quantiles() -> None:
    lines = CliRunner().invoke(list_teachers, []).output.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert "512-192-r2, not pinned" in rows["ttm-r2-512-192"]
    assert "d6a79570 " in rows["ttm-r2"] and "not pinned" not in rows["ttm-r2"]
    assert "with quantiles=deciles" in rows["moirai-small"]
    told = json.loads(CliRunner().invoke(list_teachers, ["--json"]).output)
    assert {row["name"]: row["pinned"] for row in told} == {card.name: card.pinned for card in cards()}


def test_an_unknown_name_suggests_the_nearest() -> None:
    for look in (find_card, lambda name: load_teacher(name, **TASK)):
        with pytest.raises(UsageError, match="unknown teacher 'ttm-r3'") as caught:
            look("ttm-r3")
        assert "ttm-r2" in caught.value.hint


def test_a_directory_that_is_not_there() -> None:
    for name in ("./nowhere", Path("nowhere"), "/no/such/place"):
        with pytest.raises(TeacherError, match="there is no directory"):
            load_teacher(name, **TASK)


# Strict reading


def test_provenance_of_a_directory(checkpoint: Path) -> None:
    teacher, info = open_teacher(checkpoint, **TASK)
    assert (info.name, info.family, info.licence, info.commercial) == ("tiny", "ttm", "Apache-2.0", True)
    assert info.sha256 == weights_sha256([checkpoint / "model.safetensors"])
    assert info.parameters == sum(p.numel() for p in teacher.parameters())
    assert not teacher.training
    assert open_teacher(str(checkpoint), **TASK)[1] == info


def test_half_precision_is_cast_to_float32(kit: Any, checkpoint: Path) -> None:
    state = load_file(checkpoint / "model.safetensors")
    kit.write_checkpoint(checkpoint, TINY, {name: tensor.bfloat16() for name, tensor in state.items()})
    teacher = load_teacher(checkpoint, **TASK)
    assert {tensor.dtype for tensor in teacher.state_dict().values()} == {torch.float32}


def break_missing(state: dict[str, torch.Tensor]) -> None:
    for name in list(state)[:4]:
        del state[name]


def break_extra(state: dict[str, torch.Tensor]) -> None:
    state["head.extra"] = torch.zeros(2, 3)


def break_shape(state: dict[str, torch.Tensor]) -> None:
    state["head.base_forecast_block.bias"] = torch.zeros(7)


def break_value(state: dict[str, torch.Tensor]) -> None:
    state["head.base_forecast_block.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (break_missing, r"4 missing: \S+ \[.*\], \S+ \[.*\], \S+ \[.*\], \.\.\."),
        (break_extra, r"1 unexpected: head\.extra \[2, 3\]"),
        (break_shape, r"1 of another shape: head\.base_forecast_block\.bias \[7\] instead of \[6\]"),
        (break_value, r"head\.base_forecast_block\.bias holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(kit: Any, checkpoint: Path, breaking: Any, message: str) -> None:
    state = load_file(checkpoint / "model.safetensors")
    breaking(state)
    kit.write_checkpoint(checkpoint, TINY, state)
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher(checkpoint, **TASK)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json"),
        ("{", "configuration: not JSON"),
        ("[1]", "holds a JSON list, expected an object"),
        ("[" * 100_000, "nested deeper"),
        ('{"model_type": "bert"}', r"no teacher family recognises this config.json .*'bert'"),
        ('{"tsfmc": {"family": "elsewhere"}}', "unknown teacher 'elsewhere'"),
        ('{"tsfmc": []}', "tsfmc is a list, expected an object"),
        ('{"tsfmc": {"origin": 3}}', "origin is a int, expected an object"),
        ('{"tsfmc": {"kept": {"a": [-1]}}}', r"kept units of a are \[-1\], expected a list of indices"),
        ('{"tsfmc": {"kept": {"a": [2, 2]}}}', "kept units of a name a unit twice"),
    ],
)
def test_a_configuration_that_cannot_be_read(checkpoint: Path, text: str | None, message: str) -> None:
    (checkpoint / "config.json").unlink()
    if text is not None:
        (checkpoint / "config.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_teacher(checkpoint, **TASK)


def test_a_truncated_file(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(TeacherError, match=r"model\.safetensors is not a readable safetensors file"):
        load_teacher(checkpoint, **TASK)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "model.pt"])
def test_a_pickle_is_not_opened(checkpoint: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(checkpoint / "exploded").touch, ())

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(TeacherError, match=f"the pickle {name}") as caught:
        load_teacher(checkpoint, **TASK)
    assert "safetensors.torch.save_file" in caught.value.hint
    assert not (checkpoint / "exploded").exists()


def test_no_weights_at_all(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"has no model\.safetensors"):
        load_teacher(checkpoint, **TASK)


def shard(checkpoint: Path) -> dict[str, str]:
    state = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, checkpoint / file)
    table = {name: file for file, part in parts.items() for name in part}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return table


def test_shards(kit: Any, checkpoint: Path) -> None:
    past = torch.randn(1, 2, 24)
    whole = load_teacher(checkpoint, **TASK)(past)
    shard(checkpoint)
    teacher, info = open_teacher(checkpoint, **TASK)
    kit.close(teacher(past), whole, 0, 0)
    assert info.sha256 == weights_sha256(
        [checkpoint / "model-1.safetensors", checkpoint / "model-2.safetensors"]
    )


def test_bad_shards(checkpoint: Path) -> None:
    table = shard(checkpoint)
    index = checkpoint / "model.safetensors.index.json"
    for bad in ("../model-1.safetensors", "/etc/passwd", "model.bin"):
        index.write_text(json.dumps({"weight_map": {**table, "x": bad}}))
        with pytest.raises(TeacherError, match="expected a safetensors file beside it"):
            load_teacher(checkpoint, **TASK)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(TeacherError, match="has no weight_map"):
        load_teacher(checkpoint, **TASK)
    index.write_text(json.dumps({"weight_map": table}))
    (checkpoint / "model-2.safetensors").unlink()
    with pytest.raises(MissingError, match=r"lacks the shard model-2\.safetensors"):
        load_teacher(checkpoint, **TASK)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"lookback": 0}, "lookback is 0, expected a positive integer"),
        ({"horizon": -1}, "horizon is -1"),
        ({"variates": True}, "variates is True"),
        ({"lookback": 24.0}, "lookback is 24.0"),
        ({"lookback": None}, "lookback is None"),
    ],
)
def test_an_impossible_task(checkpoint: Path, task: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(checkpoint, **{**TASK, **task})


# Saving


def test_save_and_load(kit: Any, checkpoint: Path, tmp_path: Path) -> None:
    teacher, info = open_teacher(checkpoint, **TASK)
    save_teacher(teacher, tmp_path / "again")
    same, told = open_teacher(tmp_path / "again")
    past = torch.randn(3, 2, 24)
    kit.close(same(past), teacher(past), 0, 0)
    assert same.config == teacher.config
    assert (same.lookback, same.horizon, same.variates) == (24, 6, 2)
    assert (told.name, told.licence, told.source) == (info.name, info.licence, info.source)
    assert same.config["tsfmc"]["origin"]["sha256"] == info.sha256
    assert told.sha256 == weights_sha256([tmp_path / "again" / "model.safetensors"])
    shorter = load_teacher(tmp_path / "again", horizon=4)
    kit.close(shorter(past), teacher(past)[..., :4])
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_what_was_saved_keeps_its_commit_and_cannot_move(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["tsfmc"] = {"origin": {"name": "far", "revision": "main", "commit": COMMIT}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    save_teacher(load_teacher(checkpoint, **TASK), tmp_path / "again")
    info = open_teacher(tmp_path / "again")[1]
    assert (info.name, info.commit, revision_notes(info)) == ("far", COMMIT, ())


OTHER: Mapping[str, dict[str, Any]] = {
    "ttm": {},
    "time-moe": {"normalize": "none", "experts": "dense", "used_heads_only": True},
    "timer": {"normalize": "none"},
    "chronos-bolt": {"drop_dead": True},
    "moirai": {"patch_size": 4, "point": "median", "quantiles": "deciles"},
    "moirai-2": {"rollout": "median"},
    "chronos-2": {"joint": False},
    "timesfm": {"flip": False, "positive": "off", "context": 96},
}
"""Family -> options that are not its defaults."""


@pytest.mark.parametrize("other", [False, True], ids=["defaults", "other options"])
@pytest.mark.parametrize("family", OTHER)
def test_options_need_not_be_said_again(family: str, other: bool, tmp_path: Path) -> None:
    """What was saved says how it was built, defaults too: they may change, a saved model must not."""
    teacher = tiny_teacher(family)
    given = OTHER[family] if other else {}
    if given:
        teacher = rebuild_teacher(teacher, **given)
    save_teacher(teacher, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["tsfmc"]["options"]
    follows_from_the_task = set() if other else {"context"}
    assert saved.keys() >= OTHER[family].keys() - follows_from_the_task
    assert given.items() <= saved.items()
    loaded = load_teacher(tmp_path)
    assert loaded.options == teacher.options
    past = torch.randn(2, teacher.variates, teacher.lookback).cumsum(-1)
    with torch.no_grad():
        got, expected = loaded.outputs(past), teacher.outputs(past)
    assert torch.equal(got.forecast, expected.forecast)
    assert (got.quantiles is None) == (expected.quantiles is None) == (not loaded.quantile_levels)


def test_a_saved_patch_size_stays_with_another_lookback(tmp_path: Path) -> None:
    config, lookback, _ = TINY_FAMILIES["moirai"]
    assert build_teacher(config, lookback=10, horizon=20, variates=2).patch_size == 8
    save_teacher(tiny_teacher("moirai"), tmp_path)
    assert (load_teacher(tmp_path).patch_size, load_teacher(tmp_path).lookback) == (16, lookback)
    assert load_teacher(tmp_path, lookback=10).patch_size == 16


def test_an_interrupted_save_is_no_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_teacher(checkpoint, **TASK)
    teacher.config = {**teacher.config, "broken": object()}  # json.dumps fails after the weights are written
    with pytest.raises(TypeError):
        save_teacher(teacher, checkpoint)
    with pytest.raises(TeacherError, match=r"has no config\.json"):
        load_teacher(checkpoint, **TASK)


def test_a_configuration_rebuilds_an_equal_module(checkpoint: Path) -> None:
    teacher = load_teacher(checkpoint, **TASK)
    again = build_teacher(teacher.config)
    again.load_state_dict(teacher.state_dict(), strict=True)
    past = torch.randn(1, 2, 24)
    assert torch.equal(again(past), teacher(past))
    json.dumps(teacher.config)


# The hub


def test_files_put_in_place_by_hand_serve_a_name(kit: Any) -> None:
    config = find_card("ttm-r2").config
    assert config is not None
    task = {"lookback": 512, "horizon": 96, "variates": 1}
    teacher = kit.tiny_teacher(config, **task)
    kit.write_checkpoint(offline_copy("ttm-r2"), config, teacher.state_dict())
    loaded, info = open_teacher("ttm-r2", **task)
    past = torch.randn(1, 1, 512)
    kit.close(loaded(past), teacher(past), 0, 0)
    assert info.name == "ttm-r2" and info.licence == "Apache-2.0"
    assert "hub:ibm-granite/granite-timeseries-ttm-r2@" in info.source


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a download uses."""

    files: Mapping[str, bytes]
    requests: list[str]

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.requests.append(f"{self.command} {path}")
        if "tiny/ttm" not in path:
            self.reply(404, b"{}", X_Error_Code="RepoNotFound")
        elif "/resolve/" in path:
            body = self.files[path.rsplit("/", 1)[1]]
            self.reply(
                200,
                body,
                ETag=f'"{hash(body):x}"',
                X_Repo_Commit=COMMIT,
                Content_Type="application/octet-stream",
            )
        elif "/tree/" in path:
            rows = [
                {"type": "file", "path": name, "size": len(body), "oid": f"{hash(body):x}"}
                for name, body in self.files.items()
            ]
            self.reply(200, json.dumps(rows).encode(), Content_Type="application/json")
        elif "/revision/v1" in path or f"/revision/{COMMIT}" in path:
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": "tiny/ttm", "sha": COMMIT, "siblings": siblings, "tags": []}
            self.reply(200, json.dumps(about).encode(), Content_Type="application/json")
        else:
            self.reply(404, b"{}", X_Error_Code="RevisionNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository; gives its address and the requests it saw."""
    seen: list[str] = []
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    files |= {
        "modeling_evil.py": b"raise SystemExit('ran')",
        "pytorch_model.bin": b"\x80\x04.",
        "README.md": b"hi",
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"files": files, "requests": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


CHILD = """
import json, sys, torch
from tsfmc.compiler.base.errors import TsfmcError
from tsfmc.compiler.frontends import open_teacher, revision_notes
told = {}
for name in sys.argv[1:]:
    try:
        teacher, info = open_teacher(name, lookback=24, horizon=6, variates=2)
        told[name] = {"source": info.source, "sha256": info.sha256, "licence": info.licence,
                      "revision": info.revision, "commit": info.commit, "notes": revision_notes(info),
                      "forecast": teacher(torch.ones(1, 2, 24).cumsum(-1)).flatten().tolist()}
    except TsfmcError as error:
        told[name] = {"error": type(error).__name__, "exit": error.exit_code, "text": str(error)}
print("TOLD" + json.dumps(told))
"""


def in_fresh_process(
    arguments: list[str], home: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, because huggingface_hub reads its environment at import."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def ask(names: list[str], home: Path, **environment: str) -> dict[str, dict[str, Any]]:
    """What loading these teachers gives."""
    done = in_fresh_process(["-c", CHILD, *names], home, **environment)
    told: dict[str, dict[str, Any]] = json.loads(done.stdout.split("TOLD")[1])
    return told


def test_download_then_offline(checkpoint: Path, hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, requests = hub
    home = tmp_path / "home"
    pinned = f"tiny/ttm@{COMMIT}"
    told = ask(["tiny/ttm@v1", pinned, "tiny/ttm@v9", "nobody/nothing"], home, HF_ENDPOINT=address)
    got = told["tiny/ttm@v1"]
    assert got["source"] == f"hub:tiny/ttm@v1 ({COMMIT})"
    assert (got["revision"], got["commit"]) == ("v1", COMMIT)
    (note,) = got["notes"]
    assert "'v1' of teacher tiny/ttm@v1 is not pinned" in note and COMMIT in note
    assert (told[pinned]["revision"], told[pinned]["commit"]) == (COMMIT, COMMIT)
    assert told[pinned]["notes"] == []
    assert got["sha256"] == weights_sha256([checkpoint / "model.safetensors"])
    assert got["licence"] == "unknown"  # a stranger's repository; only cards know licences
    past = torch.ones(1, 2, 24).cumsum(-1)
    assert got["forecast"] == load_teacher(checkpoint, **TASK)(past).flatten().tolist()
    downloads = {request.rsplit("/", 1)[1] for request in requests if "/resolve/" in request}
    assert downloads == {"config.json", "model.safetensors"}
    for name in ("tiny/ttm@v9", "nobody/nothing"):
        assert (told[name]["error"], told[name]["exit"]) == ("TeacherError", 2)
    assert "revision 'v9'" in told["tiny/ttm@v9"]["text"]

    before = len(requests)
    again = ask(["tiny/ttm@v1", "ttm-r2"], home, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert again["tiny/ttm@v1"] == got
    assert len(requests) == before
    lost = again["ttm-r2"]
    assert (lost["error"], lost["exit"]) == ("MissingError", 3)
    assert "config.json and model.safetensors" in lost["text"]
    assert str(offline_copy("ttm-r2")) in lost["text"]


def test_the_manifest_records_the_commit(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    """And the compile warns, once, that a tag was asked for."""
    series = write_series(tmp_path / "series.csv", rows=300, variates=2)
    settings = [
        "pipeline=['build_student']",
        "task.lookback=24",
        "task.horizon=6",
        "measure.duration_s=0.1",
        "measure.teacher_forms=['eager']",
    ]
    done = in_fresh_process(
        ["-m", "tsfmc", "compile", "--teacher", "tiny/ttm@v1", "--data", str(series), "--target", "onnx"]
        + ["--out", str(tmp_path / "out"), "--no-baseline"]
        + [part for setting in settings for part in ("--set", setting)],
        tmp_path / "home",
        HF_ENDPOINT=hub[0],
    )
    assert done.stderr.count("revision 'v1' of teacher tiny/ttm@v1 is not pinned") == 1
    teacher = json.loads((tmp_path / "out/onnx/manifest.json").read_text())["teacher"]
    assert (teacher["revision"], teacher["commit"]) == ("v1", COMMIT)


def test_nobody_answers(tmp_path: Path) -> None:
    told = ask(["tiny/ttm@v1"], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")["tiny/ttm@v1"]
    assert (told["error"], told["exit"]) == ("MissingError", 3)
    assert str(offline_copy("tiny/ttm@v1")) in told["text"]
