"""Broken, truncated, edited and hostile artifacts: each is refused with exit code 5, naming the file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import make_artifact

from tsfmc.compiler.base.errors import MissingError, VerificationError
from tsfmc.targets.artifact.archive import pack_zip
from tsfmc.targets.artifact.device.check import find_problems
from tsfmc.targets.artifact.device.cli import main
from tsfmc.targets.artifact.device.errors import ArtifactError
from tsfmc.targets.artifact.device.files import MAX_FILE_BYTES, ArtifactFiles
from tsfmc.targets.artifact.device.forecaster import Forecaster
from tsfmc.targets.artifact.device.rows import header_cell
from tsfmc.targets.artifact.open import open_artifact, read_manifest, verify_artifact
from tsfmc.targets.artifact.write import seal


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("intact") / "art"
    make_artifact(path)
    return path


@pytest.fixture
def art(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "art"))


def rewrite_sums(art: Path, extra: str = "") -> None:
    """What an attacker does who knows the format: the hashes agree again."""
    names = [line.split("  ")[1] for line in (art / "SHA256SUMS").read_text().splitlines()]
    lines = [f"{hashlib.sha256((art / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (art / "SHA256SUMS").write_text("".join(lines) + extra)


def edit_manifest(art: Path, change: Callable[[dict[str, Any]], object], *, hashes: bool = True) -> None:
    manifest = json.loads((art / "manifest.json").read_text())
    change(manifest)
    (art / "manifest.json").write_text(json.dumps(manifest))
    if hashes:
        rewrite_sums(art)


def truncate(art: Path) -> None:
    content = (art / "model.onnx").read_bytes()
    (art / "model.onnx").write_bytes(content[: len(content) // 2])


def flip_a_bit(art: Path) -> None:
    content = bytearray((art / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (art / "model.onnx").write_bytes(content)


def link_payload(art: Path) -> None:
    (art / "model.onnx").rename(art.parent / "elsewhere.onnx")
    (art / "model.onnx").symlink_to(art.parent / "elsewhere.onnx")


def link_folder(art: Path) -> None:
    (art / "selftest").rename(art.parent / "elsewhere")
    (art / "selftest").symlink_to(art.parent / "elsewhere")


def fifo(art: Path) -> None:
    (art / "model.onnx").unlink()
    os.mkfifo(art / "model.onnx")


def sparse_payload(art: Path) -> None:
    with (art / "model.onnx").open("r+b") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)


def sparse_at(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x")


def sparse(art: Path, name: str, size: int) -> None:
    with (art / name).open("wb") as stream:
        stream.truncate(size)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated payload": (truncate, r"model\.onnx was changed"),
    "edited payload": (flip_a_bit, r"model\.onnx was changed"),
    "edited runner": (lambda art: (art / "run.py").write_text("print(1)"), r"run\.py was changed"),
    "edited self-test": (
        lambda art: np.save(art / "selftest/past.npy", np.zeros((1, 3, 32))),
        r"selftest/past\.npy was changed",
    ),
    "edited manifest": (
        lambda art: edit_manifest(art, lambda m: m["task"].update(horizon=9), hashes=False),
        r"manifest\.json was changed",
    ),
    "missing payload": (lambda art: (art / "model.onnx").unlink(), r"model\.onnx is listed .* but missing"),
    "missing manifest": (
        lambda art: (art / "manifest.json").unlink(),
        r"manifest\.json is listed .* but missing",
    ),
    "missing sums": (lambda art: (art / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "extra file": (lambda art: (art / "plugin.so").write_bytes(b"x"), r"plugin\.so is not listed"),
    "extra module": (lambda art: (art / "numpy.py").write_text("x"), r"numpy\.py is not listed"),
    "extra file below": (
        lambda art: (art / "selftest/x.npy").write_bytes(b"x"),
        r"selftest/x\.npy is not listed",
    ),
    "compiled code": (
        lambda art: sparse_at(art / "__pycache__/run.cpython-311.pyc"),
        r"__pycache__/run\.cpython-311\.pyc is not listed",
    ),
    "code that the manifest declares": (
        lambda art: (
            edit_manifest(art, lambda m: m["target"].update(device_files=["json.py", "engine.bin"])),
            (art / "json.py").write_text("print('owned')"),
        ),
        r"json\.py is not listed",
    ),
    "a file that the manifest declares": (
        lambda art: (
            edit_manifest(art, lambda m: m["target"].update(device_files=["engine.bin"])),
            (art / "engine.bin").write_bytes(b"x"),
        ),
        r"engine\.bin is not listed",
    ),
    "sums with the signature": (
        lambda art: rewrite_sums(art, f"{'0' * 64}  model.sig\n"),
        r"'model\.sig' is not allowed",
    ),
    "extra link": (lambda art: (art / "more").symlink_to("/etc"), "more is not listed"),
    "payload is a link": (link_payload, r"model\.onnx is a symbolic link"),
    "folder is a link": (link_folder, r"selftest.* (is a symbolic link|is not listed)"),
    "payload is a pipe": (fifo, r"model\.onnx is not a plain file"),
    "payload too large": (sparse_payload, r"model\.onnx has 4294967297 bytes, expected at most"),
    "sums too large": (lambda art: sparse(art, "SHA256SUMS", 2 << 20), "SHA256SUMS has 2097152 bytes"),
    "manifest too large": (lambda art: sparse(art, "manifest.json", 17 << 20), r"manifest\.json"),
    "sums not text": (lambda art: (art / "SHA256SUMS").write_bytes(b"\xff\xfe"), "SHA256SUMS cannot be read"),
    "sums without hash": (lambda art: (art / "SHA256SUMS").write_text("hello\n"), "SHA256SUMS line 1"),
    "sums with parent": (
        lambda art: rewrite_sums(art, f"{'0' * 64}  ../../etc/passwd\n"),
        r"'\.\./\.\./etc/passwd'",
    ),
    "sums with absolute": (lambda art: rewrite_sums(art, f"{'0' * 64}  /etc/passwd\n"), "'/etc/passwd'"),
    "sums with inner parent": (
        lambda art: rewrite_sums(art, f"{'0' * 64}  selftest/../x\n"),
        "is not allowed",
    ),
    "sums with backslash": (lambda art: rewrite_sums(art, f"{'0' * 64}  ..\\x\n"), "is not allowed"),
    "sums with control": (lambda art: rewrite_sums(art, f"{'0' * 64}  a\x1b[2Jb\n"), "is not allowed"),
    "sums with a double": (lambda art: rewrite_sums(art, f"{'0' * 64}  run.py\n"), "'run.py' is not allowed"),
    "sums too long": (
        lambda art: rewrite_sums(art, "".join(f"{'0' * 64}  f{n}\n" for n in range(2000))),
        "lists 200. files",
    ),
}

MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other schema": (lambda m: m.update(schema=2), "has schema 2, this runner reads schema 1"),
    "no target": (lambda m: m.pop("target"), "field target"),
    "unknown target": (lambda m: m["target"].update(kind="evil"), "field target.kind: got 'evil'"),
    "entry elsewhere": (lambda m: m["target"].update(entry="../x.onnx"), "field target.entry"),
    "entry not listed": (
        lambda m: m["target"].update(entry="y.onnx"),
        "field target.entry: 'y.onnx' is not a file",
    ),
    "horizon text": (lambda m: m["task"].update(horizon="8"), "field task.horizon"),
    "horizon true": (lambda m: m["task"].update(horizon=True), "field task.horizon"),
    "lookback without end": (
        lambda m: m["task"].update(lookback=10**30),
        "field task.lookback: expected a p",
    ),
    "policy unknown": (
        lambda m: m["task"].update(missing="mean"),
        "field task.missing: expected one of error",
    ),
    "step negative": (lambda m: m["task"].update(step_seconds=-3600), "field task.step_seconds"),
    "frequency number": (lambda m: m["task"].update(frequency=[7]), "field task.frequency"),
    "output larger": (
        lambda m: m["target"].update(output_shape=[1, 3, 10**9]),
        r"field target\.output_shape: expected \[batch, 3, 8\] as in the task",
    ),
    "output smaller": (lambda m: m["target"].update(output_shape=[1, 3, 1]), r"field target\.output_shape"),
    "input larger": (lambda m: m["target"].update(input_shape=[1, 10**6, 32]), r"field target\.input_shape"),
    "batch of a shape": (lambda m: m["target"].update(input_shape=[10**9, 3, 32]), r"field target\.batch"),
    "batch": (
        lambda m: m["target"].update(batch=10**9),
        r"field target\.batch: expected an integer from 1 to",
    ),
    "batch of a profile": (lambda m: m["target"].update(batch={"max": 10**9}), r"field target\.batch"),
    "batch text in a shape": (lambda m: m["target"].update(input_shape=["1", 3, 32]), r"target\.input_shape"),
    "window too large": (
        lambda m: m["task"].update(lookback=1 << 20, horizon=1 << 20, variates=list("abcdefghi")),
        "field task: expected a window of up to 16777216 numbers",
    ),
    "variates too many": (
        lambda m: m["task"].update(variates=[str(n) for n in range(70_000)]),
        "expected 1 to 65536 names",
    ),
    "variate too long": (lambda m: m["task"].update(variates=["a" * 2000, "b", "c"]), "each up to 1000 long"),
    "variate twice": (lambda m: m["task"].update(variates=["a", "a", "b"]), "a name occurs twice"),
    "deep": (
        lambda m: m.update(passes=json.loads("[" * 70 + "]" * 70)),
        r"manifest\.json is not valid JSON: it nests deeper than 64",
    ),
    "a number too long": (lambda m: m.update(size={"x": 10**50}), "51 digits, expected at most 40"),
    "self-test is no object": (lambda m: m.update(selftest=[1]), r"field selftest\.tolerance"),
    "device file is code": (
        lambda m: m["target"].update(device_files=["json.py"], kind="evil"),
        "field target.kind: got 'evil'",
    ),
    "no variates": (lambda m: m["task"].update(variates=[]), "field task.variates"),
    "std zero": (lambda m: m["input"].update(std=[1.0, 0.0, 1.0]), "field input.std"),
    "std short": (lambda m: m["input"].update(std=[1.0]), "field input.std: expected 3 finite numbers"),
    "mean nan": (lambda m: m["input"].update(mean=[1.0, float("nan"), 1.0]), "NaN is not a number"),
    "file sizes": (
        lambda m: m["files"]["model.onnx"].update(bytes=1),
        r"model\.onnx has \d+ bytes, expected 1",
    ),
    "file hashes": (lambda m: m["files"]["run.py"].update(sha256="0" * 64), r"files: run\.py does not agree"),
    "file unknown": (
        lambda m: m["files"].update({"x": {"bytes": 1, "sha256": "0" * 64}}),
        "files: x does not agree",
    ),
    "files of another part": (
        lambda m: m.update(files={"windows": {"train": 3}}),
        "files: model.onnx does not agree",
    ),
    "file without a hash": (lambda m: m["files"].update(windows={}), "files: windows does not agree"),
    "tolerance 1": (lambda m: m["selftest"].update(tolerance=1e9), "field selftest.tolerance"),
}


def assert_refused(art: Path, says: str) -> None:
    """By ``verify``, by the runner, and by ``load`` as far as loading reads the part."""
    with pytest.raises(VerificationError, match=says) as caught:
        verify_artifact(art)
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)


@pytest.mark.parametrize(("attack", "says"), FILES.values(), ids=FILES.keys())
def test_files(
    attack: Callable[[Path], object], says: str, art: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack(art)
    assert_refused(art, says)
    with pytest.raises(VerificationError, match=says):
        open_artifact(art)
    assert main(["--artifact", str(art), "verify"]) == 5
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(("change", "says"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_manifests_whose_hashes_agree(
    change: Callable[[dict[str, Any]], object], says: str, art: Path
) -> None:
    edit_manifest(art, change)
    assert_refused(art, says)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{", "[" * 100_000, '{"schema": 1}', '{"schema": "1"}'),
        '{"schema": 1, "schema": 1}',
        '{"schema": 1e999}',
        '{"schema": ' + "1" * 5000 + "}",
        '{"schema": "\\ud800\\u001b[2J"}',
    ],
    ids=lambda text: text[:8],
)
def test_manifests_that_are_no_manifest(text: str, art: Path) -> None:
    (art / "manifest.json").write_text(text)
    rewrite_sums(art)
    assert_refused(art, r"manifest\.json")


def npy(dtype: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """An array file whose header may lie."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


ARRAYS: dict[str, bytes] = {
    "empty": b"",
    "not an array": b"hello",
    "huge shape": npy("<f8", (10**12, 3, 32), b"\0" * 64),
    "overflowing shape": npy("<f8", (2**62, 3, 32), b"\0" * 64),
    "negative shape": npy("<f8", (-1, 3, 32), b"\0" * 64),
    "code in the header": npy("<f8", (1, 3, 32), b"").replace(b"False", b"exit( )"),
    "objects": npy("|O", (1, 3, 32), b"\0" * 64),
    "wrong dtype": npy("<f4", (1, 3, 32), b"\0" * 4 * 96),
    "wrong lookback": npy("<f8", (1, 3, 31), b"\0" * 8 * 93),
    "no window": npy("<f8", (0, 3, 32), b""),
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS.keys())
def test_self_test_arrays_whose_hashes_agree(content: bytes, art: Path) -> None:
    (art / "selftest/past.npy").write_bytes(content)
    seal(art, read_manifest(art))
    assert_refused(art, r"selftest/past\.npy")


def test_nothing_is_ever_unpickled(art: Path, tmp_path: Path) -> None:
    array = np.empty((1, 3, 32), dtype=object)
    array[:] = Bomb(tmp_path / "owned")
    for content in (pickle.dumps(Bomb(tmp_path / "owned")), _saved(array)):
        (art / "selftest/past.npy").write_bytes(content)
        seal(art, read_manifest(art))
        assert_refused(art, r"selftest/past\.npy")
    assert not (tmp_path / "owned").exists()


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_a_payload_that_the_runtime_refuses_is_one_line(art: Path) -> None:
    (art / "model.onnx").write_bytes(b"not a model")
    seal(art, read_manifest(art))
    with pytest.raises(MissingError, match=r"cannot be loaded here: .*needs numpy, onnxruntime") as caught:
        open_artifact(art)
    assert "\n" not in str(caught.value)


def test_code_is_never_unlisted_even_where_a_target_declares_it(art: Path) -> None:
    for name in ("late.py", "late.so", "LATE.PYC", "late.pth", "late.zip"):
        (art / name).write_bytes(b"x")
        assert any(name in line for line in find_problems(art, (name, "model.engine")))
        (art / name).unlink()
    (art / "model.engine").write_bytes(b"built here")
    assert list(find_problems(art, ("model.engine",))) == []


def test_what_is_opened_is_what_was_hashed(art: Path) -> None:
    """A file that is replaced after the check is never taken: content and hash come from one reading."""

    class Late:
        def __init__(self, files: ArtifactFiles, manifest: dict[str, Any], threads: int) -> None:
            path = files.directory / manifest["target"]["entry"]
            path.unlink()
            path.write_bytes(b"another")
            files.read(path.name)
            pytest.fail("the new content was taken")

    with pytest.raises(ArtifactError, match=r"model\.onnx was changed while it was opened"):
        Forecaster(art, engine=Late)


def test_self_test_vectors_are_read_as_they_were_hashed(art: Path) -> None:
    forecaster = open_artifact(art)
    np.save(art / "selftest/past.npy", np.zeros((1, 3, 32)))
    with pytest.raises(VerificationError, match=r"selftest/past\.npy was changed while it was opened"):
        forecaster.selftest()


@pytest.mark.parametrize("name", ["../other.onnx", "other.onnx"])
def test_files_are_read_through_no_link(name: str, art: Path) -> None:
    (art.parent / "other.onnx").write_bytes(b"x")
    (art / "other.onnx").symlink_to("../other.onnx")
    with pytest.raises(ArtifactError):
        ArtifactFiles(art, {}).read(name)
    with pytest.raises(ArtifactError, match="is missing or not a plain file"):
        ArtifactFiles(art).read("other.onnx")


def test_a_model_of_other_shapes_is_refused_before_it_runs(art: Path) -> None:
    edit_manifest(art, lambda m: m["task"].update(horizon=7))
    with pytest.raises(VerificationError, match=r"forecast of the program is .*, the task's \[batch, 3, 7\]"):
        open_artifact(art)


def test_external_data_in_the_working_directory_are_not_read(
    art: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From memory onnxruntime would look there."""
    import onnx

    model = onnx.load(art / "model.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    (art / "model.onnx").write_bytes(model.SerializeToString())
    seal(art, read_manifest(art))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="cannot be loaded here"):
        open_artifact(art)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=cmd|'/c calc'!A0", "'=cmd|'/c calc'!A0"),
        ("+1", "'+1"),
        (" \t@SUM(A1)", "' \\t@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("load;=1+1", "load;'=1+1"),
        ("load\x1b[2J", "load\\x1b[2J"),
        ("a\n=1", "a\\n=1"),
        ("load (MW) - net", "load (MW) - net"),
    ],
)
def test_names_in_headers_are_no_formula_and_no_escape(name: str, cell: str) -> None:
    assert header_cell(name) == cell


def test_external_data_outside_the_artifact_is_not_read(art: Path, tmp_path: Path) -> None:
    """A model whose weights point to a file elsewhere: onnxruntime must not follow it."""
    import onnx

    model = onnx.load(art / "model.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    (art / "model.onnx").write_bytes(model.SerializeToString())
    seal(art, read_manifest(art))
    with pytest.raises(MissingError, match="cannot be loaded here"):
        open_artifact(art)


# --- .tsfmc --------------------------------------------------------------------------------------


def zipped(path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in entries:
            archive.writestr(info, content, compress_type=info.compress_type)
    return path


def entry(name: str, *, mode: int = 0o100644, compress: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.filename = name  # ZipInfo would cut a name at a NUL and turn a backslash
    info.external_attr, info.compress_type = mode << 16, compress
    return info


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([(entry("../escaped"), b"x")], r"'\.\./escaped'"),
        ([(entry("/tmp/escaped"), b"x")], "'/tmp/escaped'"),
        ([(entry("a/../../escaped"), b"x")], "not allowed"),
        ([(entry("..\\escaped"), b"x")], "not allowed"),
        ([(entry("folder/"), b"")], "'folder/'"),
        ([(entry("link", mode=0o120777), b"/etc/passwd")], "'link' is not a plain file"),
        ([(entry("bomb", compress=zipfile.ZIP_DEFLATED), b"\0" * 10_000_000)], "'bomb' is compressed"),
        ([(entry("a"), b"x"), (entry("a"), b"y")], "'a' occurs twice"),
        ([(entry(f"f{n}"), b"") for n in range(1001)], "1001 entries"),
    ],
    ids=["parent", "absolute", "inner parent", "backslash", "folder", "link", "bomb", "double", "many"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips(entries: list[tuple[zipfile.ZipInfo, bytes]], says: str, tmp_path: Path) -> None:
    assert_refused(zipped(tmp_path / "x.tsfmc", entries), says)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tsfmc"]


def test_zips_that_lie_about_sizes(intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tsfmc"
    pack_zip(intact, path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last entry of the central directory
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    assert_refused(path, r"x\.tsfmc")


@pytest.mark.parametrize("keep", [0, 10, 1000, -10])
def test_truncated_zips(keep: int, intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tsfmc"
    pack_zip(intact, path)
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(path, r"x\.tsfmc is not a readable")


def test_a_zip_behind_something_else(intact: Path, tmp_path: Path) -> None:
    """To a loader of another kind it would be a program, and no hash covers that."""
    path = tmp_path / "x.tsfmc"
    pack_zip(intact, path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert_refused(path, "has bytes before its first entry")


def test_an_edited_byte_in_a_zip(intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tsfmc"
    pack_zip(intact, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"forecaster")] ^= 1
    path.write_bytes(content)
    assert_refused(path, r"CRC-32|was changed")
