"""An artifact goes to the Hugging Face hub: checked first, with its card, in one commit.

1. What ``verify`` refuses is not uploaded.  An artifact of another device has its files and hashes checked;
   its self-test runs there.
2. What the teacher's licence does not let one share is not published.  A private repository publishes
   nothing.
3. ``artifact/`` in the repository becomes this artifact: a file that a former one left there would be a
   file without a hash, and nobody who downloads it could verify the rest.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...compiler.base.errors import LicenceError, MissingError, UsageError
from ..artifact.open import read_manifest, verify_artifact
from .hugging_face import HuggingFace
from .layout import write_package

SHAREABLE = re.compile(
    r"(?i)(apache|mit|bsd|isc|zlib|unlicense|cc0|cc-by(?!.*-nd)|mpl|afl|artistic|0bsd)\b[\w.+-]*"
)
"""Licences that let one share what is made of the weights: the permissive ones, and those of Creative Commons
but for "no derivatives".  A condition, such as no commercial use, goes along in the card."""
TOKEN_HINT = "log in with hf auth login, or set HF_TOKEN"


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or would be.

    Attributes:
        repo: ``owner/name``.
        files: name -> bytes.
        findings: what was checked, one line each.
        url: of the commit; None where nothing was uploaded.
    """

    repo: str
    files: dict[str, int]
    findings: tuple[str, ...]
    url: str | None


def push_artifact(
    artifact: Path, repo: str, *, endpoint: str | None = None, private: bool = False, dry_run: bool = False
) -> Pushed:
    """Uploads an artifact, a directory or a ``.tsfmc`` file, as a model repository, which is made if need be.

    The token is that of ``HF_TOKEN`` or of the stored login, as in huggingface_hub; so is ``HF_ENDPOINT``.

    Args:
        repo: ``owner/name``.
        endpoint: of another hub.
        private: make a private repository; one that is there stays what it is.
        dry_run: check everything, upload nothing.

    Raises:
        VerificationError: the artifact is not intact, or its self-test fails.
        LicenceError: the teacher's licence is not known to allow sharing, and ``private`` is not asked for.
        UsageError: ``repo`` is no name, or the hub refuses it.
        MissingError: no such artifact, no login, or no connection.
    """
    check_repo(repo)
    findings = _verified(artifact)
    check_shareable(artifact, private)
    with tempfile.TemporaryDirectory(prefix="tsfmc-") as place:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", repo.split("/")[1])[:64].strip("-_")
        folder = write_package(artifact, HuggingFace(), Path(place) / "repository", name or "forecaster")
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
        url = None if dry_run else _upload(folder, repo, endpoint, private)
    return Pushed(repo, files, tuple(findings), url)


def check_repo(repo: str) -> None:
    """Refuses what is no ``owner/name``.

    Raises:
        UsageError: it is not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UsageError(f"repository {repo[:100]!r}: expected owner/name, as the hub names them")


def check_shareable(artifact: Path, private: bool) -> None:
    """Rule 2.

    Raises:
        LicenceError: see there.
    """
    manifest = read_manifest(artifact)
    teacher = (manifest.get("teacher") or {}).get("name", "the teacher")
    licence = str((manifest.get("licence") or {}).get("spdx") or "an unknown licence")
    if not private and not SHAREABLE.fullmatch(licence):
        raise LicenceError(
            f"the weights of {teacher} are under {licence}, which is not known to allow sharing what is made "
            "of them",
            hint="--private uploads to a repository that nobody else sees",
        )


def _verified(artifact: Path) -> list[str]:
    try:
        return verify_artifact(artifact)
    except MissingError as error:
        if not artifact.exists():
            raise
        return [*verify_artifact(artifact, execute=False), f"self-test: not run here: {error.what}"]


def _upload(folder: Path, repo: str, endpoint: str | None, private: bool) -> str:
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=endpoint, library_name="tsfmc")
    with _hub_errors(hub.endpoint, repo), _bars_on_a_terminal():
        # None, not False: the owner's own default holds, and a repository that is there is left as it is.
        hub.create_repo(repo, private=private or None, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"{folder.name}: an artifact of tsfmc",
            delete_patterns=["artifact/*"],
        )
    return str(done.commit_url)


@contextmanager
def _bars_on_a_terminal() -> Iterator[None]:
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _hub_errors(endpoint: str, repo: str) -> Iterator[None]:
    """Whatever the hub's client raises, as one line that says what to do."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,  # the HTTP client's own base class, whichever client this version uses
        LocalTokenNotFoundError,
    )

    try:
        yield
    except LocalTokenNotFoundError:
        raise MissingError(f"{endpoint} needs a login", hint=TOKEN_HINT) from None
    except HfHubHTTPError as error:
        raise _refusal(error.response.status_code, str(error.server_message or ""), endpoint, repo) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise MissingError(
            f"{endpoint} could not be reached, or broke off: {reason or type(error).__name__}",
            hint="connect and push again: what is there already is not sent twice",
        ) from error


def _refusal(status: int, said: str, endpoint: str, repo: str) -> MissingError | UsageError:
    says = f": {said[:200]}" if said else ""
    if status == 401:
        return MissingError(f"{endpoint} does not know who this is (HTTP 401{says})", hint=TOKEN_HINT)
    if status == 403:
        return UsageError(
            f"{endpoint} does not let this login write to {repo} (HTTP 403{says})",
            hint="take a token that may write, and an owner that is yours",
        )
    if status == 404:
        return UsageError(
            f"{endpoint} has no {repo} for this login (HTTP 404{says})", hint="is the owner right?"
        )
    if status >= 500:
        return MissingError(f"{endpoint} fails (HTTP {status}{says})", hint="try again later")
    return UsageError(f"{endpoint} refuses {repo} (HTTP {status}{says})")
