"""Checkpoints from the Hugging Face hub: configuration and safetensors only, never code, never pickles."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from ..base.content import cache_root
from ..base.errors import MissingError, TeacherError
from .base import COMMIT
from .checkpoint import CONFIG, INDEX, WEIGHTS

ALLOWED = (CONFIG, "model*.safetensors", INDEX)
REPO_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")

ANSWER_S = 3.0
"""A hub that does not answer within it is not there: huggingface_hub itself tries five times, for 40 s and
more.  ``HF_HUB_ETAG_TIMEOUT``, its own setting for slow connections, is taken where it is set."""
COMMERCIAL = frozenset(
    {"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "unlicense", "cc0-1.0"}
    | {"cc-by-4.0", "cc-by-3.0", "cc-by-2.0", "mpl-2.0", "bsl-1.0", "afl-3.0", "wtfpl", "0bsd"}
)
"""Licences, as cards on the hub name them, that allow commercial use of the weights and of what is made of
them.  Those with conditions on the use, and all that are not named here, do not count."""


@dataclass(frozen=True)
class Licence:
    """A licence and whether it allows commercial use; ``from_hub``: the card on the hub says so."""

    name: str
    commercial: bool
    from_hub: bool = False


def offline_copy(name: str) -> Path:
    """The directory where a user without a connection puts the files of teacher ``name``."""
    return cache_root() / "teachers" / name.replace("/", "--")


def fetch(repo_id: str, revision: str, name: str) -> Path:
    """Downloads a checkpoint, or finds it in the hub's cache.

    ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are huggingface_hub's own and hold here.

    Args:
        repo_id: ``owner/name``.
        revision: commit, branch or tag.
        name: the teacher's name, for messages and for :func:`offline_copy`.

    Raises:
        TeacherError: the hub has no such repository or revision, or does not give it to this user.
        MissingError: the hub cannot be reached and its cache has no complete copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        HTTPError,  # the HTTP client's own base class, whichever client this version uses
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    silent = not _is_answering()
    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=list(ALLOWED), local_files_only=silent
            )
        )
    except GatedRepoError as error:
        raise TeacherError(
            f"the hub gives {repo_id} only to users who accepted its terms",
            hint="accept them on its page and set HF_TOKEN",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise TeacherError(
            f"the hub has no {repo_id} at revision {revision!r}",
            hint="for a local checkpoint give its directory; for a private one set HF_TOKEN",
        ) from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise MissingError(
            f"teacher {name}: {CONFIG} and {WEIGHTS} of {repo_id} at revision {revision!r}"
            f" are not in the hub's cache and could not be downloaded ({_why(error, silent)})",
            hint=f"connect, or put the two files into {offline_copy(name)}",
        ) from error


def hub_licence(repo_id: str, revision: str) -> Licence | None:
    """What the card of a repository says; ``unknown`` where it does not, or the hub cannot be asked.

    None for a repository that the hub does not have or does not show: ``fetch`` says what that means.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    unknown = Licence("an unknown licence", False, from_hub=True)
    if not _is_answering():
        return unknown
    try:
        card = HfApi().model_info(repo_id, revision=revision, timeout=_patience()).card_data
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        return None
    except Exception:  # whatever the hub's client has for a broken answer: then nothing is known
        return unknown
    name = card.get("license") if card is not None else None
    if not isinstance(name, str):
        return unknown
    return Licence(name, name.lower() in COMMERCIAL, from_hub=True)


def _is_answering() -> bool:
    """Whether the hub gives any answer at all, in time.

    Asked in a thread, because looking up a name takes its own time, whatever limit the request has.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=_patience()))
        except Exception:  # no connection, whatever the HTTP client calls it
            return

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_patience())
    return bool(answers)


def _patience() -> float:
    from huggingface_hub import constants

    given = "HF_HUB_ETAG_TIMEOUT" in os.environ
    return float(constants.HF_HUB_ETAG_TIMEOUT) if given else ANSWER_S


def commit_of(snapshot: Path) -> str:
    """The commit that a downloaded snapshot holds; empty when the path does not say."""
    return snapshot.name if COMMIT.fullmatch(snapshot.name) else ""


def _why(error: Exception, silent: bool) -> str:
    from huggingface_hub import constants

    if not silent:
        return _first_line(error)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    patience = f"{_patience():g} s; HF_HUB_ETAG_TIMEOUT gives it longer"
    return f"{constants.ENDPOINT} gave no answer within {patience}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
