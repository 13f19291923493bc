"""The settings of a compile: one table for the keywords of the Python face and the options of the CLI.

Each entry says where its value stands in the recipe, and what it is, in the words of ``--help``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from ..data.objects import as_file
from ..data.reading_options import stated_dialect


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        path: where it stands in the recipe, by dots; empty for what is not one field of it.
        help: a line.
        metavar: how a value is written, where its type does not say it.
    """

    path: str
    help: str
    metavar: str | None = None


class OtherSettings(TypedDict, total=False):
    """The settings that ``compile`` takes by keyword; None and what is left out come from the recipe."""

    device: Annotated[
        str | None,
        Setting("", "For targets that have devices, see tsfmc targets. Default: this machine."),
    ]
    student: Annotated[
        str | None,
        Setting(
            "student.kind",
            "dlinear (default), itransformer, residual, auto, or none: the teacher itself is lowered.",
        ),
    ]
    lookback: Annotated[int | None, Setting("task.lookback", "Steps in. Default: 512.")]
    horizon: Annotated[int | None, Setting("task.horizon", "Steps out. Default: 96.")]
    variates: Annotated[str | None, Setting("task.variates", "'all' or a,b,c. Default: all.")]
    step: Annotated[
        str | None,
        Setting("task.step", "Step of the series to come, for --data synthetic: h, 15min, D, ..."),
    ]
    calendar: Annotated[
        bool | None,
        Setting("task.calendar", "Try hour, weekday and season of the first step as inputs."),
    ]
    known_columns: Annotated[
        str | None,
        Setting("task.known_columns", "Columns a,b known over the horizon: tried as inputs, not forecast."),
    ]
    past_columns: Annotated[
        str | None,
        Setting("task.past_columns", "Columns a,b known up to now: tried as inputs, not forecast."),
    ]
    split: Annotated[
        str | None,
        Setting("task.split", "'ltsf', fractions 0.7,0.1,0.2 or row counts. Default: ltsf."),
    ]
    missing: Annotated[
        Literal["error", "ffill", "interpolate"] | None,
        Setting("task.missing", "Empty cells and missing rows: refused or filled. Default: error."),
    ]
    max_filled: Annotated[
        float | None,
        Setting("task.max_filled", "Share of a variate that --missing may fill. Default: 0.25."),
    ]
    id_column: Annotated[
        str | None,
        Setting("task.id_column", "Of long tables, one row a series and time. Default: by its usual names."),
    ]
    time_column: Annotated[str | None, Setting("task.time_column", "Of long tables. Default: by its name.")]
    value_columns: Annotated[
        str | None, Setting("task.value_columns", "Of long tables: 'a' or a,b,c. Default: by their names.")
    ]
    holdout_items: Annotated[
        float | None,
        Setting("task.holdout_items", "Share of the items kept out of everything, judged at the end."),
    ]
    csv: Annotated[
        str | None,
        Setting(
            "data_format",
            "How a text file is written: sep, decimal, thousands, dates, encoding, time (column), and sheet.",
            metavar="sep=;,decimal=,",
        ),
    ]
    duplicates: Annotated[
        Literal["error", "mean", "first"] | None,
        Setting("task.duplicates", "Rows of one time: refused, averaged, or the first kept. Default: error."),
    ]
    sort: Annotated[bool | None, Setting("task.sort", "Take rows in any order.")]
    zone: Annotated[
        str | None,
        Setting("task.zone", "Zone whose clock the times show, such as Europe/Berlin. Default: UTC."),
    ]
    quantiles: Annotated[
        str | tuple[float, ...] | None,
        Setting("task.quantiles", "Levels such as 0.1,0.5,0.9, 0.5 among them. Default: a point forecast."),
    ]
    recipe: Annotated[str | Path | None, Setting("", "A recipe in TOML.")]
    set: Annotated[Iterable[str], Setting("", "Override a field of the recipe.", metavar="KEY.PATH=VALUE")]
    budget: Annotated[
        Iterable[str], Setting("", "A gate, e.g. max_mse_over_teacher=5%.", metavar="NAME=VALUE")
    ]
    teacher_store: Annotated[
        str | Path | None, Setting("teacher_store", "Stored teacher outputs (tsfmc teach).")
    ]
    licence_policy: Annotated[
        Literal["warn", "commercial"] | None, Setting("licence_policy", "Refuse non-commercial weights.")
    ]
    baseline: Annotated[bool | None, Setting("baseline", "Also train the student without the teacher.")]
    refit: Annotated[
        Literal["none", "train+val", "all"] | None,
        Setting(
            "refit",
            "Solve what is shipped again on all rows up to there, after it was judged. Default: none.",
        ),
    ]
    with_teacher: Annotated[
        bool | None,
        Setting("with_teacher", "Put the teacher beside the artifact, so that its device can measure both."),
    ]
    seed: Annotated[int | None, Setting("seed", "Every random choice derives from it. Default: 0.")]
    threads: Annotated[
        int | None, Setting("threads", "Threads of teacher and artifact while measuring. Default: 1.")
    ]
    pipeline: Annotated[Sequence[str] | None, Setting("pipeline", "Names of the passes, in order.")]
    passes: Annotated[Mapping[str, Mapping[str, Any]] | None, Setting("passes", "Options of passes.")]


class Settings(OtherSettings, total=False):
    """All settings."""

    teacher: Annotated[
        str | Path | Sequence[str | Path] | None,
        Setting(
            "teacher",
            "Short name, hub id, directory or teacher store; may be repeated: a mix of them is chosen. "
            "Default: the embedded demo teacher.",
        ),
    ]
    data: Annotated[
        str | Path | object | None,
        Setting(
            "data", "Known data set, 'sample', 'synthetic', or a file (see tsfmc inspect). Default: sample."
        ),
    ]
    target: Annotated[
        str | Sequence[str] | None,
        Setting("targets", "Where it will run; may be repeated. Default: onnx."),
    ]


def known_settings() -> dict[str, tuple[Setting, tuple[Any, ...]]]:
    """Keyword -> its setting and the types that its value may have, None aside."""
    found = {}
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        kind, setting = get_args(hint)
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        found[name] = (setting, tuple(each for each in kinds if each is not type(None)))
    return found


def recipe_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are one field of the recipe, by their dotted path, as TOML has them.

    Raises:
        TypeError: a keyword that no setting has.
    """
    known = known_settings()
    fields = {}
    for name, value in settings.items():
        if name not in known:
            raise TypeError(f"unknown setting {name!r}; known are {', '.join(known)}")
        setting, _ = known[name]
        if setting.path and value is not None:
            fields[setting.path] = _plain(name, value)
    return fields


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if name == "teacher" and not isinstance(value, str):
        return [str(one) for one in value]
    if name == "target" and isinstance(value, str):
        return [value]
    if name == "csv":
        return stated_dialect(value)._asdict()  # all of it: what it leaves out is as usual
    return str(as_file(value)) if name == "data" else value
