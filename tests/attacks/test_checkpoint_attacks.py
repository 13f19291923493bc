"""Checkpoints: absurd sizes, wrong types and broken headers end in one line, cheaply."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_teachers import TINY, WHOLE, tiny_teacher

from tsfmc.compiler.base.errors import TeacherError
from tsfmc.compiler.frontends import open_teacher, save_teacher

FAMILIES = {**TINY, **WHOLE}
GIB = 1 << 30
SECONDS = 10.0
ABSURD: tuple[Any, ...] = (10**7, 300_000, "x", [], {}, -1, 1.5, True)
# The largest attacks: fields by which layers, widths and tables grow.
SIZES = {
    "ttm": ("num_layers", "d_model", "expansion_factor", "adaptive_patching_levels", "patch_length"),
    "time-moe": ("num_hidden_layers", "hidden_size", "num_experts", "intermediate_size"),
    "timer": ("num_hidden_layers", "hidden_size", "input_token_len", "num_attention_heads"),
    "chronos-bolt": ("num_layers", "d_model", "d_ff", "num_decoder_layers", "relative_attention_num_buckets"),
    "moirai": ("num_layers", "d_model", "patch_sizes"),
    "moirai-2": ("num_layers", "d_model", "d_ff", "patch_size"),
    "chronos-2": ("num_layers", "d_model", "d_ff", "num_heads"),
    "timesfm": ("num_hidden_layers", "hidden_size", "intermediate_size", "head_dim"),
}
DIVISORS = {
    "timesfm": ("num_key_value_heads", "num_attention_heads", "head_dim", "hidden_size", "patch_length"),
    "timer": ("num_attention_heads", "input_token_len"),
    "chronos-2": ("num_heads",),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of every family."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for family in SIZES:
        save_teacher(tiny_teacher(family), folder / family)
    return folder


def _open(directory: Path, family: str) -> None:
    _, lookback, horizon = FAMILIES[family]
    open_teacher(directory, lookback=lookback, horizon=horizon, variates=2)


def _refused(directory: Path, family: str, case: object = "") -> str:
    """The one line; the peak of this process's memory must not have grown by a GiB."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TeacherError) as caught:
        _open(directory, family)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1500, (case, line)
    assert time.process_time() - began < SECONDS, case
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GIB, case
    return line


@pytest.mark.parametrize("family", SIZES)
def test_absurd_sizes_and_types_are_refused(written: Path, tmp_path: Path, family: str) -> None:
    config = json.loads((written / family / "config.json").read_text())
    shutil.copy(written / family / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    _open(tmp_path, family)
    for field in SIZES[family]:
        for value in ABSURD:
            if value is True and field == "relative_attention_num_buckets":
                continue
            (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
            _refused(tmp_path, family, (field, value))


@pytest.mark.parametrize("family", DIVISORS)
def test_a_size_of_nothing_is_refused_by_its_name(written: Path, tmp_path: Path, family: str) -> None:
    config = json.loads((written / family / "config.json").read_text())
    shutil.copy(written / family / "model.safetensors", tmp_path)
    for field in DIVISORS[family]:
        (tmp_path / "config.json").write_text(json.dumps({**config, field: 0}))
        assert f"{field} is 0, expected an integer of at least 1" in _refused(tmp_path, family)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nested": [{"size": 2**40}]}, r"nested\.0\.size is 1099511627776, expected at most 2147483647"),
        ({"tsfmc": {"family": 3}}, "family is 3"),
        ({"tsfmc": {"lookback": "48"}}, "lookback is '48'"),
        ({"tsfmc": {"horizon": 0}}, "horizon is 0"),
        ({"tsfmc": {"origin": {"licence": []}}}, r"origin\.licence is \[\]"),
        ({"tsfmc": {"origin": {"commercial": "yes"}}}, r"origin\.commercial is 'yes'"),
        ({"architectures": 1.5, "model_type": {}}, "no teacher family recognises"),
    ],
)
def test_what_is_added_to_a_configuration_has_types(
    written: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copy(written / "ttm/model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TINY["ttm"][0], **change}))
    with pytest.raises(TeacherError, match=message):
        _open(tmp_path, "ttm")


def test_a_number_that_is_none_is_refused(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "ttm/model.safetensors", tmp_path)
    text = (written / "ttm/config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"d_model": 24', '"d_model": NaN'))
    with pytest.raises(TeacherError, match="NaN is not allowed"):
        _open(tmp_path, "ttm")


def _entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A file whose header was changed, its numbers as they were."""

    def edit(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return edit


def _first(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for name, entry in header.items() if name != "__metadata__")
    return found


def _last(header: dict[str, Any]) -> dict[str, Any]:
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    found: dict[str, Any] = max(tensors, key=lambda entry: entry["data_offsets"])
    return found


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "absurd header length": (
        lambda c: struct.pack("<Q", 1 << 60) + c[8:],
        "its header has 1152921504606846976",
    ),
    "negative-looking length": (lambda c: b"\xff" * 8 + c[8:], "its header has"),
    "truncated": (lambda c: c[:-100], "its header describes"),
    "no header": (lambda c: c[:5], "its header has"),
    "empty": (lambda c: b"", "its header has 0 bytes"),
    "trailing bytes": (lambda c: c + b"x" * 64, "its header describes"),
    "no JSON": (lambda c: c[:9] + b"x" + c[10:], "not JSON"),
    "overlap": (_entry(lambda h: _last(h).update(data_offsets=[0, 8])), "expected"),
    "huge shape": (_entry(lambda h: _last(h).update(shape=[10**12])), "expected"),
    "negative shape": (_entry(lambda h: _first(h).update(shape=[-4])), "shape.0 is -4"),
    "strings": (_entry(lambda h: _first(h).update(shape=["4"])), "shape.0 is '4'"),
    "unknown type": (_entry(lambda h: _first(h).update(dtype="OBJECT")), "is OBJECT of shape"),
    "another size": (_entry(lambda h: _first(h).update(dtype="F16")), "expected"),
    "bits as integers": (
        _entry(lambda h: [e.update(dtype="I32") for n, e in h.items() if "dtype" in e]),
        "type",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_weights_are_refused(written: Path, tmp_path: Path, name: str) -> None:
    edit, reason = BROKEN[name]
    shutil.copy(written / "ttm/config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(edit((written / "ttm/model.safetensors").read_bytes()))
    assert reason in _refused(tmp_path, "ttm")


def test_weights_that_are_not_finite_are_refused(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "ttm/config.json", tmp_path)
    state = load_file(written / "ttm/model.safetensors")
    name = next(iter(state))
    state[name] = torch.full_like(state[name], torch.inf)
    save_file(state, tmp_path / "model.safetensors")
    assert "not finite" in _refused(tmp_path, "ttm")
