"""Many mutants: each drawn from its own number, read in a child, judged; counts by format, failures kept."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import seals  # noqa: F401  registers the edit "seal"
from .child import Ending, load_modules, run
from .corpus import SPECIMEN, Format, Reader
from .edits import Edit, apply
from .judge import Expectation, Verdict, judge

SECONDS = 20.0
WARM_SECONDS = 300.0
"""For the untouched specimen, whose reader still has everything to import."""
CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """A mutant, so that it can be made again from the corpus."""

    format: str
    reader: str
    edits: list[Edit]


@dataclass(frozen=True)
class Found:
    """A mutant and what became of it."""

    number: int
    case: Case
    verdict: Verdict
    seconds: float
    peak_bytes: int
    error: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Campaign:
    """Reads mutants of some formats.

    Args:
        corpus: folder of the specimens.
        formats: what is attacked.
        seconds: wall limit of a reader.
    """

    def __init__(self, corpus: Path, formats: Sequence[Format], *, seconds: float = SECONDS) -> None:
        self.corpus, self.formats, self.seconds = corpus, {each.name: each for each in formats}, seconds
        self.scratch = Path(tempfile.mkdtemp(prefix="tsfmc-fuzz-"))
        self._expected: dict[tuple[str, str], tuple[int, str]] = {}

    def __enter__(self) -> Campaign:
        self._warm()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _warm(self) -> None:
        """Every reader once on an untouched specimen: what it should give, and what it imports."""
        seen = set()
        for each in self.formats.values():
            for reader in each.readers:
                listing = self.scratch / "modules"
                ending, result = self._read(each, reader, [], _listing(reader.call, listing), WARM_SECONDS)
                if ending.code not in (0, 3):
                    raise RuntimeError(
                        f"{each.name}: {reader.name} fails on the specimen: {ending.stderr[-2000:]}"
                    )
                self._expected[each.name, reader.name] = ending.code, result
                load_modules(set(listing.read_text().split()) - seen)
                seen |= set(sys.modules)
        # Children then share the pages of what is loaded, as far as they leave it alone.
        gc.collect()
        gc.freeze()

    def draw(self, number: int, seed: int) -> Case:
        """The mutant of this number."""
        rng = random.Random(f"{seed}:{number}")
        known = list(self.formats.values())
        (chosen,) = rng.choices(known, [each.weight for each in known])
        while True:
            edits, reader = chosen.draw(rng, self.corpus / chosen.source)
            if edits:
                return Case(chosen.name, reader.name, _renamed(edits, chosen, self.corpus))

    def judge(self, case: Case) -> tuple[Verdict, Ending]:
        """Makes the mutant, hands it to its reader, and judges."""
        chosen = self.formats[case.format]
        reader = next(each for each in chosen.readers if each.name == case.reader)
        ending, result = self._read(chosen, reader, case.edits, reader.call, self.seconds)
        code, before = self._expected[chosen.name, reader.name]
        sealed = any(
            "seal" in (each["do"], *(inner["do"] for inner in each.get("edits", ()))) for each in case.edits
        )
        legal = sealed and not chosen.signed
        seen = reader.verifies and not legal and self._touched
        expected = Expectation(code, before, chosen.editable or legal, seen, reader.warns)
        return judge(ending, result, expected), ending

    def _read(
        self,
        chosen: Format,
        reader: Reader,
        edits: Sequence[Edit],
        call: Callable[[], object],
        seconds: float,
    ) -> tuple[Ending, str]:
        work = self.scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        source = self.corpus / chosen.source
        name = mutant_name(chosen, self.corpus)
        if source.is_dir():
            shutil.copytree(source, work / name)
            before = _content(work / name)
            apply(work / name, edits)
            self._touched = _content(work / name) != before
        else:
            shutil.copy(source, work / name)
            apply(work, edits)
            self._touched = not (work / name).is_file() or (work / name).read_bytes() != source.read_bytes()
        ending = run(call, work, seconds)
        written = sorted(work.glob(reader.output)) if reader.output else []
        files = [path.read_text(errors="replace") for path in written if path.is_file()]
        result = "\n".join([ending.stdout, *files]).replace(str(work), "<work>")
        # An error is told by its last line: what is said before it counts time.
        return ending, result if ending.code == 0 else result + ending.stderr.strip().rpartition("\n")[2]

    def attack(self, numbers: Iterable[int], seed: int) -> Iterator[Found]:
        """One mutant after the other."""
        for number in numbers:
            case = self.draw(number, seed)
            verdict, ending = self.judge(case)
            error = "" if verdict.allowed else ending.stderr[-1500:]
            yield Found(number, case, verdict, ending.seconds, ending.peak_bytes, error)


def mutant_name(chosen: Format, corpus: Path) -> str:
    """Files keep their endings: readers go by them."""
    source = corpus / chosen.source
    if source.is_dir() or source.suffix == ".toml" or source.suffix == ".tsfmc":
        return SPECIMEN
    return SPECIMEN + "".join(source.suffixes)


def _renamed(edits: list[Edit], chosen: Format, corpus: Path) -> list[Edit]:
    source = corpus / chosen.source
    if source.is_dir():
        return edits
    return [
        {**each, "file": mutant_name(chosen, corpus) if each.get("file") == source.name else each["file"]}
        for each in edits
    ]


def _listing(call: Callable[[], object], path: Path) -> Callable[[], object]:
    """``call``, with the names of all modules left in a file."""

    def listed() -> object:
        try:
            return call()
        finally:
            path.write_text("\n".join(sys.modules))

    return listed


def _content(folder: Path) -> str:
    """Hash of all that must not change unseen.

    A table of the user's may lie beside an artifact, and a signature can say the same in other words.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".csv", ".gz", ".sig"):
            continue
        digest.update(
            f"{path.relative_to(folder)}{path.lstat().st_mode}{path.lstat().st_size}".encode(
                "utf-8", "replace"
            )
        )
        if path.is_file() and path.stat().st_size < 1 << 26:
            digest.update(path.read_bytes() if not path.is_symlink() else b"link")
    return digest.hexdigest()


def fingerprint(found: Found) -> str:
    """Equal for failures that are probably the same defect."""
    first = found.case.edits[0]
    where = [found.case.format.split()[0], found.verdict.kind, found.verdict.why]
    if found.verdict.kind in ("silent", "unseen", "hang", "memory", "crash"):
        where += [first["do"], first.get("file", ""), str(first.get("path", ""))]
    return hashlib.sha256(json.dumps(where).encode()).hexdigest()[:10]


def keep(found: Found, folder: Path = CASES) -> Path:
    """Writes a failure as a case, unless one like it is there."""
    path = folder / f"{found.case.format.replace(' ', '-')}-{found.verdict.kind}-{fingerprint(found)}.json"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        was = {"was": f"{found.verdict.kind}: {found.verdict.why}"}
        path.write_text(json.dumps({**was, **asdict(found.case)}, indent=1, ensure_ascii=True) + "\n")
    return path


def read_case(path: Path) -> Case:
    """A kept case."""
    fields = json.loads(path.read_text())
    return Case(fields["format"], fields["reader"], fields["edits"])


def counts(found: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Format -> outcome -> mutants, from the lines that ``Found.to_json`` gives."""
    table: dict[str, Counter[str]] = {}
    for each in found:
        name = each["case"]["format"]
        row = table.setdefault("checkpoint" if name.startswith("checkpoint") else name, Counter())
        row[each["verdict"]["kind"]] += 1
    return table
