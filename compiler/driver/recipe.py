"""The recipe: everything that determines a compile, typed, versioned, TOML in and out.

Resolved in layers, later ones win:  presets/base.toml <- the student's preset <- the recipe file
<- named arguments <- ``--set key.path=value``.  A student brings its preset
(``Student.preset``).  ``recipe.lock.toml`` is the resolved recipe.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..base.errors import RecipeError, unknown_name
from ..students import STUDENTS

VERSION = 1
PRESETS = Path(__file__).parent / "presets"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSection(_Section):
    """What is forecast, and how the series is read and split."""

    lookback: int = Field(gt=0)
    horizon: int = Field(gt=0)
    variates: str = "all"
    split: str = "ltsf"
    missing: Literal["error", "ffill", "interpolate"] = "error"


class StudentSection(BaseModel):
    """``kind`` and the options of that student's constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    @property
    def config(self) -> dict[str, Any]:
        """The options without the kind."""
        return dict(self.model_extra or {})


class MeasureSection(_Section):
    """The latency rule's free choices: seconds per target, and the fewest queries."""

    duration_s: float = Field(default=5.0, gt=0)
    min_queries: int = Field(default=1024, ge=64)


class BudgetSection(_Section):
    """Gates; a missed one is exit code 4.

    ``max_mse_increase`` is relative to the teacher's test MSE: 0.05 or ``"5%"``.
    """

    max_mse_increase: float | None = None
    max_p90_us: float | None = None
    min_speedup: float | None = None
    max_payload_bytes: int | None = None


class Recipe(_Section):
    """A resolved recipe."""

    version: Literal[1]
    teacher: str
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    teacher_store: str | None = None
    data: str
    seed: int = Field(ge=0)
    threads: int = Field(gt=0)
    baseline: bool
    licence_policy: Literal["warn", "commercial"]
    task: TaskSection
    student: StudentSection
    pipeline: tuple[str, ...]
    passes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    targets: tuple[str, ...] = Field(min_length=1)
    target_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    measure: MeasureSection = MeasureSection()
    budget: BudgetSection = BudgetSection()

    def to_toml(self) -> str:
        """Stable TOML text; reading it gives an equal recipe."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def resolve(
    *, file: Path | None = None, named: Mapping[str, Any] | None = None, settings: Iterable[str] = ()
) -> Recipe:
    """The recipe of all layers.

    Args:
        file: a recipe in TOML.
        named: values by dotted path, from the command line's own options; None values are left out.
        settings: ``key.path=value`` strings; a value is read as TOML, and as text where that fails.

    Raises:
        RecipeError: naming the field, what was given and what is expected.
    """
    given = _read(file) if file else {}
    if given.get("version", VERSION) != VERSION:
        raise RecipeError(
            f"{file}: recipe version {given['version']!r}, this tsfmc reads version {VERSION}",
            hint=f"set version = {VERSION}",
        )
    overrides: dict[str, Any] = {}
    for path, value in (named or {}).items():
        if value is not None:
            _put(overrides, path, value)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {setting!r}: expected key.path=value, e.g. passes.distill.epochs=4")
        _put(overrides, path.strip(), _value(text.strip()))
    user = _merge(given, overrides)
    base = _read(PRESETS / "base.toml")
    merged = _merge(_merge(base, _preset(_merge(base, user).get("student"))), user)
    budget = merged.get("budget", {})
    if isinstance(budget, dict) and isinstance(budget.get("max_mse_increase"), str):
        budget["max_mse_increase"] = _percentage(budget["max_mse_increase"])
    _keep_options_of_pipeline(merged, user)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, file) from None


def pass_options(
    recipe: Recipe, name: str, options: type[BaseModel], follow: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of one pass: ``[passes.<name>]``, over what follows from the rest of the recipe.

    Raises:
        RecipeError: an option that the pass does not have, or a value of the wrong type.
    """
    given = {**follow, **recipe.passes.get(name, {})}
    try:
        options.model_validate(given)
    except ValidationError as error:
        raise _explain(error, None, options, f"passes.{name}.") from None
    return given


def _preset(student: Any) -> Mapping[str, Any]:
    """What the student brings, built in or of another package; an unknown kind is refused later."""
    kind = student.get("kind") if isinstance(student, dict) else None
    if kind == "none":
        return _read(PRESETS / "none.toml")
    if not isinstance(kind, str) or kind not in STUDENTS:
        return {}
    preset: Mapping[str, Any] = STUDENTS[kind].preset(kind)
    return preset


def _keep_options_of_pipeline(merged: dict[str, Any], user: Mapping[str, Any]) -> None:
    """Presets may hold options of passes that this pipeline leaves out; what a user gives must act."""
    pipeline, passes = merged.get("pipeline"), merged.get("passes")
    if not isinstance(pipeline, list | tuple) or not isinstance(passes, dict):
        return
    given = user.get("passes", {})
    for name in [name for name in passes if name not in pipeline]:
        if name in given:
            wrong = unknown_name("pass of this pipeline", name, [str(step) for step in pipeline])
            raise RecipeError(f"passes.{name}: {wrong.what}", hint=wrong.hint)
        del passes[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe", hint="check the path given to --recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _percentage(text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise RecipeError(
            f"budget.max_mse_increase: {text!r}, expected a number or a percentage such as 5%"
        ) from None


def _put(table: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{path}: {parent} is a value, not a section")
    table[leaf] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(
    error: ValidationError, file: Path | None, model: type[BaseModel] = Recipe, prefix: str = ""
) -> RecipeError:
    first = error.errors()[0]
    field = prefix + ".".join(str(part) for part in first["loc"])
    where = f"{file}: " if file else ""
    if first["type"] == "extra_forbidden":
        section: Any = model
        for part in first["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        wrong = unknown_name("recipe field", field, (f"{prefix}{known}" for known in section.model_fields))
        return RecipeError(f"{where}{wrong.what}", hint=wrong.hint)
    return RecipeError(f"{where}{field}: got {first['input']!r}: {first['msg'].lower()}")
