"""Checkpoints from the Hugging Face hub: configuration and safetensors only, never code, never pickles."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.content import cache_root
from ..base.errors import MissingError, TeacherError
from .base import COMMIT
from .checkpoint import CONFIG, INDEX, WEIGHTS

ALLOWED = (CONFIG, "model*.safetensors", INDEX)
REPO_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


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

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(ALLOWED)))
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
            f" are not in the hub's cache and could not be downloaded ({_first_line(error)})",
            hint=f"connect, or put the two files into {offline_copy(name)}",
        ) from error


def commit_of(snapshot: Path) -> str:
    """The commit that a downloaded snapshot holds; empty when the path does not say."""
    return snapshot.name if COMMIT.fullmatch(snapshot.name) else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
