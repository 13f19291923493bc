"""One small real specimen of every format, what may be done to it, and the readers that it is handed to."""

from __future__ import annotations

import gzip
import os
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from factory import HORIZON, LOOKBACK, write_series, write_teacher
from tiny_teachers import TINY, WHOLE, tiny_teacher

from .draw import Draw, alone, cells, header_length, one_of, place, raw, tree, zipped
from .edits import Edit

ROWS, NEW_ROWS = 400, 120
TASK = ("--lookback", str(LOOKBACK), "--horizon", str(HORIZON))
SMALL = (
    *TASK, "--no-baseline", "--set", "student.maps=shared", "--set", "passes.solve_affine.ridges=[100]",
    "--set", "measure.duration_s=0.05", "--set", "measure.min_queries=64",
)  # fmt: skip
SPECIMEN = "specimen"
"""Name of the mutant in the folder that a reader works in."""


@dataclass(frozen=True)
class Reader:
    """Something that takes a specimen.

    Attributes:
        call: run with the working directory that holds the specimen; its exit code, or it exits.
        output: files (a pattern) that are part of the result beside standard output.
        verifies: whether its purpose is to see every change.
        warns: pattern of what it says of something that it shows and cannot vouch for.
    """

    name: str
    call: Callable[[], object]
    output: str = ""
    verifies: bool = False
    warns: str = ""


@dataclass(frozen=True)
class Format:
    """A format under attack.

    Attributes:
        source: the specimen in the corpus, a file or a folder.
        draws: pattern of file names -> how they are edited; the first that fits is taken.
        readers: one is drawn for a mutant.
        weight: share of all mutants.
        seals: how the hashes may be redone, ``""`` for not at all.
        editable: whether anybody may edit it: then another result is legal.
        code: files that are code: nothing but a signature tells an edited one from another, so with redone
            hashes they are left alone.
        signed: whether a signature guards the hashes: then redoing them is no way in.
    """

    name: str
    source: str
    draws: Mapping[str, Draw]
    readers: Sequence[Reader]
    weight: float
    seals: Sequence[str] = ("",)
    editable: bool = False
    code: Sequence[str] = ()
    signed: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)

    def draw(self, rng: random.Random, root: Path) -> tuple[list[Edit], Reader]:
        """Edits of a specimen at ``root``, hashes redone or not, and the reader."""
        folder = root if root.is_dir() else root.parent
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in (folder.rglob("*") if root.is_dir() else [root])
            if path.is_file() and self._draw_of(path.relative_to(folder).as_posix())
        )
        seal = rng.choice(self.seals)
        names = [name for name in names if not (seal and any(fnmatch(name, each) for each in self.code))]
        weights = [self.shares.get(name, 1.0) for name in names]
        edits: list[Edit] = []
        for _ in range(1 if rng.random() < 0.8 else 2):
            (name,) = rng.choices(names, weights)
            moved = place if root.is_dir() else alone
            here = moved if rng.random() < 0.05 else self._draw_of(name)
            assert here is not None
            edits += here(rng, folder, name)
        edits += [{"do": "seal", "as": seal}] if seal else []
        return edits, rng.choice(self.readers)

    def _draw_of(self, name: str) -> Draw | None:
        return next((draw for pattern, draw in self.draws.items() if fnmatch(name, pattern)), None)


def cli(name: str, *arguments: str, output: str = "", verifies: bool = False, warns: str = "") -> Reader:
    """A command of tsfmc, as its own process would run it."""

    def call() -> object:
        from tsfmc.compiler.cli import main

        os.environ["TSFMC_CACHE"] = SPECIMEN if name == "cached" else "cache"
        sys.argv = ["tsfmc", *arguments]
        main()
        return 0

    return Reader(name, call, output, verifies, warns)


def device(script: Path, name: str, *arguments: str) -> Reader:
    """A command of the ``run.py`` of an intact artifact: an edited script is other code."""

    def call() -> object:
        sys.argv = ["run.py", "--artifact", SPECIMEN, *arguments]
        runpy.run_path(str(script), run_name="__main__")
        return 0

    return Reader(name, call, verifies=arguments[0] == "verify")


def _extend() -> object:
    """What an update does with statistics: found, checked, extended by new rows and solved."""
    import numpy as np

    from tsfmc.compiler.base.errors import TsfmcError
    from tsfmc.compiler.driver.update import find_state
    from tsfmc.targets.artifact.open import read_manifest

    try:
        artifact = Path(SPECIMEN, "onnx")
        state = find_state(artifact, read_manifest(artifact))
        rows = np.random.default_rng(0).standard_normal((NEW_ROWS, len(state.header.variates)))
        for array in state.extend(rows).solution().arrays():
            print(np.asarray(array).tobytes().hex()[:4000])
    except TsfmcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def formats(corpus: Path) -> list[Format]:
    """All formats; ``corpus`` is what ``build`` made."""
    return [
        *(_artifact(corpus, kind) for kind in _targets(corpus)),
        _archive(corpus),
        _signature(corpus),
        _store(corpus),
        _cache(corpus),
        *(_checkpoint(corpus, family) for family in FAMILIES),
        *_recipes(corpus),
        *_tables(corpus),
        _statistics(),
    ]


def _targets(corpus: Path) -> list[str]:
    return [kind for kind in TARGETS if (corpus / "out" / kind).is_dir()]


TARGETS = ("onnx", "tvm", "trt", "c")
FAMILIES = (*TINY, *(family for family in WHOLE if family != "fracast"))
JSON = one_of({tree("json"): 5, raw: 1})
TOML = one_of({tree("toml"): 5, raw: 1})
NPY = one_of({tree("npy"): 1, raw: 2})
SAFETENSORS = one_of({tree("safetensors"): 3, raw: 2, header_length: 0.5})


def _artifact_draws() -> dict[str, Draw]:
    return {"manifest.json": JSON, "*.json": JSON, "*.npy": NPY, "*.toml": TOML, "*": raw}


NATIVE = ("*.so", "*.a", "*.c", "*.h", "*.py", "*.sh", "*.pt2", "*.elf", "predict*")


def _artifact(corpus: Path, kind: str) -> Format:
    inputs, script = str(corpus / "series.csv"), corpus / "out" / kind / "run.py"
    readers = (
        cli("verify", "verify", SPECIMEN, verifies=True),
        cli("forecast", "forecast", SPECIMEN, "--input", inputs, "--json"),
        cli("inspect", "inspect", SPECIMEN, warns="nothing vouches for it"),
        cli("inspect --json", "inspect", SPECIMEN, "--json", warns=r'"problems": \[\n'),
        device(script, "run.py verify", "verify"),
        device(script, "run.py selftest", "selftest"),
        device(script, "run.py forecast", "forecast", inputs, "--json"),
    )
    return Format(
        f"artifact {kind}", f"out/{kind}", _artifact_draws(), readers, 1.3,
        ("", "sums", "artifact", "artifact"), code=NATIVE,
        shares={"manifest.json": 12, "SHA256SUMS": 3, "selftest/past.npy": 2},
    )  # fmt: skip


def _archive(corpus: Path) -> Format:
    inner = _artifact(corpus, "onnx")
    folder = corpus / "out/onnx"

    def inside(rng: random.Random, root: Path, name: str) -> list[Edit]:
        """An edit of a file in the archive."""
        edits, _ = inner.draw(rng, folder)
        return [{"do": "archive", "file": name, "edits": edits}]

    draw = one_of({zipped(): 3, inside: 3, raw: 3})
    # What is around the contents, such as dates, has no hash: equal contents are an equal archive.
    readers = [replace(each, verifies=False) for each in inner.readers if not each.name.startswith("run.py")]
    return Format("archive", "specimen.tsfmc", {"*": draw}, readers, 1.0)


def _signature(corpus: Path) -> Format:
    """A signed artifact where its key is demanded: no edit is believed, of code or with redone hashes."""
    trust = ("--trust", str(corpus / "key.pem"))
    inputs, script = str(corpus / "series.csv"), corpus / "out/onnx/run.py"
    readers = (
        cli("verify --trust", "verify", SPECIMEN, *trust, verifies=True),
        cli("forecast --trust", "forecast", SPECIMEN, "--input", inputs, "--json", *trust),
        device(script, "run.py verify --trust", "verify", *trust),
    )
    shares = {"model.sig": 20, "manifest.json": 4, "SHA256SUMS": 4}
    draws = {"model.sig": JSON, **_artifact_draws()}
    return Format("signature", "signed", draws, readers, 1.0, ("", "artifact"), signed=True, shares=shares)


def _learn(name: str, *arguments: str) -> Reader:
    compiled = (
        "compile",
        *arguments,
        *SMALL,
        "-o",
        "out",
        "--stop-after",
        "solve_affine",
        "--dump-after",
        "solve_affine",
    )
    return cli(name, *compiled, output="out/dump/*")


def _store(corpus: Path) -> Format:
    data = ("--data", str(corpus / "series.csv"))
    draws = {"*.json": JSON, "*.npy": NPY}
    reader = _learn("compile --teacher-store", "--teacher-store", SPECIMEN, *data)
    shares = {"store.json": 6, "train/forecast.npy": 3}
    return Format("teacher store", "store", draws, [reader], 0.9, ("", "", "store"), shares=shares)


def _cache(corpus: Path) -> Format:
    reader = _learn("cached", "--teacher-store", str(corpus / "store"), "--data", str(corpus / "series.csv"))
    draws = {"*.json": JSON, "*.npy": NPY, "*.safetensors": SAFETENSORS, "*": raw}
    return Format("cache", "cache", draws, [reader], 0.9, ("", "", "cache"))


def _checkpoint(corpus: Path, family: str) -> Format:
    """Weights have no hash to keep to: anybody may train them further."""
    rows = str(corpus / f"{family}.csv")
    _, lookback, horizon = {**TINY, **WHOLE}[family]
    asked = ("--lookback", str(lookback), "--horizon", str(horizon), "--no-baseline")
    reader = cli(
        "compile --teacher", "compile", "--teacher", f"./{SPECIMEN}", "--data", rows, *asked, "-o", "out",
        "--stop-after", "import", "--dump-after", "import", output="out/dump/*",
    )  # fmt: skip
    draws = {"config.json": JSON, "*.safetensors": SAFETENSORS}
    return Format(
        f"checkpoint {family}",
        f"checkpoints/{family}",
        draws,
        [reader],
        0.15,
        editable=True,
        shares={"config.json": 2},
    )


def _recipes(corpus: Path) -> list[Format]:
    readers = [cli("compile --dry-run", "compile", "--recipe", SPECIMEN, "--dry-run", "--json")]
    return [
        Format("recipe", "recipe.toml", {"*": TOML}, readers, 0.6, editable=True),
        Format("lock", "out/recipe.lock.toml", {"*": TOML}, readers, 0.4, editable=True),
    ]


def _tables(corpus: Path) -> list[Format]:
    artifact = str(corpus / "out/onnx")
    found = []
    for name, suffix, draw, weight in (
        ("csv", "series.csv", cells, 0.6),
        ("gzip csv", "series.csv.gz", cells, 0.4),
        ("parquet", "series.parquet", raw, 0.5),
    ):
        table = f"{SPECIMEN}{suffix.removeprefix('series')}"
        readers = [
            cli("forecast", "forecast", artifact, "--input", table, "--json"),
            cli("compile --data", "compile", "--teacher", str(corpus / "teacher"), "--data", table, *TASK,
                "-o", "out", "--stop-after", "import", "--dump-after", "import", output="out/dump/*"),
        ]  # fmt: skip
        found.append(Format(name, suffix, {"*": draw}, readers, weight, editable=True))
    return found


def _statistics() -> Format:
    draws = {
        "*.safetensors": one_of({tree("statistics"): 3, tree("safetensors"): 2, raw: 2, header_length: 0.3})
    }
    reader = Reader("update", _extend)
    return Format("statistics", "updatable", draws, [reader], 0.7, ("", "statistics", "statistics"))


# Building


def build(corpus: Path) -> Path:
    """Makes every specimen, in about half a minute; a folder that is complete already is left as it is.

    In a process of its own: threads that a compile starts would stand in the way of forking.
    """
    if (corpus / "complete").is_file():
        return corpus
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir(parents=True)
    program = "import sys; from pathlib import Path; from fuzz.corpus import make; make(Path(sys.argv[1]))"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (corpus / "build.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", program, str(corpus)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path},
        )
    if done.returncode:
        raise RuntimeError(f"no corpus: {(corpus / 'build.log').read_text()[-2000:]}")
    return corpus


def make(corpus: Path) -> None:
    """What ``build`` does, in this process."""
    _write_tables(corpus)
    write_teacher(corpus / "teacher", variates=2)
    series, store = str(corpus / "series.csv"), str(corpus / "store")
    os.environ["TSFMC_CACHE"] = str(corpus / "cache")
    small = ("--set", "measure.duration_s=0.05", "--set", "measure.min_queries=64")
    _tsfmc("teach", "--teacher", str(corpus / "teacher"), "--data", series, *TASK, *small, "-o", store)
    targets = [option for kind in _buildable() for option in ("--target", kind)]
    from_store = ("compile", "--teacher-store", store, "--data", series, *SMALL)
    _tsfmc(*from_store, *targets, "-o", str(corpus / "out"))
    _finish(corpus)


def _finish(corpus: Path) -> None:
    from tsfmc.compiler.frontends import save_teacher
    from tsfmc.targets.artifact.archive import pack_zip
    from tsfmc.targets.artifact.sign import sign_artifact

    shutil.rmtree(corpus / "cache/tvm", ignore_errors=True)  # native code: an edited one is other code
    pack_zip(corpus / "out/onnx", corpus / "specimen.tsfmc")
    shutil.copytree(corpus / "out/onnx", corpus / "signed")
    _write_keys(corpus)
    sign_artifact(corpus / "signed", corpus / "private.pem")
    (corpus / "updatable").mkdir()
    shutil.copytree(corpus / "out/onnx", corpus / "updatable/onnx")
    shutil.copy(corpus / "out/statistics.safetensors", corpus / "updatable")
    for family in FAMILIES:
        save_teacher(tiny_teacher(family), corpus / "checkpoints" / family)
        (corpus / f"{family}.csv").symlink_to("series.csv")
    (corpus / "recipe.toml").write_text(RECIPE)
    (corpus / "complete").touch()


def _write_keys(corpus: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (corpus / "private.pem").write_bytes(private)
    (corpus / "key.pem").write_bytes(public)


def _write_tables(corpus: Path) -> None:
    import pandas as pd

    write_series(corpus / "series.csv", rows=ROWS, variates=2)
    content = (corpus / "series.csv").read_bytes()
    (corpus / "series.csv.gz").write_bytes(gzip.compress(content, mtime=0))
    pd.read_csv(corpus / "series.csv", parse_dates=["date"]).to_parquet(corpus / "series.parquet")


def _buildable() -> list[str]:
    from tsfmc.targets import TARGETS as KNOWN

    return [kind for kind in TARGETS if kind in set(KNOWN) and KNOWN[kind].probe().can_lower]


def _tsfmc(*arguments: str) -> None:
    from tsfmc.compiler.cli import cli as command

    command.main(args=list(arguments), standalone_mode=False)


RECIPE = """version = 1
teacher = "fracast"
data = "sample"
targets = ["onnx", "tvm"]
seed = 3
pipeline = ["record_teacher", "build_student", "weight_horizons", "gather_statistics", "solve_affine"]

[task]
lookback = 512
horizon = 48
variates = "EWR_temp,JFK_temp"
split = "1400,300,700"
missing = "ffill"

[student]
kind = "dlinear"
maps = "low-rank"
rank = 8

[passes.solve_affine]
lambdas = [0.0, 0.5, inf]
ridges = [10.0, 100.0]

[passes.weight_horizons]
tau = 0.5

[target_options.tvm]
device = "raspberry-pi-4"
form = "runtime-free"
batch = 2

[measure]
duration_s = 0.5

[budget]
max_p90_us = 100.0
max_payload_bytes = 100000
"""
