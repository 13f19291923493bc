"""Known data sets: where they are found, where they are published, and what they must be."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import Request, urlopen

from ..base.content import cache_root
from ..base.errors import DataError, MissingError, unknown_name
from ..base.progress import Progress, Silent, Task
from .dialect import PLAIN, Dialect
from .formats import Fingerprint, fingerprint, is_csv

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq", ".xlsx")
SAMPLE = "sample"
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60

# The hashes below are of the bundle of the Time-Series-Library at one revision; ETT is the same, byte for
# byte, in its own repository.  Copies with other line ends circulate and are refused.
_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_LTSF = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/2b66e59ee19dac8f6f19fb5d4997f289fdfea357"


@dataclass(frozen=True)
class KnownData:
    """A published benchmark file.

    Attributes:
        name: canonical name.
        url: public address of the CSV.
        sha256: of the CSV.
        rows: rows without the header.
        frequency: pandas offset alias.
        borders: published rows of train, val and test, or None for the LTSF fractions.
    """

    name: str
    url: str
    sha256: str
    rows: int
    frequency: str
    borders: tuple[int, int, int] | None = None


_HOURLY, _QUARTERLY = (8640, 2880, 2880), (34560, 11520, 11520)
KNOWN = {
    known.name.lower(): known
    for known in (
        KnownData(
            "ETTh1",
            f"{_ETT}/ETTh1.csv",
            "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            17420,
            "h",
            _HOURLY,
        ),
        KnownData(
            "ETTh2",
            f"{_ETT}/ETTh2.csv",
            "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
            17420,
            "h",
            _HOURLY,
        ),
        KnownData(
            "ETTm1",
            f"{_ETT}/ETTm1.csv",
            "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
            69680,
            "15min",
            _QUARTERLY,
        ),
        KnownData(
            "ETTm2",
            f"{_ETT}/ETTm2.csv",
            "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
            69680,
            "15min",
            _QUARTERLY,
        ),
        # 81 cells are -9999, one timestamp is repeated and nine are missing: kept, as everybody does.
        KnownData(
            "weather",
            f"{_LTSF}/weather/weather.csv",
            "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
            52696,
            "10min",
            (36887, 5270, 10539),
        ),
        KnownData(
            "exchange",
            f"{_LTSF}/exchange_rate/exchange_rate.csv",
            "48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842",
            7588,
            "D",
        ),
        KnownData(
            "electricity",
            f"{_LTSF}/electricity/electricity.csv",
            "7e45845d54c5219bad0ae6bc1b5316cf8ff9cead5d33fa998a5a51c2e4a497ad",
            26304,
            "h",
        ),
        KnownData(
            "traffic",
            f"{_LTSF}/traffic/traffic.csv",
            "cb06463d56fa17d87f47027cd9389ceae82a69eddee51cdb61480e120dab0b16",
            17544,
            "h",
        ),
        KnownData(
            "ili",
            f"{_LTSF}/illness/national_illness.csv",
            "93601f64d2566dc796ca4305adad8b8560c2db1a1ff04543c3bd813a7263570a",
            966,
            "W-TUE",
        ),
    )
}


@dataclass(frozen=True)
class Source:
    """A file to read, what is known about it, and its content where that was looked at."""

    path: Path
    name: str
    known: KnownData | None = None
    content: Fingerprint | None = None


def is_data(source: str | Path) -> bool:
    """Whether ``source`` is a known name, or a file by whose name it is data."""
    text = str(source).lower()
    return text == SAMPLE or text in KNOWN or (text.endswith(SUFFIXES) and not Path(source).is_dir())


def known_names() -> tuple[str, ...]:
    """Every name that ``--data`` takes besides a file."""
    return (*sorted(known.name for known in KNOWN.values()), SAMPLE)


def find_source(source: str | Path, progress: Progress | None = None, dialect: Dialect = PLAIN) -> Source:
    """The file behind a name or a path; a known name that is nowhere here is downloaded.

    A path whose file has the name and the very bytes of a known data set is that data set too.

    Raises:
        UsageError: a name that nothing has.
        DataError: a path that is not a CSV, Parquet or Excel file.
        MissingError: a known name that could not be downloaded.
    """
    key = str(source).lower()
    if key == SAMPLE:
        return Source(Path(__file__).parent / "sample" / "sample.csv", SAMPLE)
    if key in KNOWN:
        known = KNOWN[key]
        return Source(_locate(known) or _fetch(known, progress), known.name, known)
    path = Path(source)
    if not path.exists() and path.name == str(source) and not path.suffix:
        raise unknown_name("data set", str(source), known_names())
    return _recognised(file_source(path), dialect)


def _recognised(source: Source, dialect: Dialect) -> Source:
    """A file that has the name and the content of a published one is that one, wherever it lies."""
    known = KNOWN.get(source.name.lower())
    if known is None or not is_csv(source.path):
        return source
    content = fingerprint(source.path, dialect)
    if content.sha256 != known.sha256:
        return replace(source, content=content)
    return Source(source.path, known.name, known, content)


def file_source(path: Path) -> Source:
    """A file of the user's own.

    Raises:
        DataError: there is no such file, or its suffix is not that of a CSV, Parquet or Excel file.
    """
    if not path.exists():
        raise DataError(f"data file {path} does not exist", hint="give a CSV, Parquet or Excel file")
    if not path.is_file():
        raise DataError(f"{path} is not a file", hint="give a CSV, Parquet or Excel file")
    suffix = next((s for s in sorted(SUFFIXES, key=len)[::-1] if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise DataError(
            f"{path.name} is not a CSV, Parquet or Excel file", hint=f"expected one of {', '.join(SUFFIXES)}"
        )
    return Source(path, path.name[: -len(suffix)])


def download(url: str, sha256: str, target: Path, name: str, progress: Progress | None = None) -> Path:
    """Fetch ``url`` to ``target``: complete and with the pinned hash, or not at all.

    Raises:
        MissingError: the address cannot be reached or answers with an error.
        DataError: what it serves has another hash.
    """
    by_hand = f"fetch it by other means and put it at {target}, or as {target.name} into $TSFMC_DATA"
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial_name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    partial = Path(partial_name)
    try:
        with os.fdopen(handle, "wb") as out:
            found = _copy(url, out, name, progress or Silent())
        if found != sha256:
            raise DataError(
                f"{name}: {url} serves a file with sha256 {found}, expected {sha256}", hint=by_hand
            )
        partial.replace(target)
    except (URLError, OSError, ValueError) as error:
        reason = str(getattr(error, "reason", "") or error).replace("\n", " ")
        status = f"HTTP {error.code} " if hasattr(error, "code") else ""
        raise MissingError(
            f"{name} is not here and {url} could not be read: {status}{reason}", hint=by_hand
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _copy(url: str, out: IO[bytes], name: str, progress: Progress) -> str:
    """Stream ``url`` into ``out``; the sha256 of what came.  A connection cut short is an error."""
    with urlopen(Request(url, headers={"User-Agent": "tsfmc"}), timeout=_TIMEOUT_S) as response:
        length = response.headers.get("Content-Length")
        if length is None:
            progress.line(f"download {name} from {url}, size unknown")
            return _copy_blocks(response, out, Silent())[0]
        with progress.task(f"download {name}", int(length)) as task:
            digest, done = _copy_blocks(response, out, task)
    if done != int(length):
        raise OSError(f"the connection ended after {done} of {length} bytes")
    return digest


def _copy_blocks(response: IO[bytes], out: IO[bytes], task: Task) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    while block := response.read(_BLOCK_BYTES):
        digest.update(block)
        out.write(block)
        done += len(block)
        task.advance(len(block))
    return digest.hexdigest(), done


def is_here(known: KnownData) -> bool:
    """Whether a published file needs no download."""
    return _locate(known) is not None


def _locate(known: KnownData) -> Path | None:
    folders = [cache_root() / "data"]
    if configured := os.environ.get("TSFMC_DATA"):
        folders.insert(0, Path(configured))
    candidates = (folder / f"{known.name}{suffix}" for folder in folders for suffix in (".csv", ".csv.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _fetch(known: KnownData, progress: Progress | None) -> Path:
    mirror = os.environ.get("TSFMC_DATA_URL")
    url = f"{mirror.rstrip('/')}/{known.name}.csv" if mirror else known.url
    return download(url, known.sha256, cache_root() / "data" / f"{known.name}.csv", known.name, progress)
