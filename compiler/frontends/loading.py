"""From a name to a teacher: short names, hub ids and directories.

Revisions of the cards are pinned to a commit where a public source gives it, else to the branch or tag
under which the checkpoint is published (:func:`revision_notes` says so); the commit that was really read and
the sha256 of the weights are recorded in :class:`~.base.TeacherInfo` either way.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.errors import TeacherError, unknown_name
from ..ir.forecaster import Teacher, parameter_count
from ..ir.provenance import TeacherInfo
from .base import COMMIT, TeacherCard
from .checkpoint import CONFIG, weights_sha256
from .families import FRONTENDS
from .hub import REPO_ID, Licence, commit_of, fetch, hub_licence, offline_copy
from .recognise import read_teacher


def cards() -> list[TeacherCard]:
    """Every published teacher that tsfmc knows by name; of two of one name the first."""
    known: dict[str, TeacherCard] = {}
    for family, found in FRONTENDS.each(lambda family: tuple(family.cards)):
        for card in found:
            first = known.setdefault(card.name, card)
            if first is not card:
                FRONTENDS.warn(
                    f"teacher {card.name!r} of family {family} is left out: "
                    f"the name belongs to family {first.family}"
                )
    return list(known.values())


def find_card(name: str) -> TeacherCard:
    """The card of a short name or of a hub id (``owner/name`` or ``owner/name@revision``).

    Raises:
        UsageError: no card has this name; the hint gives the nearest.
    """
    card = _card(name)
    if card is None:
        raise unknown_name("teacher", name, [card.name for card in cards()])
    return card


def _card(name: str) -> TeacherCard | None:
    known = cards()
    for card in known:
        if card.name == name:
            return card
    match = REPO_ID.fullmatch(name)
    for card in known:
        if match and card.repo_id == match["repo"] and match["revision"] in (None, card.revision):
            return card
    return None


def load_teacher(
    name_or_dir: str | Path,
    *,
    lookback: int | None = None,
    horizon: int | None = None,
    variates: int | None = None,
    **family_options: Any,
) -> Teacher:
    """A pretrained teacher, in evaluation mode; see :func:`open_teacher`."""
    return open_teacher(name_or_dir, lookback=lookback, horizon=horizon, variates=variates, **family_options)[
        0
    ]


def open_teacher(
    name_or_dir: str | Path,
    *,
    lookback: int | None = None,
    horizon: int | None = None,
    variates: int | None = None,
    **family_options: Any,
) -> tuple[Teacher, TeacherInfo]:
    """A pretrained teacher and its provenance.

    Args:
        name_or_dir: short name (``ttm-r2``), hub id (``ibm-granite/granite-timeseries-ttm-r2``, with
            ``@revision`` if wanted), or a directory with ``config.json`` and ``model.safetensors``.
        lookback: steps of the past; may be left out for a directory that tsfmc saved, like the next two.
        horizon: steps of the forecast.
        variates: number of variates.
        family_options: options of the family, such as ``patch_size`` of Moirai.

    Raises:
        UsageError: the name is unknown.
        TeacherError: checkpoint, configuration or task cannot be used; the message says where and why.
        MissingError: files, a connection or an optional package are missing.
    """
    task = {"lookback": lookback, "horizon": horizon, "variates": variates, **family_options}
    name = str(name_or_dir)
    card = _card(name) if isinstance(name_or_dir, str) else None
    if card is not None:
        return _open_card(card, task)
    if Path(name_or_dir).is_dir():
        return _open_directory(Path(name_or_dir), task)
    match = REPO_ID.fullmatch(name)
    if match and isinstance(name_or_dir, str) and not name.startswith("."):
        revision = match["revision"] or "main"
        return _open_snapshot(
            fetch(match["repo"], revision, name),
            task,
            name,
            f"hub:{match['repo']}@{revision}",
            revision=revision,
        )
    if isinstance(name_or_dir, Path) or "/" in name:
        raise TeacherError(f"there is no directory {name}", hint=f"a checkpoint is a directory with {CONFIG}")
    raise unknown_name("teacher", name, [card.name for card in cards()])


def published_licence(name: str) -> Licence | None:
    """What is known of the licence of weights that would be downloaded; None for a directory.

    Of a checkpoint without a card here the hub is asked for its own card; ``unknown`` where it does not say.
    """
    card = _card(name)
    if card is not None:
        return Licence(card.licence, card.commercial)
    match = REPO_ID.fullmatch(name)
    if match is None or name.startswith(".") or Path(name).is_dir():
        return None
    return hub_licence(match["repo"], match["revision"] or "main")


def revision_notes(info: TeacherInfo) -> tuple[str, ...]:
    """A line for weights that were asked of the hub under a name that may change: a branch or tag."""
    if not info.revision or COMMIT.fullmatch(info.revision):
        return ()
    read = f"the commit of today is {info.commit}" if info.commit else "its commit is not known"
    return (f"revision {info.revision!r} of teacher {info.name} is not pinned and may change; {read}",)


def _open_card(card: TeacherCard, task: dict[str, Any]) -> tuple[Teacher, TeacherInfo]:
    if card.repo_id is None or card.revision is None:
        teacher, file = FRONTENDS[card.family].load_package(card.name, **task)
        return _described(
            teacher.eval(),
            card.name,
            weights_sha256([file]),
            card.licence,
            card.commercial,
            f"package:{card.family}",
        )
    source = f"hub:{card.repo_id}@{card.revision}"
    placed = offline_copy(card.name)
    if (placed / CONFIG).is_file():
        directory, source, revision = placed, f"{placed}, for {source}", ""
    else:
        directory, revision = fetch(card.repo_id, card.revision, card.name), card.revision
    return _open_snapshot(
        directory, task, card.name, source, card.licence, card.commercial, revision=revision
    )


def _open_snapshot(
    directory: Path,
    task: dict[str, Any],
    name: str,
    source: str,
    licence: str = "unknown",
    commercial: bool = False,
    *,
    revision: str,
) -> tuple[Teacher, TeacherInfo]:
    teacher, files = read_teacher(directory, **task)
    commit = commit_of(directory)
    source = f"{source} ({commit})" if commit else source
    return _described(
        teacher, name, weights_sha256(files), licence, commercial, source, revision=revision, commit=commit
    )


def _open_directory(directory: Path, task: dict[str, Any]) -> tuple[Teacher, TeacherInfo]:
    teacher, files = read_teacher(directory, **task)
    family = FRONTENDS[teacher.config["tsfmc"]["family"]]
    origin = teacher.config["tsfmc"].get("origin", {})
    return _described(
        teacher,
        origin.get("name", directory.resolve().name),
        weights_sha256(files),
        origin.get("licence", family.licence),
        origin.get("commercial", family.commercial),
        origin.get("source", f"directory {directory}"),
        commit=origin.get("commit", ""),
    )


def _described(
    teacher: Teacher,
    name: str,
    sha256: str,
    licence: str,
    commercial: bool,
    source: str,
    *,
    revision: str = "",
    commit: str = "",
) -> tuple[Teacher, TeacherInfo]:
    info = TeacherInfo(
        name=name,
        family=teacher.config["tsfmc"]["family"],
        parameters=parameter_count(teacher),
        sha256=sha256,
        licence=licence,
        commercial=commercial,
        source=source,
        revision=revision,
        commit=commit,
    )
    # Carried along by every copy of the configuration, so that a pruned teacher keeps its licence.
    own = teacher.config["tsfmc"]
    origin = own.get("origin") or {
        field: value
        for field, value in asdict(info).items()
        if field not in ("parameters", "pretraining_overlap")
    }
    teacher.config = {**teacher.config, "tsfmc": {**own, "origin": origin}}
    return teacher, info
